// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

const functionKind = "Boxer Function Node"

type functionNodeResource struct{ platform platform }

var (
	_ resource.ResourceWithConfigure      = (*functionNodeResource)(nil)
	_ resource.ResourceWithModifyPlan     = (*functionNodeResource)(nil)
	_ resource.ResourceWithValidateConfig = (*functionNodeResource)(nil)
)

func newFunctionNodeResource() resource.Resource { return &functionNodeResource{} }

func (r *functionNodeResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "boxer_function_node"
}

func (r *functionNodeResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

type functionNodeModel struct {
	nodeModel
	DesiredCount     types.Int64 `tfsdk:"desired_count"`
	MemorySize       types.Int64 `tfsdk:"memory_size"`
	EphemeralStorage types.Int64 `tfsdk:"ephemeral_storage"`
	Timeout          types.Int64 `tfsdk:"timeout"`
	RunningCount     types.Int64 `tfsdk:"running_count"`
}

func (r *functionNodeResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	replace := []planmodifier.Int64{int64planmodifier.RequiresReplace()}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A node on a serverless function: `desired_count` replicas, each one invocation behind a NAT, that run " +
			"the same unmodified program. Replicas fill the slots `<name>-0`, `<name>-1`, ... and share the `service` name. " +
			"`desired_count` changes in place; any other change but a move of `source_dir` replaces the node.",
		Attributes: nodeAttributes(map[string]schema.Attribute{
			"desired_count": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default: int64default.StaticInt64(1),
				MarkdownDescription: "How many replicas run, 0 or more. Default 1. A replica that has ended is launched again by the next apply: " +
					"plan shows it as a change of `running_count`.",
				Validators: []validator.Int64{int64validator.AtLeast(0)},
			},
			"memory_size": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default: int64default.StaticInt64(512),
				MarkdownDescription: "Memory of one replica in MB, 128 to 10240, and its share of CPU: 1769 MB come with one. Default 512. " +
					"A change replaces the node.",
				Validators:    []validator.Int64{int64validator.Between(128, 10240)},
				PlanModifiers: replace,
			},
			"ephemeral_storage": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default:             int64default.StaticInt64(512),
				MarkdownDescription: "Size of one replica's `/tmp` in MB, 512 to 10240. Default 512. A change replaces the node.",
				Validators:          []validator.Int64{int64validator.Between(512, 10240)},
				PlanModifiers:       []planmodifier.Int64{replaceUnlessNew()},
			},
			"timeout": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default:             int64default.StaticInt64(900),
				MarkdownDescription: "Seconds a replica may run before it leaves the network and ends, 1 to 900. Default 900. A change replaces the node.",
				Validators:          []validator.Int64{int64validator.Between(1, 900)},
				PlanModifiers:       replace,
			},
			"running_count": schema.Int64Attribute{
				Computed:            true,
				MarkdownDescription: "How many replicas run now.",
				PlanModifiers:       []planmodifier.Int64{int64planmodifier.UseStateForUnknown()},
			},
		}),
	}
}

// replaceUnlessNew replaces the node when the value changes, but not a node from
// before the attribute was there, which has the default already.
func replaceUnlessNew() planmodifier.Int64 {
	return int64planmodifier.RequiresReplaceIf(func(_ context.Context, req planmodifier.Int64Request, resp *int64planmodifier.RequiresReplaceIfFuncResponse) {
		resp.RequiresReplace = !req.StateValue.IsNull()
	}, "a change replaces the node", "a change replaces the node")
}

// ValidateConfig checks what several attributes say together: the names of the
// slots must be valid too.
func (r *functionNodeResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var model functionNodeModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() || model.Name.IsUnknown() || model.DesiredCount.IsUnknown() {
		return
	}
	name, count := model.Name.ValueString(), model.DesiredCount.ValueInt64()
	if config.CheckName(name) != nil || count < 0 {
		return // said already by their own validators
	}
	last := fmt.Sprintf("%s-%d", name, max(count-1, 0))
	if err := config.CheckName(last); err != nil {
		resp.Diagnostics.AddAttributeError(path.Root("name"), "Invalid name",
			fmt.Sprintf("The replicas' slots are named after the node, and one of them would be invalid: %s. Choose a shorter or different name.", err))
	}
}

// ModifyPlan plans the replicas. Until a controller keeps them alive, a replica
// that has ended makes the plan propose an update that launches it again.
func (r *functionNodeResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.Plan.Raw.IsNull() {
		return // destroyed
	}
	var plan functionNodeModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if !req.State.Raw.IsNull() {
		var state functionNodeModel
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
		if state.RunningCount.Equal(plan.DesiredCount) && state.DesiredCount.Equal(plan.DesiredCount) {
			return
		}
	}
	plan.RunningCount = plan.DesiredCount
	plan.Slots = types.ListUnknown(types.StringType)
	plan.NodeIDs = types.ListUnknown(types.Int64Type)
	plan.OverlayAddresses = types.ListUnknown(types.StringType)
	if !plan.DesiredCount.IsUnknown() && !plan.Name.IsUnknown() {
		slots, diags := types.ListValueFrom(ctx, types.StringType, plan.slotNames())
		resp.Diagnostics.Append(diags...)
		plan.Slots = slots
	}
	resp.Diagnostics.Append(resp.Plan.Set(ctx, &plan)...)
}

func (m *functionNodeModel) slotNames() []string {
	return launch.Slots(m.Name.ValueString(), int(m.DesiredCount.ValueInt64()))
}

func (m *functionNodeModel) spec(ctx context.Context, diags *diag.Diagnostics) nodeSpec {
	spec := m.nodeModel.spec(ctx, config.KindFunction, diags)
	spec.MemoryMB = int(m.MemorySize.ValueInt64())
	spec.EphemeralMB = int(m.EphemeralStorage.ValueInt64())
	spec.TimeoutS = int(m.Timeout.ValueInt64())
	return spec
}

func (r *functionNodeResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var model functionNodeModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	model.checkSource(&resp.Diagnostics)
	spec := model.spec(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	if err := r.platform.CreateFunction(ctx, spec); err != nil {
		addProblem(&resp.Diagnostics, "creating", functionKind, spec.Name, err)
		return
	}

	// The function exists from here on: state says so before the wait begins.
	model.RunningCount = types.Int64Value(0)
	slots := model.slotNames()
	model.place(ctx, slots, nil, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	resp.Diagnostics.Append(remember(ctx, r.platform, resp.Private, "")...)

	members, err := r.startReplicas(ctx, spec, slots)
	if err != nil {
		addProblem(&resp.Diagnostics, "creating", functionKind, spec.Name, err)
		if r.undo(ctx, spec, &resp.Diagnostics) {
			resp.State.RemoveResource(ctx)
		}
		return
	}
	model.RunningCount = model.DesiredCount
	model.place(ctx, slots, members, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
}

// undo removes a function whose guests do not run. If that fails too, the state
// keeps the node, so that destroy can try again.
func (r *functionNodeResource) undo(ctx context.Context, spec nodeSpec, diags *diag.Diagnostics) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := r.platform.DeleteFunction(ctx, spec.Network, spec.Name); err != nil {
		addProblem(diags, "cleaning up", functionKind, spec.Name, err)
		return false
	}
	return true
}

func (r *functionNodeResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var model functionNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	_, diags := recall(ctx, r.platform, req.Private, functionKind, name)
	resp.Diagnostics.Append(diags...)
	if diags.HasError() {
		return
	}
	running, err := r.platform.RunningReplicas(ctx, model.NetworkID.ValueString(), name)
	switch {
	case errors.Is(err, errGone):
		tflog.Info(ctx, "the function is gone", map[string]any{"name": name})
		resp.State.RemoveResource(ctx)
	case err != nil:
		addProblem(&resp.Diagnostics, "reading", functionKind, name, err)
	default:
		model.RunningCount = types.Int64Value(int64(len(running)))
		resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	}
}

// Update makes the running replicas those that are desired, slot by slot, and
// leaves the others alone.
func (r *functionNodeResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var state, plan functionNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if resp.Diagnostics.HasError() {
		return
	}
	spec := plan.spec(ctx, &resp.Diagnostics)
	replicas := replicasOf(ctx, &state, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	if err := r.scale(ctx, spec, plan.slotNames(), replicas); err != nil {
		addProblem(&resp.Diagnostics, "updating", functionKind, spec.Name, err)
		r.recount(ctx, spec, &state)
		resp.Diagnostics.Append(resp.State.Set(ctx, &state)...)
		return
	}
	plan.RunningCount = plan.DesiredCount
	plan.place(ctx, plan.slotNames(), replicas.members(plan.slotNames()), &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &plan)...)
}

// recount notes how many replicas a failed update left; if that cannot be told
// either, the next refresh will.
func (r *functionNodeResource) recount(ctx context.Context, spec nodeSpec, state *functionNodeModel) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if running, err := r.platform.RunningReplicas(ctx, spec.Network, spec.Name); err == nil {
		state.RunningCount = types.Int64Value(int64(len(running)))
	}
}

// scale stops the replicas that are not wanted and starts those that do not run.
func (r *functionNodeResource) scale(ctx context.Context, spec nodeSpec, wanted []string, replicas replicas) error {
	running, err := r.platform.RunningReplicas(ctx, spec.Network, spec.Name)
	if err != nil {
		return err
	}
	for _, slot := range running {
		if slices.Contains(wanted, slot) {
			continue
		}
		if err := r.platform.StopReplica(ctx, spec.Network, spec.Name, slot); err != nil {
			return err
		}
	}
	var missing []string
	for _, slot := range wanted {
		if !slices.Contains(running, slot) {
			missing = append(missing, slot)
		}
	}
	started, err := r.startReplicas(ctx, spec, missing)
	if err != nil {
		r.stopReplicas(ctx, spec, missing)
		return err
	}
	for _, member := range started {
		replicas[member.Slot] = member
	}
	return nil
}

func (r *functionNodeResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var model functionNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	_, diags := recall(ctx, r.platform, req.Private, functionKind, name)
	resp.Diagnostics.Append(diags...)
	if diags.HasError() {
		return
	}
	if err := r.platform.DeleteFunction(ctx, model.NetworkID.ValueString(), name); err != nil {
		addProblem(&resp.Diagnostics, "destroying", functionKind, name, err)
	}
}
