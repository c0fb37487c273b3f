// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/config"
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
