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
	_ resource.ResourceWithImportState    = (*functionNodeResource)(nil)
	_ resource.ResourceWithUpgradeState   = (*functionNodeResource)(nil)
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
	resp.Schema = schema.Schema{
		Version: schemaVersion,
		MarkdownDescription: "A node on a serverless function: `desired_count` replicas, each one invocation behind a NAT, that run " +
			"the same unmodified program. Replicas fill the slots `<name>-0`, `<name>-1`, ... and share the `service` name. " +
			"A change is made in place: the next launch carries the new configuration, and the replicas that run are replaced one after " +
			"another, each successor in its predecessor's slot, at its address. Only another `name` or `network_id` replaces the node.",
		Attributes: nodeAttributes(map[string]schema.Attribute{
			"desired_count": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default: int64default.StaticInt64(1),
				MarkdownDescription: "How many replicas run, 0 or more. Default 1. The controller in the network's seed keeps that number: a replica " +
					"that ends is followed by another in its slot, at its address (`boxer events`).",
				Validators: []validator.Int64{int64validator.AtLeast(0)},
			},
			"memory_size": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default:             int64default.StaticInt64(512),
				MarkdownDescription: "Memory of one replica in MB, 128 to 10240, and its share of CPU: 1769 MB come with one. Default 512.",
				Validators:          []validator.Int64{int64validator.Between(128, 10240)},
			},
			"ephemeral_storage": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default:             int64default.StaticInt64(512),
				MarkdownDescription: "Size of one replica's `/tmp` in MB, 512 to 10240. Default 512.",
				Validators:          []validator.Int64{int64validator.Between(512, 10240)},
			},
			"timeout": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default:             int64default.StaticInt64(900),
				MarkdownDescription: "Seconds a replica may run before it leaves the network and ends, 1 to 900. Default 900.",
				Validators:          []validator.Int64{int64validator.Between(1, 900)},
			},
			"running_count": schema.Int64Attribute{
				Computed:            true,
				MarkdownDescription: "How many replicas run now.",
				PlanModifiers:       []planmodifier.Int64{int64planmodifier.UseStateForUnknown()},
			},
		}),
	}
}

func (r *functionNodeResource) UpgradeState(context.Context) map[int64]resource.StateUpgrader {
	return upgradeFrom0(map[string]any{"ephemeral_storage": 512})
}

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
	var state functionNodeModel
	again := false
	if exists := !req.State.Raw.IsNull(); exists {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
		again = isUnfinished(ctx, req.Private, &resp.Diagnostics)
	}
	count := !state.DesiredCount.Equal(plan.DesiredCount)
	if count || again || plan.replicasChange(ctx, &state) {
		plan.NodeIDs, plan.RunningCount = unknownIDs, plan.DesiredCount
	}
	if count {
		plan.planReplicas(ctx, &resp.Diagnostics)
	}
	resp.Diagnostics.Append(resp.Plan.Set(ctx, &plan)...)
}

func (m *functionNodeModel) planReplicas(ctx context.Context, diags *diag.Diagnostics) {
	m.RunningCount = m.DesiredCount
	m.Slots = types.ListUnknown(types.StringType)
	m.OverlayAddresses = types.ListUnknown(types.StringType)
	if !m.DesiredCount.IsUnknown() && !m.Name.IsUnknown() {
		slots, d := types.ListValueFrom(ctx, types.StringType, m.slotNames())
		diags.Append(d...)
		m.Slots = slots
	}
}

// replicasChange says whether an update of old replaces the replicas that run.
func (m *functionNodeModel) replicasChange(ctx context.Context, old *functionNodeModel) bool {
	if !known(m.MemorySize, m.EphemeralStorage, m.Timeout) || m.guestChanges(ctx, &old.nodeModel, config.KindFunction) {
		return true
	}
	return !m.MemorySize.Equal(old.MemorySize) || !m.EphemeralStorage.Equal(old.EphemeralStorage) || !m.Timeout.Equal(old.Timeout)
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
	ctx, cancel := within(ctx, model.Timeouts, opCreate)
	defer cancel()
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
	if err := r.platform.Keep(ctx, spec, len(slots)); err != nil {
		addProblem(&resp.Diagnostics, "creating", functionKind, spec.Name, err)
	}
}

// undo removes a function whose guests do not run. If that fails too, the state
// keeps the node, so that destroy can try again.
func (r *functionNodeResource) undo(ctx context.Context, spec nodeSpec, diags *diag.Diagnostics) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := r.platform.DeleteFunction(ctx, spec.Network, spec.Name); err != nil {
		addProblem(diags, "cleaning up", functionKind, spec.Name, leftBehind(err))
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
	found, err := r.platform.Function(ctx, model.NetworkID.ValueString(), name)
	switch {
	case errors.Is(err, errGone):
		tflog.Info(ctx, "the function is gone", map[string]any{"name": name})
		resp.State.RemoveResource(ctx)
	case err != nil:
		addLookProblem(&resp.Diagnostics, functionKind, name, err)
	default:
		model.read(ctx, found, settingsOf(r.platform).defaultTags, &resp.Diagnostics)
		model.settle(ctx, r.platform, model.slotNames(), &resp.Diagnostics)
		resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	}
}

func (m *functionNodeModel) read(ctx context.Context, found functionStatus, defaults map[string]string, diags *diag.Diagnostics) {
	m.nodeModel.read(ctx, found.Spec, defaults, diags)
	m.RunningCount = types.Int64Value(int64(len(found.Running)))
	if found.Kept != nil {
		m.DesiredCount = types.Int64Value(int64(*found.Kept))
	} else { // imported, or an apply ended before they were kept
		m.DesiredCount = m.RunningCount
	}
	if found.Spec.MemoryMB == 0 {
		return
	}
	m.MemorySize = types.Int64Value(int64(found.Spec.MemoryMB))
	m.EphemeralStorage = types.Int64Value(int64(found.Spec.EphemeralMB))
	m.Timeout = types.Int64Value(int64(found.Spec.TimeoutS))
}

func (r *functionNodeResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	network, name, ok := importNode(ctx, functionKind, req, resp)
	if !ok {
		return
	}
	if _, err := r.platform.Function(ctx, network, name); err != nil {
		addImportProblem(&resp.Diagnostics, functionKind, network, name, err)
		return
	}
	resp.Diagnostics.Append(remember(ctx, r.platform, resp.Private, "")...)
}

// Update makes the running replicas those that are desired, slot by slot, and
// leaves alone what is as it should be.
func (r *functionNodeResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var state, plan functionNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := context.WithCancel(ctx) // each replica has its own time
	defer cancel()
	again := isUnfinished(ctx, req.Private, &resp.Diagnostics)
	keep := plan.CodeSHA256.Equal(state.CodeSHA256) && !again
	if !keep {
		plan.checkSource(&resp.Diagnostics)
	}
	spec := plan.spec(ctx, &resp.Diagnostics)
	replicas := replicasOf(ctx, &state, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	spec.KeepSource = keep
	changes := again || plan.replicasChange(ctx, &state)
	resp.Diagnostics.Append(setUnfinished(ctx, resp.Private, changes)...)
	err := r.change(ctx, spec, &plan, changes, changes || !plan.TagsAll.Equal(state.TagsAll), replicas)
	if err != nil {
		addProblem(&resp.Diagnostics, "updating", functionKind, spec.Name, err)
		r.salvage(ctx, spec, &state)
		state.placeKnown(ctx, replicas, &resp.Diagnostics)
		resp.Diagnostics.Append(resp.State.Set(ctx, &state)...)
		return
	}
	resp.Diagnostics.Append(setUnfinished(ctx, resp.Private, false)...)
	if plan.RunningCount.IsUnknown() {
		plan.RunningCount = plan.DesiredCount
	}
	plan.place(ctx, plan.slotNames(), replicas.members(plan.slotNames()), &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &plan)...)
}

// salvage notes how many replicas a failed update left, and has them kept. What
// cannot be told or done now the next refresh and apply will.
func (r *functionNodeResource) salvage(ctx context.Context, spec nodeSpec, state *functionNodeModel) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	found, err := r.platform.Function(ctx, spec.Network, spec.Name)
	if err != nil {
		return
	}
	state.RunningCount = types.Int64Value(int64(len(found.Running)))
	count := 0
	for i, slot := range state.slotNames() {
		if slices.Contains(found.Running, slot) {
			count = i + 1
		}
	}
	if count == 0 || found.Kept != nil {
		return
	}
	if err := r.platform.Keep(ctx, spec, count); err != nil {
		tflog.Warn(ctx, "the replicas that run are not kept", map[string]any{"name": spec.Name, "error": err.Error()})
	}
}

// change makes the function what spec says, if it is not, and then its replicas,
// if another guest or another number of them is wanted.
func (r *functionNodeResource) change(ctx context.Context, spec nodeSpec, plan *functionNodeModel, guest, differs bool, replicas replicas) error {
	wanted := plan.slotNames()
	found, err := r.platform.Function(ctx, spec.Network, spec.Name)
	if err != nil {
		return err
	}
	guest = guest || found.Kept == nil || *found.Kept != len(wanted)
	if guest { // meanwhile the controller must not launch what is being replaced
		if err := r.platform.Release(ctx, spec.Network, spec.Name); err != nil {
			return err
		}
	}
	if differs {
		if err := r.platform.UpdateFunction(ctx, spec); err != nil {
			return err
		}
	}
	if !guest {
		return nil
	}
	if found, err = r.platform.Function(ctx, spec.Network, spec.Name); err != nil {
		return err
	}
	timely := func() (context.Context, context.CancelFunc) { return within(ctx, plan.Timeouts, opUpdate) }
	for _, slot := range found.Running {
		if slices.Contains(wanted, slot) {
			continue
		}
		if err := r.platform.StopReplica(ctx, spec.Network, spec.Name, slot); err != nil {
			return err
		}
	}
	// One after another: the others go on meanwhile.
	for _, slot := range found.Stale {
		if !slices.Contains(wanted, slot) {
			continue
		}
		if err := r.renew(timely, spec, slot, replicas); err != nil {
			return err
		}
	}
	var missing []string
	for _, slot := range wanted {
		if !slices.Contains(found.Running, slot) {
			missing = append(missing, slot)
		}
	}
	ctx, cancel := timely()
	defer cancel()
	started, err := r.startReplicas(ctx, spec, missing)
	if err != nil {
		r.stopReplicas(ctx, spec, missing)
		return err
	}
	replicas.add(started)
	return r.platform.Keep(ctx, spec, len(wanted))
}

// renew replaces one replica by one of the function's present configuration.
func (r *functionNodeResource) renew(timely func() (context.Context, context.CancelFunc), spec nodeSpec, slot string, replicas replicas) error {
	ctx, cancel := timely()
	defer cancel()
	if err := r.platform.StopReplica(ctx, spec.Network, spec.Name, slot); err != nil {
		return err
	}
	started, err := r.startReplicas(ctx, spec, []string{slot})
	if err != nil {
		r.stopReplicas(ctx, spec, []string{slot})
		return err
	}
	replicas.add(started)
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
	ctx, cancel := within(ctx, model.Timeouts, opDelete)
	defer cancel()
	if err := r.platform.DeleteFunction(ctx, model.NetworkID.ValueString(), name); err != nil {
		addProblem(&resp.Diagnostics, "destroying", functionKind, name, err)
	}
}
