// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type networkDataSource struct{ platform platform }

var _ datasource.DataSourceWithConfigure = (*networkDataSource)(nil)

func newNetworkDataSource() datasource.DataSource { return &networkDataSource{} }

func (d *networkDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "boxer_network"
}

func (d *networkDataSource) Configure(_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse) {
	d.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

// networkDataModel is a network that another configuration, or `boxer`, made.
type networkDataModel struct {
	ID            types.String `tfsdk:"id"`
	Name          types.String `tfsdk:"name"`
	CIDR          types.String `tfsdk:"cidr"`
	Port          types.Int64  `tfsdk:"port"`
	SeedEndpoints []string     `tfsdk:"seed_endpoints"`
	SecretRef     types.String `tfsdk:"secret_ref"`
	LayerARNs     []string     `tfsdk:"layer_arns"`
}

func (d *networkDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "A network that was made elsewhere: by another configuration or by `boxer network create`. " +
			"Its `id` is what nodes take as `network_id`. Reading it needs neither the network's secret nor that it runs.",
		Attributes: map[string]schema.Attribute{
			"id": schema.StringAttribute{Computed: true, MarkdownDescription: "The network's name."},
			"name": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "Name of the network.",
				Validators:          []validator.String{validName()},
			},
			"cidr": schema.StringAttribute{Computed: true, MarkdownDescription: "IPv4 range of the overlay addresses."},
			"port": schema.Int64Attribute{Computed: true, MarkdownDescription: "TCP port that supervisors listen on."},
			"seed_endpoints": schema.ListAttribute{
				ElementType: types.StringType, Computed: true,
				MarkdownDescription: "Where clients on this machine reach the network's seeds, as `host:port`.",
			},
			"secret_ref": schema.StringAttribute{
				Computed:            true,
				MarkdownDescription: "Where the network's secret is kept; not the secret itself.",
			},
			"layer_arns": schema.ListAttribute{
				ElementType: types.StringType, Computed: true,
				MarkdownDescription: "The network's Lambda layers. The local platform has none.",
			},
		},
	}
}

func (d *networkDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model networkDataModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	status, err := d.platform.Network(ctx, name)
	switch {
	case errors.Is(err, errGone):
		resp.Diagnostics.AddAttributeError(path.Root("name"), noNetwork(name), networkRemedy)
		return
	case err != nil:
		addProblem(&resp.Diagnostics, "reading", networkKind, name, err)
		return
	}
	model.ID, model.CIDR, model.Port = model.Name, types.StringValue(status.CIDR), types.Int64Value(int64(status.Port))
	model.SecretRef, model.SeedEndpoints, model.LayerARNs = types.StringValue(status.SecretRef), status.SeedEndpoints, []string{}
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
}
