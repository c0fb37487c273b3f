// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

const (
	vmKind             = "Boxer VM Node"
	defaultHostAddress = "127.0.0.1"

	// undoTimeout bounds the removal of what a failed apply made. Stopping a
	// host may take 10 s to drain.
	undoTimeout = 30 * time.Second
)

// undoTime is more on AWS: an instance takes a minute to end.
func undoTime(p platform) time.Duration {
	if onAWS(p) {
		return awsUndo
	}
	return undoTimeout
}

type vmNodeResource struct{ platform platform }

var (
	_ resource.ResourceWithConfigure    = (*vmNodeResource)(nil)
	_ resource.ResourceWithModifyPlan   = (*vmNodeResource)(nil)
	_ resource.ResourceWithImportState  = (*vmNodeResource)(nil)
	_ resource.ResourceWithUpgradeState = (*vmNodeResource)(nil)
)

func newVMNodeResource() resource.Resource { return &vmNodeResource{} }

func (r *vmNodeResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "boxer_vm_node"
}

func (r *vmNodeResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

type vmNodeModel struct {
	nodeModel
	vmAWSModel
}

func (m *vmNodeModel) spec(ctx context.Context, diags *diag.Diagnostics) nodeSpec {
	spec := m.nodeModel.spec(ctx, config.KindVM, diags)
	spec.AWS = m.vmAWSModel.spec(ctx, diags)
	return spec
}

func (r *vmNodeResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		Version: schemaVersion,
		MarkdownDescription: "A node on a virtual machine: it can be reached by all others and runs until it is destroyed. " +
			"On the local platform the machine is a set of Linux namespaces with its own network. " +
			"A change is made in place: the guest is started again where it was, its id, its overlay address and what it has written stay. " +
			"Only another `name` or `network_id` replaces the node; a successor takes over the name and the overlay address.",
		Attributes: nodeAttributes(vmAWSAttributes()),
	}
}

func (r *vmNodeResource) UpgradeState(context.Context) map[int64]resource.StateUpgrader {
	return upgradeFrom0(nil)
}

// ModifyPlan plans the tags, and again an update that failed.
func (r *vmNodeResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.Plan.Raw.IsNull() {
		return // destroyed
	}
	var plan vmNodeModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if resp.Diagnostics.HasError() {
		return
	}
	plan.planTags(ctx, r.platform, &resp.Diagnostics)
	var state *vmNodeModel
	if !req.State.Raw.IsNull() {
		state = &vmNodeModel{}
		resp.Diagnostics.Append(req.State.Get(ctx, state)...)
		if isUnfinished(ctx, req.Private, &resp.Diagnostics) {
			plan.NodeIDs = unknownIDs
		}
	}
	if onAWS(r.platform) {
		var image types.String
		resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("image_id"), &image)...)
		plan.planInstance(ctx, state, image, notedSeen(ctx, req.Private), resp)
	} else if r.platform != nil {
		plan.onlyAWS(&resp.Diagnostics)
		plan.onlyLocalPackage(&resp.Diagnostics)
		plan.exports(false, nil)
	}
	resp.Diagnostics.Append(resp.Plan.Set(ctx, &plan)...)
}

func (r *vmNodeResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var model vmNodeModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := within(on(ctx, r.platform), model.Timeouts, opCreate)
	defer cancel()
	model.checkSource(&resp.Diagnostics)
	spec := model.spec(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	want, err := r.platform.StartVM(ctx, spec)
	if err != nil {
		addProblem(&resp.Diagnostics, "creating", vmKind, spec.Name, err)
		return
	}

	// The host exists from here on: state says so before the wait begins.
	slots := []string{spec.Name}
	model.place(ctx, slots, nil, &resp.Diagnostics)
	r.located(ctx, &model, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	resp.Diagnostics.Append(remember(ctx, r.platform, resp.Private, launchID(want))...)

	members, err := r.platform.Await(ctx, spec.Network, []launch.Want{want})
	if err != nil {
		addProblem(&resp.Diagnostics, "creating", vmKind, spec.Name, err)
		if r.undo(ctx, spec, resp) {
			resp.State.RemoveResource(ctx)
		}
		return
	}
	model.place(ctx, slots, members, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
}

// undo removes a host whose guest does not run. If that fails too, the state
// keeps the node, so that destroy can try again.
func (r *vmNodeResource) undo(ctx context.Context, spec nodeSpec, resp *resource.CreateResponse) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime(r.platform))
	defer cancel()
	if err := r.platform.DeleteVM(ctx, spec.Network, spec.Name); err != nil {
		addProblem(&resp.Diagnostics, "cleaning up", vmKind, spec.Name, leftBehind(err))
		return false
	}
	return true
}

func (r *vmNodeResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	network, name, ok := importNode(ctx, vmKind, req, resp)
	if !ok {
		return
	}
	status, err := r.platform.VM(ctx, network, name)
	if err != nil {
		addImportProblem(&resp.Diagnostics, vmKind, network, name, err)
		return
	}
	resp.Diagnostics.Append(remember(ctx, r.platform, resp.Private, status.LaunchID)...)
}

func (r *vmNodeResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var model vmNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	ours, diags := recall(ctx, r.platform, req.Private, vmKind, name)
	resp.Diagnostics.Append(diags...)
	if diags.HasError() {
		return
	}
	found, err := r.platform.VM(ctx, model.NetworkID.ValueString(), name)
	switch {
	case errors.Is(err, errGone), err == nil && ours.Launch != "" && found.LaunchID != ours.Launch:
		tflog.Info(ctx, "the node's host is gone", map[string]any{"name": name})
		resp.State.RemoveResource(ctx)
	case err != nil:
		addLookProblem(&resp.Diagnostics, vmKind, name, err)
	default:
		if found.Notice != "" {
			resp.Diagnostics.AddWarning(fmt.Sprintf("reading %s (%s)", vmKind, name), sentence(found.Notice))
		}
		model.nodeModel.read(ctx, found.Spec, settingsOf(r.platform).defaultTags, &resp.Diagnostics)
		model.vmAWSModel.read(ctx, found.Spec.AWS, found.AWS, &resp.Diagnostics)
		if found.AWS != nil {
			resp.Diagnostics.Append(noteSeen(ctx, resp.Private, found.AWS.Seen)...)
		}
		if found.AWS != nil && model.UserDataSize.IsNull() { // imported
			model.planUserData(ctx, &resp.Diagnostics)
		}
		model.settle(ctx, r.platform, []string{name}, &resp.Diagnostics)
		resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	}
}

// located notes where a new node is, as far as its platform tells.
func (r *vmNodeResource) located(ctx context.Context, model *vmNodeModel, diags *diag.Diagnostics) {
	if !onAWS(r.platform) {
		model.exports(false, nil)
		return
	}
	found, err := r.platform.VM(ctx, model.NetworkID.ValueString(), model.Name.ValueString())
	if err != nil || found.AWS == nil { // the next refresh tells
		found.AWS = &awsVM{ImageID: model.ImageID.ValueString()}
		tflog.Warn(ctx, "the new instance cannot be described", map[string]any{"name": model.Name.ValueString(), "error": fmt.Sprint(err)})
	}
	model.InstanceID, model.PrivateIP, model.PublicIP = orNull(found.AWS.InstanceID), orNull(found.AWS.PrivateIP), orNull(found.AWS.PublicIP)
	model.ImageID = orNull(found.AWS.ImageID)
	if model.UserDataSize.IsUnknown() {
		model.planUserData(ctx, diags)
	}
}

// Update changes the node in place. The launch stays, and with it id and address.
func (r *vmNodeResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var state, plan vmNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := plan.Name.ValueString()
	ours, diags := recall(ctx, r.platform, req.Private, vmKind, name)
	resp.Diagnostics.Append(diags...)
	ctx, cancel := within(on(ctx, r.platform), plan.Timeouts, opUpdate)
	defer cancel()
	again := isUnfinished(ctx, req.Private, &resp.Diagnostics)
	keep := plan.CodeSHA256.Equal(state.CodeSHA256) && !again
	if !keep {
		plan.checkSource(&resp.Diagnostics)
	}
	spec := plan.spec(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	spec.KeepSource = keep
	restarts := again || plan.guestChanges(ctx, &state.nodeModel, config.KindVM)
	resp.Diagnostics.Append(setUnfinished(ctx, resp.Private, restarts)...)
	members, err := r.update(ctx, spec, again, restarts, ours.Launch)
	if err != nil {
		addProblem(&resp.Diagnostics, "updating", vmKind, name, err)
		return
	}
	resp.Diagnostics.Append(setUnfinished(ctx, resp.Private, false)...)
	plan.NodeIDs, plan.OverlayAddresses, plan.Slots = state.NodeIDs, state.OverlayAddresses, state.Slots
	if members != nil {
		plan.place(ctx, []string{name}, members, &resp.Diagnostics)
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &plan)...)
}

func (r *vmNodeResource) update(ctx context.Context, spec nodeSpec, again, restarts bool, launched string) (members []cluster.Member, err error) {
	if err := r.platform.UpdateVM(ctx, spec, again); err != nil || !restarts {
		return nil, err
	}
	return r.platform.Await(ctx, spec.Network, []launch.Want{{Slot: spec.Name, ID: launched, JoinOnly: spec.JoinOnly}})
}

func (r *vmNodeResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var model vmNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	_, diags := recall(ctx, r.platform, req.Private, vmKind, name)
	resp.Diagnostics.Append(diags...)
	if diags.HasError() {
		return
	}
	ctx, cancel := within(on(ctx, r.platform), model.Timeouts, opDelete)
	defer cancel()
	if err := r.platform.DeleteVM(ctx, model.NetworkID.ValueString(), name); err != nil {
		addProblem(&resp.Diagnostics, "destroying", vmKind, name, err)
	}
}
