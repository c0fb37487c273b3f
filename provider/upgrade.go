// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
)

// schemaVersion of all resources. Version 0 is that of the first provider, which
// knew fewer attributes.
const schemaVersion = 1

// upgradeFrom0 adds to a state of version 0 what its resource has had all along
// without saying so, so that a new provider proposes no change. What else is
// missing is null.
func upgradeFrom0(also map[string]any) map[int64]resource.StateUpgrader {
	return map[int64]resource.StateUpgrader{0: {
		StateUpgrader: func(_ context.Context, req resource.UpgradeStateRequest, resp *resource.UpgradeStateResponse) {
			var state map[string]any
			if err := json.Unmarshal(req.RawState.JSON, &state); err != nil {
				resp.Diagnostics.AddError("Reading the state of an earlier version", detail(err))
				return
			}
			had := map[string]any{"tags_all": map[string]string{}}
			if _, node := state["network_id"]; node {
				had["restart"], had["wait_for_ready"] = "no", true
			}
			maps.Copy(had, also)
			for name, value := range had {
				if state[name] == nil {
					state[name] = value
				}
			}
			raw, err := json.Marshal(state)
			if err != nil {
				resp.Diagnostics.AddError("Reading the state of an earlier version", detail(err))
				return
			}
			resp.DynamicValue = &tfprotov6.DynamicValue{JSON: raw}
		},
	}}
}
