// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
)

// replaceBecause replaces a resource whose attribute changes and says in the
// plan why nothing less will do.
type replaceBecause struct{ reason string }

func (r replaceBecause) Description(context.Context) string {
	return "A change replaces the resource: " + r.reason + "."
}

func (r replaceBecause) MarkdownDescription(ctx context.Context) string { return r.Description(ctx) }

// needed: the resource exists, goes on existing, and its attribute changes.
func (r replaceBecause) needed(state tfsdk.State, plan tfsdk.Plan, at path.Path, old, planned attr.Value, diags *diag.Diagnostics) bool {
	if state.Raw.IsNull() || plan.Raw.IsNull() || planned.Equal(old) {
		return false
	}
	if !planned.IsUnknown() { // else it may come out the same
		diags.AddAttributeWarning(at, "A change of "+at.String()+" replaces the resource", sentence("It cannot be changed in place: "+r.reason))
	}
	return true
}

func (r replaceBecause) PlanModifyString(_ context.Context, req planmodifier.StringRequest, resp *planmodifier.StringResponse) {
	resp.RequiresReplace = r.needed(req.State, req.Plan, req.Path, req.StateValue, req.PlanValue, &resp.Diagnostics)
}

func (r replaceBecause) PlanModifyInt64(_ context.Context, req planmodifier.Int64Request, resp *planmodifier.Int64Response) {
	resp.RequiresReplace = r.needed(req.State, req.Plan, req.Path, req.StateValue, req.PlanValue, &resp.Diagnostics)
}
