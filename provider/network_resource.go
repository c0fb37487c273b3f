// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/config"
)

const networkKind = "Boxer Network"

type networkResource struct{ platform platform }

var _ resource.ResourceWithConfigure = (*networkResource)(nil)

func newNetworkResource() resource.Resource { return &networkResource{} }

func (r *networkResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "boxer_network"
}

func (r *networkResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

type networkModel struct {
	ID            types.String `tfsdk:"id"`
	Name          types.String `tfsdk:"name"`
	CIDR          types.String `tfsdk:"cidr"`
	Port          types.Int64  `tfsdk:"port"`
	SeedEndpoints types.List   `tfsdk:"seed_endpoints"`
	SecretRef     types.String `tfsdk:"secret_ref"`
}

func (r *networkResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "An overlay network: an address range, a secret and the nodes that know it. The network runs its own " +
			"seed, which admits nodes and hands out ids and addresses. Any change replaces the network.",
		Attributes: map[string]schema.Attribute{
			"id": schema.StringAttribute{
				Computed:            true,
				MarkdownDescription: "The network's name; what nodes take as `network_id`.",
				PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
			},
			"name": schema.StringAttribute{
				Required: true,
				MarkdownDescription: "Name of the network, unique on its platform: 1 to 63 lower-case letters, digits and dashes. " +
					"Networks made by Terraform and by `boxer network create` share one set of names.",
				Validators:    []validator.String{validName()},
				PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
			},
			"cidr": schema.StringAttribute{
				Optional: true, Computed: true,
				Default: stringdefault.StaticString(config.DefaultCIDR),
				MarkdownDescription: "IPv4 range that nodes get their overlay addresses from, between /8 and /28. " +
					"Default `" + config.DefaultCIDR + "`.",
				Validators:    []validator.String{validCIDR()},
				PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
			},
			"port": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default:             int64default.StaticInt64(config.DefaultPort),
				MarkdownDescription: "TCP port that supervisors listen on, 1 to 65535. Default `7717`. Guests cannot use it.",
				Validators:          []validator.Int64{int64validator.Between(1, 65535)},
				PlanModifiers:       []planmodifier.Int64{int64planmodifier.RequiresReplace()},
			},
			"seed_endpoints": schema.ListAttribute{
				ElementType: types.StringType, Computed: true,
				MarkdownDescription: "Where clients on this machine reach the network's seeds, as `host:port`.",
				PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
			},
			"secret_ref": schema.StringAttribute{
				Computed:            true,
				MarkdownDescription: "Where the network's secret is kept: `file:` and the path of a file only its owner can read.",
				PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
			},
		},
	}
}

func (r *networkResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var model networkModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	status, err := r.platform.CreateNetwork(ctx, networkSpec{
		Name: name, CIDR: model.CIDR.ValueString(), Port: int(model.Port.ValueInt64()),
	})
	if err != nil {
		addProblem(&resp.Diagnostics, "creating", networkKind, name, err)
		return
	}
	model.ID = model.Name
	resp.Diagnostics.Append(model.fill(ctx, status)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	resp.Diagnostics.Append(remember(ctx, r.platform, resp.Private, "")...)
}

// fill takes over what the platform knows better than the configuration.
func (m *networkModel) fill(ctx context.Context, status networkStatus) diag.Diagnostics {
	var diags diag.Diagnostics
	m.CIDR = types.StringValue(status.CIDR)
	m.Port = types.Int64Value(int64(status.Port))
	m.SecretRef = types.StringValue(status.SecretRef)
	m.SeedEndpoints, diags = types.ListValueFrom(ctx, types.StringType, status.SeedEndpoints)
	return diags
}

func (r *networkResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var model networkModel
	resp.Diagnostics.Append(req.State.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	_, diags := recall(ctx, r.platform, req.Private, networkKind, name)
	resp.Diagnostics.Append(diags...)
	if diags.HasError() {
		return
	}
	status, err := r.platform.Network(ctx, name)
	if errors.Is(err, errGone) {
		tflog.Info(ctx, "the network is gone", map[string]any{"name": name})
		resp.State.RemoveResource(ctx)
		return
	}
	if err != nil {
		addProblem(&resp.Diagnostics, "reading", networkKind, name, err)
		return
	}
	resp.Diagnostics.Append(model.fill(ctx, status)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
}

// Update is never planned: every attribute a user can change replaces the network.
func (r *networkResource) Update(_ context.Context, _ resource.UpdateRequest, resp *resource.UpdateResponse) {
	resp.Diagnostics.AddError("updating "+networkKind, "A network cannot be changed in place. This is a bug of the provider.")
}

func (r *networkResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var model networkModel
	resp.Diagnostics.Append(req.State.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	_, diags := recall(ctx, r.platform, req.Private, networkKind, name)
	resp.Diagnostics.Append(diags...)
	if diags.HasError() {
		return
	}
	if err := r.platform.DeleteNetwork(ctx, name); err != nil {
		addProblem(&resp.Diagnostics, "destroying", networkKind, name, err)
	}
}
