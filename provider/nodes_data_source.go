// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

const nodesKind = "Boxer Nodes"

type nodesDataSource struct{ platform platform }

var _ datasource.DataSourceWithConfigure = (*nodesDataSource)(nil)

func newNodesDataSource() datasource.DataSource { return &nodesDataSource{} }

func (d *nodesDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "boxer_nodes"
}

func (d *nodesDataSource) Configure(_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse) {
	d.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

type nodesModel struct {
	NetworkID types.String  `tfsdk:"network_id"`
	Service   types.String  `tfsdk:"service"`
	Kind      types.String  `tfsdk:"kind"`
	State     types.String  `tfsdk:"state"`
	Nodes     []memberModel `tfsdk:"nodes"`
}

// memberModel has the fields of `boxer nodes --json`.
type memberModel struct {
	ID              types.Int64  `tfsdk:"id"`
	Name            types.String `tfsdk:"name"`
	Service         types.String `tfsdk:"service"`
	Slot            types.String `tfsdk:"slot"`
	Kind            types.String `tfsdk:"kind"`
	State           types.String `tfsdk:"state"`
	OverlayAddress  types.String `tfsdk:"overlay_address"`
	UnderlayAddress types.String `tfsdk:"underlay_address"`
	Site            types.String `tfsdk:"site"`
	NAT             types.String `tfsdk:"nat"`
	Version         types.String `tfsdk:"version"`
	Since           types.String `tfsdk:"since"`
	Guest           guestModel   `tfsdk:"guest"`
}

type guestModel struct {
	State    types.String `tfsdk:"state"`
	PID      types.Int64  `tfsdk:"pid"`
	ExitCode types.Int64  `tfsdk:"exit_code"`
	Restarts types.Int64  `tfsdk:"restarts"`
}

func (d *nodesDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	kinds := []string{config.KindVM, config.KindFunction, config.KindContainer, config.KindClient, config.KindSeed}
	states := []string{cluster.StateStarting, cluster.StateRunning, cluster.StateExited, cluster.StateFailed, cluster.StateLost}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The live members of a network as its seed knows them at this moment, those that `boxer run` started included: " +
			"what `boxer nodes --json` prints, of each slot the holder. Without a filter also the seeds. The network must be there; of one that does not run the list is empty. " +
			"Read while planning, so nodes that the same apply is about to change are seen as they were, unless `depends_on` names them.",
		Attributes: map[string]schema.Attribute{
			"network_id": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "The `id` of the network.",
				Validators:          []validator.String{validName()},
			},
			"service": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Only the nodes of this service.",
				Validators:          []validator.String{validName()},
			},
			"kind": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Only nodes of this kind: `vm`, `function`, `container`, `client` or `seed`.",
				Validators:          []validator.String{stringvalidator.OneOf(kinds...)},
			},
			"state": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Only nodes in this state: `starting`, `running`, `exited`, `failed` or `lost`.",
				Validators:          []validator.String{stringvalidator.OneOf(states...)},
			},
			"nodes": schema.ListNestedAttribute{
				Computed:            true,
				MarkdownDescription: "The nodes, by ascending id.",
				NestedObject:        schema.NestedAttributeObject{Attributes: memberAttributes()},
			},
		},
	}
}

func memberAttributes() map[string]schema.Attribute {
	text := func(description string) schema.Attribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	number := func(description string) schema.Attribute {
		return schema.Int64Attribute{Computed: true, MarkdownDescription: description}
	}
	return map[string]schema.Attribute{
		"id":               number("Id of the node, never used again in this network. `node-<id>` is its canonical host name."),
		"name":             text("Name of the resource, or of the node that `boxer run` started."),
		"service":          text("Host name that resolves to all nodes of the service."),
		"slot":             text("Host name of this very node; it keeps its overlay address from holder to holder."),
		"kind":             text("`vm`, `function`, `container`, `client` or `seed`."),
		"state":            text("`starting`, `running`, `exited`, `failed` or `lost` (no sign of life for some seconds)."),
		"overlay_address":  text("Address of the node on the overlay."),
		"underlay_address": text("Address and port at which other nodes reach it directly; null if it has none."),
		"site":             text("Nodes of one site reach each other without Boxer in between; empty behind NAT."),
		"nat":              text("`none`, or `behind` if the node can only dial out."),
		"version":          text("Version of Boxer that the node runs."),
		"since":            text("When it joined, as RFC 3339."),
		"guest": schema.SingleNestedAttribute{
			Computed:            true,
			MarkdownDescription: "The program that the node runs.",
			Attributes: map[string]schema.Attribute{
				"state":     text("`waiting` (for what `wait_for` names), `running`, `exited` or `failed`; null of a seed."),
				"pid":       number("Its process id on the node; null if it does not run."),
				"exit_code": number("Its exit status, if it has ended."),
				"restarts":  number("How often it was started again."),
			},
		},
	}
}

func (d *nodesDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model nodesModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	network := model.NetworkID.ValueString()
	members, err := d.platform.Members(ctx, network)
	switch {
	case errors.Is(err, errGone):
		resp.Diagnostics.AddAttributeError(path.Root("network_id"), noNetwork(network), networkRemedy)
		return
	case err != nil:
		addProblem(&resp.Diagnostics, "reading", nodesKind, network, err)
		return
	}
	model.Nodes = []memberModel{}
	for _, m := range members {
		if m.Holds() && model.wants(m) {
			model.Nodes = append(model.Nodes, describe(m))
		}
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
}

func noNetwork(name string) string { return fmt.Sprintf("Network %q does not exist", name) }

// networkRemedy follows the name of a network that a data source does not find.
const networkRemedy = "There is no network of this name in the state directory. Check the name and the provider's state_dir; " +
	"if this configuration makes the network, refer to its id, so that it is made first."

// wants reports whether m passes the filters that are set.
func (m *nodesModel) wants(member cluster.Member) bool {
	for _, filter := range []struct {
		want types.String
		got  string
	}{{m.Service, member.Service}, {m.Kind, member.Kind}, {m.State, member.State}} {
		if !filter.want.IsNull() && filter.want.ValueString() != filter.got {
			return false
		}
	}
	return true
}

func describe(m cluster.Member) memberModel {
	model := memberModel{
		ID: types.Int64Value(int64(m.ID)), Name: types.StringValue(m.Name), Service: types.StringValue(m.Service),
		Slot: types.StringValue(m.Slot), Kind: types.StringValue(m.Kind), State: types.StringValue(m.State),
		OverlayAddress: types.StringValue(m.OverlayAddress.String()), Site: types.StringValue(m.Site), NAT: types.StringValue(m.NAT),
		Version: types.StringValue(m.Version), Since: types.StringValue(m.Since.UTC().Format(time.RFC3339)),
	}
	if m.UnderlayAddress.IsValid() {
		model.UnderlayAddress = types.StringValue(m.UnderlayAddress.String())
	}
	if m.Guest.State != "" {
		model.Guest.State = types.StringValue(m.Guest.State)
	}
	if m.Guest.PID != 0 {
		model.Guest.PID = types.Int64Value(int64(m.Guest.PID))
	}
	if m.Guest.ExitCode != nil {
		model.Guest.ExitCode = types.Int64Value(int64(*m.Guest.ExitCode))
	}
	model.Guest.Restarts = types.Int64Value(int64(m.Guest.Restarts))
	return model
}
