// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/base64"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/mapvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/config"
)

const bootstrapKind = "Boxer Node Bootstrap"

// bootstrapper is a platform whose machines others may make.
type bootstrapper interface {
	// Bootstrap says what makes a machine, or a function, of somebody else's the node.
	Bootstrap(ctx context.Context, node config.Node, arch string, own []byte) (bootstrap, error)
}

// bootstrap is what a node needs that is no resource of ours.
type bootstrap struct {
	LayerARN  string
	UserData  []byte // of a VM
	Event     string // of a function
	Variables map[string]string

	SecurityGroup, Profile, Role string
}

type bootstrapDataSource struct{ platform platform }

var _ datasource.DataSourceWithConfigure = (*bootstrapDataSource)(nil)

func newBootstrapDataSource() datasource.DataSource { return &bootstrapDataSource{} }

func (d *bootstrapDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "boxer_node_bootstrap"
}

func (d *bootstrapDataSource) Configure(_ context.Context, req datasource.ConfigureRequest, resp *datasource.ConfigureResponse) {
	d.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

type bootstrapModel struct {
	NetworkID    types.String `tfsdk:"network_id"`
	Name         types.String `tfsdk:"name"`
	Kind         types.String `tfsdk:"kind"`
	Service      types.String `tfsdk:"service"`
	Command      types.List   `tfsdk:"command"`
	Environment  types.Map    `tfsdk:"environment"`
	WorkingDir   types.String `tfsdk:"working_dir"`
	User         types.String `tfsdk:"user"`
	Files        types.Map    `tfsdk:"files"`
	WaitFor      types.Map    `tfsdk:"wait_for"`
	Restart      types.String `tfsdk:"restart"`
	Transports   types.Set    `tfsdk:"transports"`
	Architecture types.String `tfsdk:"architecture"`
	UserData     types.String `tfsdk:"user_data"`

	LayerARN        types.String `tfsdk:"layer_arn"`
	UserDataBase64  types.String `tfsdk:"user_data_base64"`
	UserDataSize    types.Int64  `tfsdk:"user_data_size"`
	Event           types.String `tfsdk:"event"`
	Variables       types.Map    `tfsdk:"function_environment"`
	SecurityGroupID types.String `tfsdk:"security_group_id"`
	InstanceProfile types.String `tfsdk:"instance_profile"`
	RoleName        types.String `tfsdk:"role_name"`
}

func (d *bootstrapDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	text := func(description string, v ...validator.String) schema.Attribute {
		return schema.StringAttribute{Optional: true, MarkdownDescription: description, Validators: v}
	}
	exports := func(description string) schema.Attribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "What makes a node of a machine that another provider makes: user data for a plain `aws_instance`, a layer and the event " +
			"for a plain `aws_lambda_function`. Boxer then neither makes, watches nor ends it. Only on `aws`. The secret is in none of it: " +
			"the instance profile or role must allow `ssm:GetParameter` on it, and a VM's `lambda:GetLayerVersion` on the layer; those of the network do.",
		Attributes: map[string]schema.Attribute{
			"network_id": schema.StringAttribute{
				Required: true, MarkdownDescription: "The `id` of the network to join.", Validators: []validator.String{validName()},
			},
			"name": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "Name of the node, unique in its network. One machine, or one running event, holds it at a time.",
				Validators:          []validator.String{validName()},
			},
			"kind": schema.StringAttribute{
				Required: true, MarkdownDescription: "`vm` or `function`.",
				Validators: []validator.String{stringvalidator.OneOf(config.KindVM, config.KindFunction)},
			},
			"service": text("Name that other nodes look up; several nodes may share it. Default: `name`.", validName()),
			"command": schema.ListAttribute{
				ElementType: types.StringType, Required: true,
				MarkdownDescription: "The guest: a program and its arguments. It must be in the image, in the function's package, or installed by `user_data`.",
				Validators:          []validator.List{validCommand{}},
			},
			"environment": schema.MapAttribute{
				ElementType: types.StringType, Optional: true,
				MarkdownDescription: "Variables of the guest's environment. Anybody who may describe the machine can read them.",
				Validators:          []validator.Map{validKeys("Invalid variable", config.CheckVariable)},
			},
			"working_dir": text("Directory that the guest starts in.", stringCheck{"Invalid working directory", "an absolute path", config.CheckPath}),
			"user":        text("User of the guest of a VM. Default: `boxer`, which is made.", stringCheck{"Invalid user", "the name or number of an account", config.CheckUser}),
			"files": schema.MapAttribute{
				ElementType: types.StringType, Optional: true, MarkdownDescription: "Files of a VM, as absolute path and content.",
				Validators: []validator.Map{validKeys("Invalid file", config.CheckFile), validFiles{}},
			},
			"wait_for": schema.MapAttribute{
				ElementType: types.Int64Type, Optional: true,
				MarkdownDescription: "Start barrier: the guest is started once each of these services has at least so many running nodes.",
				Validators:          []validator.Map{mapvalidator.KeysAre(validWaitKey()), mapvalidator.ValueInt64sAre(int64validator.AtLeast(1))},
			},
			"restart": text("Whether a guest that ended is started again: `no` (the default), `on-failure` or `always`.",
				stringCheck{"Invalid restart policy", "no, on-failure or always", config.CheckRestart}),
			"transports": schema.SetAttribute{
				ElementType: types.StringType, Optional: true, MarkdownDescription: "Transports that the guest's connections may use. Default: all.",
				Validators: []validator.Set{setvalidator.ValueStringsAre(validTransport())},
			},
			"architecture": text("Of the machine: `amd64` (the default) or `arm64`.", stringvalidator.OneOf("amd64", "arm64")),
			"user_data":    text("Your own user data of a VM, which cloud-init handles as it would alone, before Boxer's part."),

			"layer_arn":            exports("The layer version with the supervisor: of a function's `layers`."),
			"user_data_base64":     exports("Of a VM: `user_data_base64` of the instance; null for a function."),
			"user_data_size":       schema.Int64Attribute{Computed: true, MarkdownDescription: "Of a VM: its bytes before base64, of 16384 that EC2 takes."},
			"event":                exports("Of a function: the event to invoke it with, asynchronously, without retries. The invocation lasts as long as the node; null for a VM."),
			"function_environment": schema.MapAttribute{ElementType: types.StringType, Computed: true, MarkdownDescription: "Of a function: variables to add to its own. Empty unless other endpoints of AWS are in use."},
			"security_group_id":    exports("The network's security group: in it VMs reach each other natively."),
			"instance_profile":     exports("Name of the network's instance profile for VMs."),
			"role_name":            exports("Name of the network's role for this kind of node."),
		},
	}
}

// node is the document, but for what the platform knows.
func (m *bootstrapModel) node(ctx context.Context, diags *diag.Diagnostics) config.Node {
	n := config.Node{
		Version: config.Version, Network: m.NetworkID.ValueString(), Kind: m.Kind.ValueString(), Name: m.Name.ValueString(), Slot: m.Name.ValueString(),
		Service: m.Service.ValueString(), Env: given(m.Environment), WorkingDir: m.WorkingDir.ValueString(), User: m.User.ValueString(),
		Files: given(m.Files), Restart: m.Restart.ValueString(),
	}
	diags.Append(m.Command.ElementsAs(ctx, &n.Argv, false)...)
	if len(m.WaitFor.Elements()) > 0 {
		diags.Append(m.WaitFor.ElementsAs(ctx, &n.WaitFor, false)...)
	}
	if len(m.Transports.Elements()) > 0 {
		diags.Append(m.Transports.ElementsAs(ctx, &n.Transports, false)...)
	}
	return n
}

// check refuses what one kind of node has not.
func (m *bootstrapModel) check(diags *diag.Diagnostics) {
	if m.Kind.ValueString() != config.KindFunction {
		return
	}
	for attribute, set := range map[string]bool{"user": stated(m.User), "files": stated(m.Files), "user_data": stated(m.UserData)} {
		if set {
			diags.AddAttributeError(path.Root(attribute), "Only for VMs",
				"A function has no "+attribute+" of its own: leave it out, and put what the guest needs into the function's package.")
		}
	}
}

func (d *bootstrapDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model bootstrapModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	model.check(&resp.Diagnostics)
	node := model.node(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	b, ok := settingsOf(d.platform).platform.(bootstrapper)
	if !ok {
		resp.Diagnostics.AddError("Nothing to attach to", "The local platform's machines are made by Boxer alone: use boxer_vm_node or boxer_function_node here, "+
			"or set platform = \"aws\" in the provider block.")
		return
	}
	arch := model.Architecture.ValueString()
	if arch == "" {
		arch = "amd64"
	}
	found, err := b.Bootstrap(ctx, node, arch, []byte(model.UserData.ValueString()))
	switch {
	case errors.Is(err, errGone):
		resp.Diagnostics.AddAttributeError(path.Root("network_id"), noNetwork(node.Network),
			"There is no network of this name in the account and region. Check them; if this configuration makes the network, refer to its id, so that it is made first.")
		return
	case err != nil:
		addProblem(&resp.Diagnostics, "reading", bootstrapKind, node.Name, err)
		return
	}
	model.fill(ctx, found, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
}

func (m *bootstrapModel) fill(ctx context.Context, b bootstrap, diags *diag.Diagnostics) {
	text := func(s string) types.String {
		if s == "" {
			return types.StringNull()
		}
		return types.StringValue(s)
	}
	m.LayerARN, m.Event, m.SecurityGroupID = text(b.LayerARN), text(b.Event), text(b.SecurityGroup)
	m.InstanceProfile, m.RoleName = text(b.Profile), text(b.Role)
	m.UserDataBase64, m.UserDataSize = types.StringNull(), types.Int64Null()
	if len(b.UserData) > 0 {
		m.UserDataBase64 = types.StringValue(base64.StdEncoding.EncodeToString(b.UserData))
		m.UserDataSize = types.Int64Value(int64(len(b.UserData)))
	}
	variables, d := types.MapValueFrom(ctx, types.StringType, b.Variables)
	diags.Append(d...)
	m.Variables = variables
}
