// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

const functionKind = "Boxer Function Node"

// drainTimeout is enough for replicas that leave: 20 s, and their guests' grace.
const drainTimeout = 30 * time.Second

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
	rangeModel
	functionAWSModel
	MemorySize       types.Int64 `tfsdk:"memory_size"`
	EphemeralStorage types.Int64 `tfsdk:"ephemeral_storage"`
	Timeout          types.Int64 `tfsdk:"timeout"`
	RunningCount     types.Int64 `tfsdk:"running_count"`
}

func (r *functionNodeResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		Version: schemaVersion,
		MarkdownDescription: "A node on a serverless function: replicas, each one invocation behind a NAT, that run the same unmodified " +
			"program. There are `desired_count` of them, or as many as the controller wants within a range. Replicas fill the slots `<name>-0`, `<name>-1`, ... and share the `service` name. " +
			"A change is made in place: the next launch carries the new configuration, and the replicas that run are replaced one after " +
			"another, each successor in its predecessor's slot, at its address. Only another `name` or `network_id` replaces the node.",
		Attributes: nodeAttributes(rangeAttributes(), functionAWSAttributes(), map[string]schema.Attribute{
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

func (m *functionNodeModel) spec(ctx context.Context, diags *diag.Diagnostics) nodeSpec {
	spec := m.nodeModel.spec(ctx, config.KindFunction, diags)
	spec.MemoryMB = int(m.MemorySize.ValueInt64())
	spec.EphemeralMB = int(m.EphemeralStorage.ValueInt64())
	spec.TimeoutS = int(m.Timeout.ValueInt64())
	spec.Policy = m.policy(ctx, diags)
	spec.AWS = m.functionAWSModel.spec(ctx, diags)
	return spec
}

func (r *functionNodeResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var model functionNodeModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := within(on(ctx, r.platform), model.Timeouts, opCreate)
	defer cancel()
	model.checkSource(&resp.Diagnostics)
	model.decided()
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
	r.located(ctx, &model)
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
	model.RunningCount = types.Int64Value(int64(len(slots)))
	model.place(ctx, slots, members, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	if _, err := r.platform.Keep(ctx, spec, len(slots)); err != nil {
		addProblem(&resp.Diagnostics, "creating", functionKind, spec.Name, err)
	}
}

// located notes what the platform calls a new function, and what it has for code.
func (r *functionNodeResource) located(ctx context.Context, model *functionNodeModel) {
	if !onAWS(r.platform) {
		model.functionAWSModel.exports(false, nil)
		return
	}
	found, err := r.platform.Function(ctx, model.NetworkID.ValueString(), model.Name.ValueString())
	if err != nil || found.AWS == nil { // the next refresh tells
		found.AWS = &awsFunction{}
		tflog.Warn(ctx, "the function cannot be described", map[string]any{"name": model.Name.ValueString(), "error": fmt.Sprint(err)})
	}
	model.FunctionARN, model.LogGroupName = orNull(found.AWS.ARN), orNull(found.AWS.LogGroup)
	if model.CodeSHA256.IsUnknown() {
		model.CodeSHA256 = orNull(found.Spec.CodeSHA256)
	}
}

// undo removes a function whose guests do not run. If that fails too, the state
// keeps the node, so that destroy can try again.
func (r *functionNodeResource) undo(ctx context.Context, spec nodeSpec, diags *diag.Diagnostics) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime(r.platform))
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
		if found.Unknown != "" {
			resp.Diagnostics.AddWarning(fmt.Sprintf("reading %s (%s)", functionKind, name), sentence(found.Unknown)+" How many replicas run is not known now.")
		}
		model.read(ctx, found, settingsOf(r.platform).defaultTags, &resp.Diagnostics)
		model.settle(ctx, r.platform, model.slotsNow(ctx, found, &resp.Diagnostics), &resp.Diagnostics)
		resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	}
}

func (m *functionNodeModel) read(ctx context.Context, found functionStatus, defaults map[string]string, diags *diag.Diagnostics) {
	m.nodeModel.read(ctx, found.Spec, defaults, diags)
	m.functionAWSModel.read(ctx, found.Spec.AWS, found.AWS, diags)
	if found.Unknown == "" || m.RunningCount.IsNull() {
		m.RunningCount = types.Int64Value(int64(len(found.Running)))
	}
	m.readRange(found.Kept)
	if found.Spec.MemoryMB == 0 {
		return
	}
	m.MemorySize = types.Int64Value(int64(found.Spec.MemoryMB))
	m.EphemeralStorage = types.Int64Value(int64(found.Spec.EphemeralMB))
	m.Timeout = types.Int64Value(int64(found.Spec.TimeoutS))
}

// slotsNow are those that there are: of a fixed number the declared ones, of one
// that the controller moves those that run. Where they are then is not known.
func (m *functionNodeModel) slotsNow(ctx context.Context, found functionStatus, diags *diag.Diagnostics) []string {
	var before []string
	if !m.Slots.IsNull() {
		diags.Append(m.Slots.ElementsAs(ctx, &before, false)...)
	}
	slots := slices.Clone(found.Running)
	slices.SortFunc(slots, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }) // by number
	switch {
	case found.Unknown != "" && !m.Slots.IsNull():
		return before
	case found.Kept != nil && !found.Kept.owned():
		return m.slotNames()
	case found.Kept == nil && !m.Slots.IsNull():
		return before // the next apply says which
	case !slices.Equal(slots, before):
		m.NodeIDs = types.ListNull(types.Int64Type)
	}
	return slots
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
	plan.decided()
	spec := plan.spec(ctx, &resp.Diagnostics)
	replicas := replicasOf(ctx, &state, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	spec.KeepSource = keep
	changes := again || plan.replicasChange(ctx, &state)
	resp.Diagnostics.Append(setUnfinished(ctx, resp.Private, changes)...)
	slots, err := r.change(ctx, spec, &plan, changes, changes || !plan.TagsAll.Equal(state.TagsAll) || !plan.Reserved.Equal(state.Reserved), replicas)
	if err != nil {
		addProblem(&resp.Diagnostics, "updating", functionKind, spec.Name, err)
		r.salvage(ctx, spec, &state)
		state.placeKnown(ctx, replicas, &resp.Diagnostics)
		resp.Diagnostics.Append(resp.State.Set(ctx, &state)...)
		return
	}
	resp.Diagnostics.Append(setUnfinished(ctx, resp.Private, false)...)
	if plan.RunningCount.IsUnknown() {
		plan.RunningCount = types.Int64Value(int64(len(slots)))
	}
	r.located(ctx, &plan)
	if plan.NodeIDs.IsUnknown() || !plan.owned() {
		r.complete(ctx, spec.Network, slots, replicas)
		plan.place(ctx, slots, replicas.members(slots), &resp.Diagnostics)
	}
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
	for i, slot := range launch.Slots(spec.Name, spec.Policy.clamp(controller.MaxCount)) {
		if slices.Contains(found.Running, slot) {
			count = i + 1
		}
	}
	if count == 0 || found.Kept != nil {
		return
	}
	if spec.Policy.owned() {
		count = spec.Policy.clamp(count)
	}
	if _, err := r.platform.Keep(ctx, spec, count); err != nil {
		tflog.Warn(ctx, "the replicas that run are not kept", map[string]any{"name": spec.Name, "error": err.Error()})
	}
}

// change makes the function what spec says, if it is not, and then its replicas,
// if another guest or another number of them is wanted. It returns their slots.
func (r *functionNodeResource) change(ctx context.Context, spec nodeSpec, plan *functionNodeModel, guest, differs bool, replicas replicas) ([]string, error) {
	found, err := r.platform.Function(ctx, spec.Network, spec.Name)
	if err != nil {
		return nil, err
	}
	count := len(found.Running)
	differs = differs || found.AWS != nil && found.AWS.Unrecorded
	guest = guest || found.Kept == nil || !spec.Policy.owned() && found.Kept.Count != spec.Policy.Count
	if guest { // meanwhile the controller must not launch what is being replaced
		was, err := r.platform.Release(ctx, spec.Network, spec.Name)
		if err != nil {
			return nil, err
		}
		if was >= 0 {
			count = was
		}
	}
	if differs {
		if err := r.platform.UpdateFunction(ctx, spec); err != nil {
			return nil, err
		}
	}
	timely := func() (context.Context, context.CancelFunc) {
		return within(on(ctx, r.platform), plan.Timeouts, opUpdate)
	}
	wanted := spec.Policy.slotsOf(spec.Name, count)
	switch {
	case guest:
		return wanted, r.replace(ctx, timely, spec, wanted, replicas)
	case !found.Kept.equal(spec.Policy):
		return r.resize(timely, spec, found.Running, replicas)
	}
	return wanted, nil
}

// replace makes the replicas those of the function's present configuration, and
// has them kept.
func (r *functionNodeResource) replace(ctx context.Context, timely func() (context.Context, context.CancelFunc), spec nodeSpec, wanted []string, replicas replicas) error {
	found, err := r.platform.Function(ctx, spec.Network, spec.Name)
	if err != nil {
		return err
	}
	if err := r.stopOthers(ctx, spec, found.Running, wanted); err != nil {
		return err
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
	_, err = r.platform.Keep(ctx, spec, len(wanted))
	return err
}

// resize tells the controller another policy, and waits for what it makes of the
// number of replicas. Those that stay are left alone.
func (r *functionNodeResource) resize(timely func() (context.Context, context.CancelFunc), spec nodeSpec, running []string, replicas replicas) ([]string, error) {
	ctx, cancel := timely()
	defer cancel()
	wants, err := r.platform.Keep(ctx, spec, -1)
	if err != nil {
		return nil, err
	}
	var slots []string
	var missing []launch.Want
	for _, want := range wants {
		slots = append(slots, want.Slot)
		if !slices.Contains(running, want.Slot) {
			want.JoinOnly = spec.JoinOnly
			missing = append(missing, want)
		}
	}
	if len(missing) > 0 {
		started, err := r.platform.Await(ctx, spec.Network, missing)
		if err != nil {
			return nil, err
		}
		replicas.add(started)
	}
	return slots, r.awaitDrained(ctx, spec, slots)
}

// awaitDrained waits until those that are too many have left: they let their
// connections end first. Who does not is stopped.
func (r *functionNodeResource) awaitDrained(ctx context.Context, spec nodeSpec, wanted []string) error {
	for end := time.Now().Add(drainTimeout); ; {
		found, err := r.platform.Function(ctx, spec.Network, spec.Name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(found.Running, func(slot string) bool { return !slices.Contains(wanted, slot) }) {
			return nil
		}
		if time.Now().After(end) {
			return r.stopOthers(ctx, spec, found.Running, wanted)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stopOthers stops the replicas that are too many.
func (r *functionNodeResource) stopOthers(ctx context.Context, spec nodeSpec, running, wanted []string) error {
	for _, slot := range running {
		if slices.Contains(wanted, slot) {
			continue
		}
		if err := r.platform.StopReplica(ctx, spec.Network, spec.Name, slot); err != nil {
			return err
		}
	}
	return nil
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
	ctx, cancel := model.deletion(on(ctx, r.platform))
	defer cancel()
	if err := r.platform.DeleteFunction(ctx, model.NetworkID.ValueString(), name); err != nil {
		addProblem(&resp.Diagnostics, "destroying", functionKind, name, err)
	}
}
