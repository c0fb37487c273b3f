// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflog"

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

type vmNodeResource struct{ platform platform }

var _ resource.ResourceWithConfigure = (*vmNodeResource)(nil)

func newVMNodeResource() resource.Resource { return &vmNodeResource{} }

func (r *vmNodeResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "boxer_vm_node"
}

func (r *vmNodeResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

type vmNodeModel struct {
	nodeModel
	Publish types.List `tfsdk:"publish"`
}

type publishModel struct {
	Port        types.Int64  `tfsdk:"port"`
	HostPort    types.Int64  `tfsdk:"host_port"`
	HostAddress types.String `tfsdk:"host_address"`
}

func (r *vmNodeResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	portRange := []validator.Int64{int64validator.Between(1, 65535)}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A node on a virtual machine: it can be reached by all others and runs until it is destroyed. " +
			"On the local platform the machine is a set of Linux namespaces with its own network. " +
			"Any change but a move of `source_dir` replaces the node; its successor takes over the name and the overlay address.",
		Attributes: nodeAttributes(map[string]schema.Attribute{
			"publish": schema.ListNestedAttribute{
				Optional:            true,
				MarkdownDescription: "Ports of the guest that can be reached from outside the overlay. Apply ends when the guest listens on them.",
				Validators:          []validator.List{distinctHostPorts{}},
				PlanModifiers:       []planmodifier.List{listplanmodifier.RequiresReplace()},
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"port": schema.Int64Attribute{
						Required:            true,
						MarkdownDescription: "TCP port that the guest listens on, 1 to 65535.",
						Validators:          portRange,
					},
					"host_port": schema.Int64Attribute{
						Required:            true,
						MarkdownDescription: "TCP port of this machine, 1 to 65535, that leads there.",
						Validators:          portRange,
					},
					"host_address": schema.StringAttribute{
						Optional: true, Computed: true,
						Default:             stringdefault.StaticString(defaultHostAddress),
						MarkdownDescription: "IP address of this machine to listen on. Default `" + defaultHostAddress + "`.",
						Validators:          []validator.String{validAddress()},
					},
				}},
			},
		}),
	}
}

func (m *vmNodeModel) spec(ctx context.Context, diags *diag.Diagnostics) nodeSpec {
	spec := m.nodeModel.spec(ctx, config.KindVM, diags)
	var published []publishModel
	if !m.Publish.IsNull() {
		diags.Append(m.Publish.ElementsAs(ctx, &published, false)...)
	}
	for _, p := range published {
		spec.Publish = append(spec.Publish, config.Publish{
			Port: int(p.Port.ValueInt64()), HostPort: int(p.HostPort.ValueInt64()), HostAddress: p.HostAddress.ValueString(),
		})
	}
	return spec
}

func (r *vmNodeResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var model vmNodeModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
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
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	resp.Diagnostics.Append(remember(ctx, r.platform, resp.Private, launchID(want))...)

	members, err := r.platform.Await(ctx, spec.Network, []launch.Want{want})
	if err != nil {
		addProblem(&resp.Diagnostics, "creating", vmKind, spec.Name, err)
		if r.undo(ctx, spec, &resp.Diagnostics) {
			resp.State.RemoveResource(ctx)
		}
		return
	}
	model.place(ctx, slots, members, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
}

// undo removes a host whose guest does not run. If that fails too, the state
// keeps the node, so that destroy can try again.
func (r *vmNodeResource) undo(ctx context.Context, spec nodeSpec, diags *diag.Diagnostics) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := r.platform.DeleteVM(ctx, spec.Network, spec.Name); err != nil {
		addProblem(diags, "cleaning up", vmKind, spec.Name, err)
		return false
	}
	return true
}

func (r *vmNodeResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var model vmNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	known, diags := recall(ctx, r.platform, req.Private, vmKind, name)
	resp.Diagnostics.Append(diags...)
	if diags.HasError() {
		return
	}
	found, err := r.platform.VM(ctx, model.NetworkID.ValueString(), name)
	switch {
	case errors.Is(err, errGone), err == nil && known.Launch != "" && found != known.Launch:
		tflog.Info(ctx, "the node's host is gone", map[string]any{"name": name})
		resp.State.RemoveResource(ctx)
	case err != nil:
		addProblem(&resp.Diagnostics, "reading", vmKind, name, err)
	}
}

// Update only follows a move of the source directory: all else replaces the node.
func (r *vmNodeResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var model vmNodeModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
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
	if err := r.platform.DeleteVM(ctx, model.NetworkID.ValueString(), name); err != nil {
		addProblem(&resp.Diagnostics, "destroying", vmKind, name, err)
	}
}
