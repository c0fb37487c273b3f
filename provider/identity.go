// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/diag"
)

// identityKey is where private state keeps an identity.
const identityKey = "identity"

// identity tells an object that this state describes from another one of the
// same name. It lives in private state: users have no use for it.
type identity struct {
	Machine string `json:"machine"`          // where it was made
	Launch  string `json:"launch,omitempty"` // VM nodes: cluster.LaunchID of their token
}

type privateWriter interface {
	SetKey(ctx context.Context, key string, value []byte) diag.Diagnostics
}

type privateReader interface {
	GetKey(ctx context.Context, key string) ([]byte, diag.Diagnostics)
}

// remember stores which object was just made.
func remember(ctx context.Context, p platform, private privateWriter, launch string) diag.Diagnostics {
	var diags diag.Diagnostics
	machine, err := p.MachineID()
	if err != nil {
		diags.AddError("Identifying this machine", detail(err))
		return diags
	}
	value, err := json.Marshal(identity{Machine: machine, Launch: launch})
	if err != nil {
		diags.AddError("Identifying this machine", detail(err))
		return diags
	}
	return private.SetKey(ctx, identityKey, value)
}

// recall returns what remember stored. State that was made on another machine
// is an error: what it describes cannot be seen, changed or removed from here.
func recall(ctx context.Context, p platform, private privateReader, kind, name string) (identity, diag.Diagnostics) {
	var known identity
	value, diags := private.GetKey(ctx, identityKey)
	if diags.HasError() || value == nil {
		return known, diags
	}
	if err := json.Unmarshal(value, &known); err != nil {
		diags.AddError("Reading the private state of "+kind, detail(err))
		return known, diags
	}
	machine, err := p.MachineID()
	switch {
	case err != nil:
		diags.AddError("Identifying this machine", detail(err))
	case machine != known.Machine && onAWS(p):
		diags.AddError(fmt.Sprintf("%s (%s) is in another account or region", kind, name),
			fmt.Sprintf("It was made in %s, and the credentials and region of this configuration are for %s. Use those it was made with (aws.profile, aws.region, "+
				"AWS_PROFILE, AWS_REGION). If it is gone for good, forget it with \"terraform state rm\".", known.Machine, machine))
	case machine != known.Machine:
		diags.AddError(fmt.Sprintf("%s (%s) is on another machine", kind, name),
			"A local network lives on the machine that made it, and this is another one. Run terraform there. If that machine is "+
				"gone, forget its resources with \"terraform state rm\" and apply again to make them here.")
	}
	return known, diags
}
