// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"path/filepath"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/mapvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/setplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// nodeModel holds the attributes that VM nodes and function nodes share.
type nodeModel struct {
	ID               types.String `tfsdk:"id"`
	NetworkID        types.String `tfsdk:"network_id"`
	Name             types.String `tfsdk:"name"`
	Service          types.String `tfsdk:"service"`
	Command          types.List   `tfsdk:"command"`
	SourceDir        types.String `tfsdk:"source_dir"`
	WaitFor          types.Map    `tfsdk:"wait_for"`
	Transports       types.Set    `tfsdk:"transports"`
	CodeSHA256       types.String `tfsdk:"code_sha256"`
	NodeIDs          types.List   `tfsdk:"node_ids"`
	OverlayAddresses types.List   `tfsdk:"overlay_addresses"`
	Slots            types.List   `tfsdk:"slots"`
}

// nodeAttributes returns the shared attributes and those of one kind.
func nodeAttributes(own map[string]schema.Attribute) map[string]schema.Attribute {
	replace := []planmodifier.String{stringplanmodifier.RequiresReplace()}
	attributes := map[string]schema.Attribute{
		"id": schema.StringAttribute{
			Computed:            true,
			MarkdownDescription: "Network and name, as `network,name`.",
			PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		},
		"network_id": schema.StringAttribute{
			Required:            true,
			MarkdownDescription: "The `id` of the `boxer_network` to join.",
			Validators:          []validator.String{validName()},
			PlanModifiers:       replace,
		},
		"name": schema.StringAttribute{
			Required: true,
			MarkdownDescription: "Name of the node, unique in its network: 1 to 63 lower-case letters, digits and dashes. " +
				"Programs on other nodes reach it as a host of this name, unless `service` says otherwise.",
			Validators:    []validator.String{validName()},
			PlanModifiers: replace,
		},
		"service": schema.StringAttribute{
			Optional: true, Computed: true,
			MarkdownDescription: "Host name that resolves to this node and to all others of the same service. Default: the `name`.",
			Validators:          []validator.String{validName()},
			PlanModifiers:       []planmodifier.String{serviceOrName{}, stringplanmodifier.RequiresReplace()},
		},
		"command": schema.ListAttribute{
			ElementType: types.StringType, Required: true,
			MarkdownDescription: "The guest: a program, found in `PATH` or by its path, and its arguments. No shell is involved. " +
				"It runs unmodified and should stay in the foreground.",
			Validators:    []validator.List{validCommand{}},
			PlanModifiers: []planmodifier.List{listplanmodifier.RequiresReplace()},
		},
		"source_dir": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "Directory whose contents the guest finds, read-only, in `/var/task`. " +
				"A change of any file in it replaces the node; a move of the directory does not.",
		},
		"wait_for": schema.MapAttribute{
			ElementType: types.Int64Type, Optional: true,
			MarkdownDescription: "Start barrier: the guest is started once each of these services has at least so many running nodes. " +
				"The key `nodes` counts all nodes of the network. Counts are 1 or more.",
			Validators: []validator.Map{
				mapvalidator.KeysAre(validWaitKey()),
				mapvalidator.ValueInt64sAre(int64validator.AtLeast(1)),
			},
			PlanModifiers: []planmodifier.Map{mapplanmodifier.RequiresReplace()},
		},
		"transports": schema.SetAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "Transports that the connections of this guest may use, those to its own name included, for policy and for tests. " +
				"`native`: the kernel connects to a node of the same site, or to this one. " +
				"`direct`: to the peer's overlay port, with nobody in between; not to nodes behind a NAT. " +
				"`relay`: spliced through a seed, where both sides meet. " +
				"With `direct` and `relay` a peer behind a NAT may also be asked to dial back. " +
				"A peer that none of them reaches gives \"no route to host\". Connections that others make to this node are not restricted. Default: all.",
			Validators:    []validator.Set{setvalidator.ValueStringsAre(validTransport())},
			PlanModifiers: []planmodifier.Set{setplanmodifier.RequiresReplace()},
		},
		"code_sha256": schema.StringAttribute{
			Computed:            true,
			MarkdownDescription: "SHA-256 of what `source_dir` holds, in base64; null without a `source_dir`.",
			PlanModifiers:       []planmodifier.String{sourceContents{}},
		},
		"node_ids": schema.ListAttribute{
			ElementType: types.Int64Type, Computed: true,
			MarkdownDescription: "Ids of the nodes, in the order of `slots`. An id is never used again; `node-<id>` always resolves.",
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
		},
		"overlay_addresses": schema.ListAttribute{
			ElementType: types.StringType, Computed: true,
			MarkdownDescription: "Overlay addresses, in the order of `slots`. An address belongs to the slot: a successor takes it over.",
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
		},
		"slots": schema.ListAttribute{
			ElementType: types.StringType, Computed: true,
			MarkdownDescription: "The places this resource fills, each with an address of its own.",
			PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
		},
	}
	for name, attribute := range own {
		attributes[name] = attribute
	}
	return attributes
}

// spec turns the shared attributes into what a platform understands.
func (m *nodeModel) spec(ctx context.Context, kind string, diags *diag.Diagnostics) nodeSpec {
	spec := nodeSpec{
		Network: m.NetworkID.ValueString(), Name: m.Name.ValueString(), Service: m.Service.ValueString(), Kind: kind,
	}
	diags.Append(m.Command.ElementsAs(ctx, &spec.Command, false)...)
	if !m.WaitFor.IsNull() {
		diags.Append(m.WaitFor.ElementsAs(ctx, &spec.WaitFor, false)...)
	}
	if !m.Transports.IsNull() {
		diags.Append(m.Transports.ElementsAs(ctx, &spec.Transports, false)...)
	}
	if dir := m.SourceDir.ValueString(); dir != "" {
		absolute, err := filepath.Abs(dir)
		if err != nil {
			diags.AddAttributeError(path.Root("source_dir"), "Invalid source directory", sentence(err.Error()))
		}
		spec.SourceDir = absolute
	}
	return spec
}

// checkSource refuses to start from other files than those that were planned.
func (m *nodeModel) checkSource(diags *diag.Diagnostics) {
	if m.SourceDir.IsNull() {
		m.CodeSHA256 = types.StringNull()
		return
	}
	dir := m.SourceDir.ValueString()
	found, err := sourceHash(dir)
	switch {
	case err != nil:
		diags.AddAttributeError(path.Root("source_dir"), "Invalid source directory", sentence(err.Error()))
	case m.CodeSHA256.IsUnknown():
		m.CodeSHA256 = types.StringValue(found)
	case found != m.CodeSHA256.ValueString():
		diags.AddAttributeError(path.Root("source_dir"), "Source directory changed since the plan",
			"The files in "+dir+" are not those that were planned: run terraform plan again.")
	}
}

// place records where the slots are now. Without members only what is certain
// before the nodes have joined.
func (m *nodeModel) place(ctx context.Context, slots []string, members []cluster.Member, diags *diag.Diagnostics) {
	m.ID = types.StringValue(m.NetworkID.ValueString() + "," + m.Name.ValueString())
	ids := make([]int64, 0, len(members))
	addresses := make([]string, 0, len(members))
	for _, member := range members {
		ids = append(ids, int64(member.ID))
		addresses = append(addresses, member.OverlayAddress.String())
	}
	var d diag.Diagnostics
	m.Slots, d = types.ListValueFrom(ctx, types.StringType, slots)
	diags.Append(d...)
	m.NodeIDs, d = types.ListValueFrom(ctx, types.Int64Type, ids)
	diags.Append(d...)
	m.OverlayAddresses, d = types.ListValueFrom(ctx, types.StringType, addresses)
	diags.Append(d...)
}
