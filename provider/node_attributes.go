// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/mapvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// nodeModel holds the attributes that VM nodes and function nodes share.
type nodeModel struct {
	ID               types.String `tfsdk:"id"`
	NetworkID        types.String `tfsdk:"network_id"`
	Name             types.String `tfsdk:"name"`
	Service          types.String `tfsdk:"service"`
	Command          types.List   `tfsdk:"command"`
	Environment      types.Map    `tfsdk:"environment"`
	WorkingDir       types.String `tfsdk:"working_dir"`
	User             types.String `tfsdk:"user"`
	SourceDir        types.String `tfsdk:"source_dir"`
	Package          types.String `tfsdk:"package"`
	Files            types.Map    `tfsdk:"files"`
	Remap            types.Map    `tfsdk:"remap"`
	WaitFor          types.Map    `tfsdk:"wait_for"`
	WaitForReady     types.Bool   `tfsdk:"wait_for_ready"`
	Restart          types.String `tfsdk:"restart"`
	Publish          types.List   `tfsdk:"publish"`
	Transports       types.Set    `tfsdk:"transports"`
	Tags             types.Map    `tfsdk:"tags"`
	TagsAll          types.Map    `tfsdk:"tags_all"`
	Timeouts         types.Object `tfsdk:"timeouts"`
	CodeSHA256       types.String `tfsdk:"code_sha256"`
	NodeIDs          types.List   `tfsdk:"node_ids"`
	OverlayAddresses types.List   `tfsdk:"overlay_addresses"`
	Slots            types.List   `tfsdk:"slots"`
}

// publishModel is one element of publish.
type publishModel struct {
	Port        types.Int64  `tfsdk:"port"`
	HostPort    types.Int64  `tfsdk:"host_port"`
	HostAddress types.String `tfsdk:"host_address"`
	CIDRs       types.List   `tfsdk:"cidrs"`
}

// nodeAttributes returns the shared attributes and those of one kind. What has
// no plan modifier changes in place: the guest is started again.
func nodeAttributes(own ...map[string]schema.Attribute) map[string]schema.Attribute {
	attributes := map[string]schema.Attribute{
		"id": schema.StringAttribute{
			Computed:            true,
			MarkdownDescription: "Network and name, as `network,name`.",
			PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		},
		"network_id": schema.StringAttribute{
			Required:            true,
			MarkdownDescription: "The `id` of the `boxer_network` to join. A change replaces the node.",
			Validators:          []validator.String{validName()},
			PlanModifiers:       []planmodifier.String{replaceBecause{"another network has its own addresses, secret and hosts"}},
		},
		"name": schema.StringAttribute{
			Required: true,
			MarkdownDescription: "Name of the node, unique in its network: 1 to 63 lower-case letters, digits and dashes. " +
				"Programs on other nodes reach it as a host of this name, unless `service` says otherwise. A change replaces the node.",
			Validators:    []validator.String{validName()},
			PlanModifiers: []planmodifier.String{replaceBecause{"the overlay address belongs to the name"}},
		},
		"service": schema.StringAttribute{
			Optional: true, Computed: true,
			MarkdownDescription: "Host name that resolves to this node and to all others of the same service. Default: the `name`.",
			Validators:          []validator.String{validName()},
			PlanModifiers:       []planmodifier.String{serviceOrName{}},
		},
		"command": schema.ListAttribute{
			ElementType: types.StringType, Required: true,
			MarkdownDescription: "The guest: a program, found in `PATH` or by its path, and its arguments. No shell is involved. " +
				"It runs unmodified and should stay in the foreground.",
			Validators: []validator.List{validCommand{}},
		},
		"environment": schema.MapAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "Variables of the guest's environment. Names that begin with `BOXER_` are set by Boxer itself.",
			Validators:          []validator.Map{validKeys("Invalid variable", config.CheckVariable)},
		},
		"working_dir": schema.StringAttribute{
			Optional:            true,
			MarkdownDescription: "Directory that the guest starts in, as an absolute path. Default: `/` on VM nodes, `/var/task` on function nodes.",
			Validators:          []validator.String{stringCheck{"Invalid working directory", "an absolute path", config.CheckPath}},
		},
		"user": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "User that the guest runs as, by name or number; never root on the local platform, whose hosts have this machine's system " +
				"accounts. VM nodes only: functions run as the platform's own user. Default: an ordinary user.",
			Validators: []validator.String{stringCheck{"Invalid user", "the name or number of an account", config.CheckUser}},
		},
		"source_dir": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "Directory whose contents the guest finds, read-only, in `/var/task`. " +
				"A change of any file in it starts the guest again; a move of the directory does not. Conflicts with `package`.",
			Validators: []validator.String{notWithPackage{}},
		},
		"package": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "Zip file whose contents the guest finds, read-only, in `/var/task`, instead of `source_dir`. " +
				"What counts as a change is what is in it, not when or how it was packed. For functions on AWS also `s3://bucket/key`, for packages of more " +
				"than 50 MB, with `?version=ID` if the bucket keeps versions, and `sha256=HASH` (base64) to have it checked; what counts then is the address.",
		},
		"files": schema.MapAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "Files of the node, as absolute path and content. The guest finds them, with mode 0644, wherever they are: over a file " +
				"that is there already, in directories that it cannot write. Nothing changes on the machine itself.",
			Validators: []validator.Map{validKeys("Invalid file", config.CheckFile), validFiles{}},
		},
		"remap": schema.MapAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "Paths that the guest is to find elsewhere, as path and path. This version hands them to the node, which does not follow them yet.",
			Validators: []validator.Map{
				validKeys("Invalid path", config.CheckPath),
				mapvalidator.ValueStringsAre(stringCheck{"Invalid path", "an absolute path", config.CheckPath}),
			},
		},
		"wait_for": schema.MapAttribute{
			ElementType: types.Int64Type, Optional: true,
			MarkdownDescription: "Start barrier: the guest is started once each of these services has at least so many running nodes. " +
				"The key `nodes` counts all nodes of the network. Counts are 1 or more.",
			Validators: []validator.Map{
				mapvalidator.KeysAre(validWaitKey()),
				mapvalidator.ValueInt64sAre(int64validator.AtLeast(1)),
			},
		},
		"wait_for_ready": schema.BoolAttribute{
			Optional: true, Computed: true,
			Default: booldefault.StaticBool(true),
			MarkdownDescription: "Whether apply waits until the guest runs, and fails with its last words if it does not. " +
				"With `false` it waits until the node has joined the network. Default `true`.",
		},
		"restart": schema.StringAttribute{
			Optional: true, Computed: true,
			Default:             stringdefault.StaticString(config.RestartNo),
			MarkdownDescription: "Whether a guest that ended is started again: `no` (the default), `on-failure` or `always`.",
			Validators:          []validator.String{stringCheck{"Invalid restart policy", "no, on-failure or always", config.CheckRestart}},
		},
		"publish": publishAttribute(),
		"transports": schema.SetAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "Transports that the connections of this guest may use, those to its own name included, for policy and for tests. " +
				"`native`: the kernel connects to a node of the same site, or to this one. " +
				"`direct`: to the peer's overlay port, with nobody in between; not to nodes behind a NAT. " +
				"`punch`: the same past the NATs of both, where their kinds allow it, or from the peer, which is asked to dial back. " +
				"`relay`: spliced through a third node, a seed or a VM, where both sides meet. " +
				"With `direct` and `relay` a peer behind a NAT may also be asked to dial back. " +
				"A peer that none of them reaches gives \"no route to host\". Connections that others make to this node are not restricted. Default: all.",
			Validators: []validator.Set{setvalidator.ValueStringsAre(validTransport())},
		},
		"timeouts": timeoutsAttribute(opCreate, opUpdate, opDelete),
		"code_sha256": schema.StringAttribute{
			Computed:            true,
			MarkdownDescription: "SHA-256 of what `source_dir` or `package` holds, in base64; null without one.",
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
	maps.Copy(attributes, tagAttributes())
	for _, more := range own {
		maps.Copy(attributes, more)
	}
	return attributes
}

func publishAttribute() schema.Attribute {
	portRange := []validator.Int64{int64validator.Between(1, 65535)}
	return schema.ListNestedAttribute{
		Optional: true,
		MarkdownDescription: "Ports of the guest that can be reached from outside the overlay. Apply ends when the guest listens on them. " +
			"VM nodes only on the local platform: what is behind a NAT cannot be published there.",
		Validators: []validator.List{distinctHostPorts{}},
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
				MarkdownDescription: "IP address of this machine to listen on. Default `" + defaultHostAddress + "`, which on `aws` stands for all addresses of the instance.",
				Validators:          []validator.String{validAddress()},
			},
			"cidrs": schema.ListAttribute{
				ElementType: types.StringType, Optional: true,
				MarkdownDescription: "Where connections may come from; those from elsewhere are reset, and on `aws` kept out by a security group of the node's own. Default: anywhere.",
				Validators: []validator.List{listvalidator.ValueStringsAre(
					stringCheck{"Invalid CIDR", "a network such as 192.168.0.0/16", config.CheckSource})},
			},
		}},
	}
}

// spec turns the shared attributes into what a platform understands.
func (m *nodeModel) spec(ctx context.Context, kind string, diags *diag.Diagnostics) nodeSpec {
	spec := nodeSpec{
		Network: m.NetworkID.ValueString(), Name: m.Name.ValueString(), Service: m.Service.ValueString(), Kind: kind,
		Environment: given(m.Environment), Files: given(m.Files), Remap: given(m.Remap), Tags: given(m.TagsAll),
		WorkingDir: m.WorkingDir.ValueString(), User: m.User.ValueString(), Restart: m.Restart.ValueString(),
		CodeSHA256: m.CodeSHA256.ValueString(), JoinOnly: m.WaitForReady.Equal(types.BoolValue(false)),
	}
	diags.Append(m.Command.ElementsAs(ctx, &spec.Command, false)...)
	if len(m.WaitFor.Elements()) > 0 {
		diags.Append(m.WaitFor.ElementsAs(ctx, &spec.WaitFor, false)...)
	}
	if len(m.Transports.Elements()) > 0 {
		diags.Append(m.Transports.ElementsAs(ctx, &spec.Transports, false)...)
		slices.Sort(spec.Transports)
	}
	var published []publishModel
	if !m.Publish.IsNull() {
		diags.Append(m.Publish.ElementsAs(ctx, &published, false)...)
	}
	for _, p := range published {
		one := config.Publish{Port: int(p.Port.ValueInt64()), HostPort: int(p.HostPort.ValueInt64()), HostAddress: p.HostAddress.ValueString()}
		if !p.CIDRs.IsNull() {
			diags.Append(p.CIDRs.ElementsAs(ctx, &one.CIDRs, false)...)
		}
		spec.Publish = append(spec.Publish, one)
	}
	for _, source := range []struct {
		attribute string
		from      types.String
		to        *string
	}{{"source_dir", m.SourceDir, &spec.SourceDir}, {"package", m.Package, &spec.Package}} {
		name := source.from.ValueString()
		if strings.HasPrefix(name, s3Scheme) {
			*source.to = name
		} else if name != "" {
			absolute, err := filepath.Abs(name)
			if err != nil {
				diags.AddAttributeError(path.Root(source.attribute), "Invalid path", sentence(err.Error()))
			}
			*source.to = absolute
		}
	}
	return spec
}

// given is nil for an empty map: a platform cannot tell the two apart.
func given(m types.Map) map[string]string {
	if len(m.Elements()) == 0 {
		return nil
	}
	return stringsOf(m)
}

// source is the attribute that says what is in /var/task, and its value; null
// if neither does.
func (m *nodeModel) source() (path.Path, types.String) {
	if !m.Package.IsNull() {
		return path.Root("package"), m.Package
	}
	return path.Root("source_dir"), m.SourceDir
}

// contentHash is the hash of what a source_dir or package holds.
func contentHash(at path.Path, name string) (string, error) {
	if at.Equal(path.Root("package")) {
		return packageHash(name)
	}
	return sourceHash(name)
}

// checkSource refuses to start from other files than those that were planned.
func (m *nodeModel) checkSource(diags *diag.Diagnostics) {
	at, name := m.source()
	if name.IsNull() {
		m.CodeSHA256 = types.StringNull()
		return
	}
	if strings.HasPrefix(name.ValueString(), s3Scheme) {
		return // the platform tells what is in it
	}
	found, err := contentHash(at, name.ValueString())
	switch {
	case err != nil:
		diags.AddAttributeError(at, invalidSource(at), sentence(err.Error()))
	case m.CodeSHA256.IsUnknown():
		m.CodeSHA256 = types.StringValue(found)
	case found != m.CodeSHA256.ValueString() && at.Equal(path.Root("package")):
		diags.AddAttributeError(at, "Package changed since the plan",
			"The files in "+name.ValueString()+" are not those that were planned: run terraform plan again.")
	case found != m.CodeSHA256.ValueString():
		diags.AddAttributeError(at, "Source directory changed since the plan",
			"The files in "+name.ValueString()+" are not those that were planned: run terraform plan again.")
	}
}

func invalidSource(at path.Path) string {
	if at.Equal(path.Root("package")) {
		return "Invalid package"
	}
	return "Invalid source directory"
}

// read takes over what the platform knows the node to be. What the two say
// alike stays as the configuration has it.
func (m *nodeModel) read(ctx context.Context, spec nodeSpec, defaults map[string]string, diags *diag.Diagnostics) {
	if m.WaitForReady.IsNull() {
		m.WaitForReady = types.BoolValue(true) // imported
	}
	if len(spec.Command) == 0 {
		return // made by an earlier version, which kept no record
	}
	known := m.spec(ctx, spec.Kind, diags)
	set := func(to *types.List, from any) {
		list, d := types.ListValueFrom(ctx, types.StringType, from)
		diags.Append(d...)
		*to = list
	}
	if !slices.Equal(known.Command, spec.Command) {
		set(&m.Command, spec.Command)
	}
	m.Service, m.Restart = types.StringValue(spec.Service), types.StringValue(spec.Restart)
	m.WorkingDir, m.User = orNull(spec.WorkingDir), orNull(spec.User)
	m.Environment = keepMap(ctx, m.Environment, spec.Environment, diags)
	m.Files = keepMap(ctx, m.Files, spec.Files, diags)
	m.Remap = keepMap(ctx, m.Remap, spec.Remap, diags)
	m.CodeSHA256 = orNull(spec.CodeSHA256)
	var d diag.Diagnostics
	if !maps.Equal(known.WaitFor, spec.WaitFor) {
		m.WaitFor, d = types.MapValueFrom(ctx, types.Int64Type, spec.WaitFor)
		diags.Append(d...)
	}
	if !slices.Equal(known.Transports, slices.Sorted(slices.Values(spec.Transports))) {
		m.Transports, d = types.SetValueFrom(ctx, types.StringType, spec.Transports)
		diags.Append(d...)
	}
	if !reflect.DeepEqual(known.Publish, spec.Publish) {
		m.readPublish(ctx, spec.Publish, diags)
	}
	readTags(ctx, &m.Tags, &m.TagsAll, spec.Tags, defaults, diags)
}

func (m *nodeModel) readPublish(ctx context.Context, published []config.Publish, diags *diag.Diagnostics) {
	models := make([]publishModel, 0, len(published))
	for _, p := range published {
		address := p.HostAddress
		if address == "" {
			address = defaultHostAddress
		}
		model := publishModel{
			Port: types.Int64Value(int64(p.Port)), HostPort: types.Int64Value(int64(p.HostPort)),
			HostAddress: types.StringValue(address), CIDRs: types.ListNull(types.StringType),
		}
		if p.CIDRs != nil {
			list, d := types.ListValueFrom(ctx, types.StringType, p.CIDRs)
			diags.Append(d...)
			model.CIDRs = list
		}
		models = append(models, model)
	}
	list, d := types.ListValueFrom(ctx, publishType, models)
	diags.Append(d...)
	m.Publish = list
}

// publishType is the type of one element of publish.
var publishType = types.ObjectType{AttrTypes: map[string]attr.Type{
	"port": types.Int64Type, "host_port": types.Int64Type, "host_address": types.StringType,
	"cidrs": types.ListType{ElemType: types.StringType},
}}

func orNull(s string) types.String {
	if s == "" {
		return types.StringNull()
	}
	return types.StringValue(s)
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
