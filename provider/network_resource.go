// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
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

var (
	_ resource.ResourceWithConfigure      = (*networkResource)(nil)
	_ resource.ResourceWithModifyPlan     = (*networkResource)(nil)
	_ resource.ResourceWithValidateConfig = (*networkResource)(nil)
	_ resource.ResourceWithImportState    = (*networkResource)(nil)
	_ resource.ResourceWithUpgradeState   = (*networkResource)(nil)
)

func newNetworkResource() resource.Resource { return &networkResource{} }

func (r *networkResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "boxer_network"
}

func (r *networkResource) Configure(_ context.Context, req resource.ConfigureRequest, resp *resource.ConfigureResponse) {
	r.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

type networkModel struct {
	ID              types.String `tfsdk:"id"`
	Name            types.String `tfsdk:"name"`
	CIDR            types.String `tfsdk:"cidr"`
	Port            types.Int64  `tfsdk:"port"`
	SecretWO        types.String `tfsdk:"secret_wo"`
	SecretWOVersion types.Int64  `tfsdk:"secret_wo_version"`
	RuntimeVersion  types.String `tfsdk:"runtime_version"`
	Seed            types.Object `tfsdk:"seed"`
	SeedEndpoints   types.List   `tfsdk:"seed_endpoints"`
	SecretRef       types.String `tfsdk:"secret_ref"`
	LayerARNs       types.List   `tfsdk:"layer_arns"`
	Tags            types.Map    `tfsdk:"tags"`
	TagsAll         types.Map    `tfsdk:"tags_all"`
	Timeouts        types.Object `tfsdk:"timeouts"`

	networkAWSModel
}

func (r *networkResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		Version: schemaVersion,
		MarkdownDescription: "An overlay network: an address range, a secret and the nodes that know it. The network runs its own " +
			"seed, which admits nodes and hands out ids and addresses.",
		Attributes: withTags(map[string]schema.Attribute{
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
				PlanModifiers: []planmodifier.String{replaceBecause{"the network's certificates and its nodes carry the name"}},
			},
			"cidr": schema.StringAttribute{
				Optional: true, Computed: true,
				Default: stringdefault.StaticString(config.DefaultCIDR),
				MarkdownDescription: "IPv4 range that nodes get their overlay addresses from, between /8 and /28. " +
					"Default `" + config.DefaultCIDR + "`.",
				Validators:    []validator.String{validCIDR()},
				PlanModifiers: []planmodifier.String{replaceBecause{"every node would get another address"}},
			},
			"port": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default:             int64default.StaticInt64(config.DefaultPort),
				MarkdownDescription: "TCP port that supervisors listen on, 1 to 65535. Default `7717`. Guests cannot use it.",
				Validators:          []validator.Int64{int64validator.Between(1, 65535)},
				PlanModifiers:       []planmodifier.Int64{replaceBecause{"every node listens on the port and expects the others there"}},
			},
			"secret_wo": schema.StringAttribute{
				Optional: true, Sensitive: true, WriteOnly: true,
				MarkdownDescription: "Secret of the network, 16 characters or more; whoever knows it is a member. It is in neither plan nor state " +
					"(Terraform 1.11 or newer). Default: a generated one.",
				Validators: []validator.String{validSecret()},
			},
			"secret_wo_version": schema.Int64Attribute{
				Optional:            true,
				MarkdownDescription: "Says that `secret_wo` has changed, which Terraform cannot see: count it up. A change replaces the network.",
				Validators:          []validator.Int64{int64validator.AtLeast(1)},
				PlanModifiers:       []planmodifier.Int64{replaceBecause{"all nodes know each other by the secret"}},
			},
			"runtime_version": schema.StringAttribute{
				Optional: true, Computed: true,
				MarkdownDescription: "Version of Boxer that the nodes run. Default: the provider's own when the network is made; it stays so when the " +
					"provider is upgraded. On `aws` the provider's own version upgrades seeds and nodes in place; on the local platform nodes cannot be given " +
					"another one: leave it out and replace the network (`terraform apply -replace`).",
				PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
			},
			"timeouts": timeoutsAttribute(opCreate, opUpdate, opDelete),
			"layer_arns": schema.ListAttribute{
				ElementType: types.StringType, Computed: true,
				MarkdownDescription: "The layer versions of the network's functions, for amd64 and for arm64. They are kept when the network is destroyed (`boxer layers` lists and deletes them). " +
					"Empty on the local platform, which unpacks the layer itself.",
				PlanModifiers: []planmodifier.List{listplanmodifier.UseStateForUnknown()},
			},
			"seed": seedAttribute(),
			"seed_endpoints": schema.ListAttribute{
				ElementType: types.StringType, Computed: true,
				MarkdownDescription: "Where clients on this machine reach the network's seeds, seed-0 first, as `host:port`.",
				PlanModifiers:       []planmodifier.List{listplanmodifier.UseStateForUnknown()},
			},
			"secret_ref": schema.StringAttribute{
				Computed:            true,
				MarkdownDescription: "Where the network's secret is kept: `file:` and the path of a file only its owner can read; on `aws` `ssm:` with the region and the name of a SecureString parameter.",
				PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
			},
		}),
	}
	maps.Copy(resp.Schema.Attributes, networkAWSAttributes())
}

func withTags(attributes map[string]schema.Attribute) map[string]schema.Attribute {
	maps.Copy(attributes, tagAttributes())
	return attributes
}

func (r *networkResource) UpgradeState(context.Context) map[int64]resource.StateUpgrader {
	return upgradeFrom0(map[string]any{"layer_arns": []string{}})
}

// ValidateConfig checks that a secret and its version come together.
func (r *networkResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var model networkModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	switch {
	case model.SecretWO.IsNull() && !model.SecretWOVersion.IsNull():
		resp.Diagnostics.AddAttributeError(path.Root("secret_wo_version"), "A version without a secret",
			"secret_wo_version counts changes of secret_wo, which is not given: add secret_wo, or leave both out for a generated secret.")
	case !model.SecretWO.IsNull() && model.SecretWOVersion.IsNull():
		resp.Diagnostics.AddAttributeError(path.Root("secret_wo"), "A secret without a version",
			"Terraform does not keep secret_wo and cannot see it change: add secret_wo_version = 1, and count it up with each new secret.")
	}
}

// ModifyPlan plans the tags, and refuses a runtime that this provider lacks.
func (r *networkResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.Plan.Raw.IsNull() {
		return // destroyed
	}
	var plan, state, configured networkModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.Config.Get(ctx, &configured)...)
	if !req.State.Raw.IsNull() {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	}
	if resp.Diagnostics.HasError() {
		return
	}
	own := settingsOf(r.platform)
	plan.TagsAll = allTags(ctx, plan.Tags, own.defaultTags, &resp.Diagnostics)
	if plan.RuntimeVersion.IsUnknown() && req.State.Raw.IsNull() && own.version != "" {
		plan.RuntimeVersion = types.StringValue(own.version)
	}
	plan.planAWS(&configured, &state, r.platform, &resp.Diagnostics)
	checkUpgrade(notedUpgrade(ctx, req.Private), plan.RuntimeVersion, own.version, &resp.Diagnostics)
	r.checkRuntime(plan.RuntimeVersion, state.RuntimeVersion, own.version, &resp.Diagnostics)
	if !req.State.Raw.IsNull() {
		if !plan.RuntimeVersion.Equal(state.RuntimeVersion) {
			plan.LayerARNs = types.ListUnknown(types.StringType)
		}
		plan.planDrift(notedDrift(ctx, req.Private), &resp.Diagnostics)
	}
	resp.Diagnostics.Append(resp.Plan.Set(ctx, &plan)...)
}

// checkRuntime: nodes stay with the runtime they have, or get this provider's.
func (r *networkResource) checkRuntime(planned, has types.String, own string, diags *diag.Diagnostics) {
	if planned.IsUnknown() || planned.Equal(has) || own == "" {
		return
	}
	at := path.Root("runtime_version")
	switch {
	case planned.ValueString() != own:
		diags.AddAttributeError(at, "Runtime version not available",
			fmt.Sprintf("runtime_version is %q, but this provider carries %q and no other: write that one, use the provider of version %s, or leave it out.",
				planned.ValueString(), own, planned.ValueString()))
	case !has.IsNull() && !onAWS(r.platform):
		diags.AddAttributeError(at, "Runtime version cannot be changed in place",
			fmt.Sprintf("The network runs %q, and this version cannot give nodes that run another one. To stay with %q, write that or leave runtime_version "+
				"out. To get %q, leave runtime_version out and run \"terraform apply -replace=ADDRESS\" (ADDRESS is this resource's): it makes the network "+
				"and all of its nodes anew. After that %q can be written here.", has.ValueString(), has.ValueString(), own, own))
	}
}

// checkUpgrade: what an upgrade that ended half-way left runs two versions, of which a
// provider carries one at most.
func checkUpgrade(upgrading string, planned types.String, own string, diags *diag.Diagnostics) {
	if upgrading == "" || own == "" || planned.IsUnknown() || planned.ValueString() == own || planned.ValueString() == upgrading {
		return
	}
	diags.AddAttributeError(path.Root("runtime_version"), "Upgrade that ended half-way",
		fmt.Sprintf("The upgrade of the network to %q did not end: part of it runs that, part of it %q, and this provider carries only %q. Write "+
			"runtime_version = %q to have all of it run that, or use the provider of version %s to go back.", upgrading, planned.ValueString(), own, own,
			planned.ValueString()))
}

func (r *networkResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var model networkModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("secret_wo"), &model.SecretWO)...)
	spec := model.spec(ctx, &resp.Diagnostics)
	model.SecretWO = types.StringNull()
	ctx, cancel := within(on(ctx, r.platform), model.Timeouts, opCreate)
	defer cancel()
	status, err := r.platform.CreateNetwork(ctx, spec)
	if err != nil {
		addProblem(&resp.Diagnostics, "creating", networkKind, spec.Name, err)
	}
	if err != nil && !status.Made {
		return
	}
	if status.Notice != "" {
		resp.Diagnostics.AddWarning("Nodes are plain processes", sentence(status.Notice))
	}
	model.ID = model.Name
	model.fill(ctx, status, r.platform, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	resp.Diagnostics.Append(remember(ctx, r.platform, resp.Private, "")...)
}

func (m *networkModel) spec(ctx context.Context, diags *diag.Diagnostics) networkSpec {
	return networkSpec{
		Name: m.Name.ValueString(), CIDR: m.CIDR.ValueString(), Port: int(m.Port.ValueInt64()), Seeds: seedCount(m.Seed),
		Secret: m.SecretWO.ValueString(), SecretVersion: m.SecretWOVersion.ValueInt64(),
		RuntimeVersion: m.RuntimeVersion.ValueString(), Tags: given(m.TagsAll), AWS: m.awsSpec(ctx, diags),
	}
}

// fill takes over what the platform knows better than the configuration.
func (m *networkModel) fill(ctx context.Context, status networkStatus, p platform, diags *diag.Diagnostics) {
	m.CIDR = types.StringValue(status.CIDR)
	m.Port = types.Int64Value(int64(status.Port))
	m.SecretRef = types.StringValue(status.SecretRef)
	m.RuntimeVersion = types.StringValue(status.RuntimeVersion)
	m.SecretWOVersion = types.Int64Null()
	if status.SecretVersion != 0 {
		m.SecretWOVersion = types.Int64Value(status.SecretVersion)
	}
	aws := onAWS(p)
	m.Seed = readSeed(ctx, m.Seed, aws, max(1, status.Seeds, len(status.SeedEndpoints)), status.AWS, diags)
	m.readAWS(ctx, aws, status.AWS, diags)
	var d diag.Diagnostics
	m.SeedEndpoints, d = types.ListValueFrom(ctx, types.StringType, status.SeedEndpoints)
	diags.Append(d...)
	m.LayerARNs, d = types.ListValueFrom(ctx, types.StringType, append([]string{}, status.LayerARNs...))
	diags.Append(d...)
	readTags(ctx, &m.Tags, &m.TagsAll, status.Tags, settingsOf(p).defaultTags, diags)
}

func (r *networkResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	if err := config.CheckName(req.ID); err != nil {
		resp.Diagnostics.AddError("importing "+networkKind, sentence(err.Error())+" Import a network by its name.")
		return
	}
	if _, err := r.platform.Network(ctx, req.ID); err != nil {
		if errors.Is(err, errGone) {
			err = &explained{errors.New("there is no network of that name"), "What is not there needs no import: apply makes it."}
			if !onAWS(r.platform) {
				err = &explained{errors.New("there is no network of that name"),
					"\"boxer network list\" shows those there are; the state directory (BOXER_STATE_DIR) may be another one. What is not there needs no import: apply makes it."}
			}
		}
		addProblem(&resp.Diagnostics, "importing", networkKind, req.ID, err)
		return
	}
	for _, attribute := range []string{"id", "name"} {
		resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(attribute), req.ID)...)
	}
	resp.Diagnostics.Append(remember(ctx, r.platform, resp.Private, "")...)
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
		addLookProblem(&resp.Diagnostics, networkKind, name, err)
		return
	}
	model.fill(ctx, status, r.platform, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	resp.Diagnostics.Append(noteDrift(ctx, resp.Private, status.Drift)...)
	resp.Diagnostics.Append(noteUpgrade(ctx, resp.Private, status.Upgrading)...)
}

// Update changes what needs no other network.
func (r *networkResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var model networkModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := model.Name.ValueString()
	_, diags := recall(ctx, r.platform, req.Private, networkKind, name)
	resp.Diagnostics.Append(diags...)
	if diags.HasError() {
		return
	}
	ctx, cancel := within(on(ctx, r.platform), model.Timeouts, opUpdate)
	defer cancel()
	spec := model.spec(ctx, &resp.Diagnostics)
	spec.Carried = settingsOf(r.platform).version
	status, err := r.platform.UpdateNetwork(ctx, spec)
	if err != nil {
		addProblem(&resp.Diagnostics, "updating", networkKind, name, err)
		return
	}
	model.fill(ctx, status, r.platform, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
	resp.Diagnostics.Append(noteDrift(ctx, resp.Private, nil)...)
	resp.Diagnostics.Append(noteUpgrade(ctx, resp.Private, status.Upgrading)...)
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
	ctx, cancel := within(on(ctx, r.platform), model.Timeouts, opDelete)
	defer cancel()
	if err := r.platform.DeleteNetwork(ctx, name); err != nil {
		addProblem(&resp.Diagnostics, "destroying", networkKind, name, err)
	}
}
