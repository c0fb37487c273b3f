// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// ValidateConfig checks what no function can have, and what several attributes
// say together: the names of the slots must be valid too.
func (r *functionNodeResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var model functionNodeModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if !model.User.IsNull() {
		resp.Diagnostics.AddAttributeError(path.Root("user"), "A function has no user of its own",
			"Functions run as the one user their platform gives them: leave user out, or run the program on a boxer_vm_node.")
	}
	if len(model.Publish.Elements()) > 0 {
		resp.Diagnostics.AddAttributeError(path.Root("publish"), "A function cannot be published",
			"The replicas are behind a NAT, which nothing from outside passes: publish a boxer_vm_node that passes requests on to this service "+
				"(nginx, haproxy), or reach a replica from this machine with \"boxer forward\".")
	}
	model.checkRange(&resp.Diagnostics)
	model.functionAWSModel.check(&model.nodeModel, &resp.Diagnostics)
	if resp.Diagnostics.HasError() || model.Name.IsUnknown() || model.DesiredCount.IsUnknown() || model.MaxCount.IsUnknown() {
		return
	}
	name, count := model.Name.ValueString(), model.DesiredCount.ValueInt64()
	if config.CheckName(name) != nil || count < 0 {
		return // said already by their own validators
	}
	if model.owned() && model.StandbyFor.IsNull() {
		configured := model.rangeModel
		model.planRange(configured)
		count = model.MaxCount.ValueInt64()
	}
	for _, number := range []int64{0, max(count-1, 0)} {
		if err := config.CheckName(fmt.Sprintf("%s-%d", name, number)); err != nil {
			remedy := "Choose a shorter or different name."
			if model.owned() && number > 0 {
				remedy = "Choose a shorter or different name, or a smaller max_count."
			}
			resp.Diagnostics.AddAttributeError(path.Root("name"), "Invalid name",
				fmt.Sprintf("The replicas' slots are named after the node, and one of them would be invalid: %s. %s", err, remedy))
			return
		}
	}
}

// ModifyPlan plans the replicas. One that has ended is no change: the network's
// controller launches it again.
func (r *functionNodeResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.Plan.Raw.IsNull() {
		return // destroyed
	}
	var plan functionNodeModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if resp.Diagnostics.HasError() {
		return
	}
	plan.planTags(ctx, r.platform, &resp.Diagnostics)
	var configured rangeModel
	for attribute, to := range map[string]any{
		"desired_count": &configured.DesiredCount, "min_count": &configured.MinCount, "max_count": &configured.MaxCount, "standby_for": &configured.StandbyFor,
	} {
		resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root(attribute), to)...)
	}
	plan.planRange(configured)
	var state functionNodeModel
	again := false
	if exists := !req.State.Raw.IsNull(); exists {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
		again = isUnfinished(ctx, req.Private, &resp.Diagnostics)
	}
	switch {
	case r.platform == nil:
	case !onAWS(r.platform):
		plan.functionAWSModel.onlyAWS(&resp.Diagnostics)
		plan.onlyLocalPackage(&resp.Diagnostics)
		plan.functionAWSModel.exports(false, nil)
	default:
		plan.planFunction(ctx, &state, resp)
	}
	count := req.State.Raw.IsNull() || !state.sameRange(&plan.rangeModel)
	switch changes := count || again || plan.replicasChange(ctx, &state); {
	case !changes:
	case plan.open() || plan.owned(): // the controller may have moved the number by then
		plan.NodeIDs, plan.RunningCount = unknownIDs, types.Int64Unknown()
		plan.Slots, plan.OverlayAddresses = types.ListUnknown(types.StringType), types.ListUnknown(types.StringType)
	default:
		plan.NodeIDs, plan.RunningCount = unknownIDs, plan.DesiredCount
		if count {
			plan.planReplicas(ctx, &resp.Diagnostics)
		}
	}
	resp.Diagnostics.Append(resp.Plan.Set(ctx, &plan)...)
}

func (m *functionNodeModel) planReplicas(ctx context.Context, diags *diag.Diagnostics) {
	m.Slots = types.ListUnknown(types.StringType)
	m.OverlayAddresses = types.ListUnknown(types.StringType)
	if !m.Name.IsUnknown() {
		slots, d := types.ListValueFrom(ctx, types.StringType, m.slotNames())
		diags.Append(d...)
		m.Slots = slots
	}
}

// replicasChange says whether an update of old replaces the replicas that run.
func (m *functionNodeModel) replicasChange(ctx context.Context, old *functionNodeModel) bool {
	if !known(m.MemorySize, m.EphemeralStorage, m.Timeout) || m.functionAWSModel.changes(&old.functionAWSModel) || m.guestChanges(ctx, &old.nodeModel, config.KindFunction) {
		return true
	}
	return !m.MemorySize.Equal(old.MemorySize) || !m.EphemeralStorage.Equal(old.EphemeralStorage) || !m.Timeout.Equal(old.Timeout)
}

// slotNames are those of a new node's replicas.
func (m *functionNodeModel) slotNames() []string {
	count := m.DesiredCount
	if m.owned() {
		count = m.MinCount // none of a standby
	}
	return launch.Slots(m.Name.ValueString(), int(count.ValueInt64()))
}

// slotsOf are those of count replicas that p allows.
func (p policy) slotsOf(name string, count int) []string {
	if p.StandbyFor != "" {
		return []string{p.StandbyFor}[:p.clamp(count)]
	}
	return launch.Slots(name, p.clamp(count))
}
