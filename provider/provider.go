// SPDX-License-Identifier: Apache-2.0

// Package provider is the Terraform plugin: it turns boxer_network,
// boxer_vm_node and boxer_function_node into hosts, functions and supervisors
// of a platform, and tells Terraform the truth about them.
//
// A resource knows only the platform interface (platform.go). What it does is
// the same everywhere: plan offline, create, wait until the guests run, and
// undo what was made if they do not.
package provider

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	fwprovider "github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/boxer-overlay/boxer/provider/layers"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// Environment variables that stand in for the provider block.
const (
	envPlatform = "BOXER_PLATFORM"
	envStateDir = "BOXER_STATE_DIR"
)

// LayerSource returns the layer zip of an architecture (amd64, arm64).
type LayerSource func(arch string) ([]byte, error)

// Option changes what New builds.
type Option func(*boxerProvider)

// WithLayers takes the layer from elsewhere than the binary itself.
func WithLayers(source LayerSource) Option {
	return func(p *boxerProvider) { p.layers = source }
}

type boxerProvider struct {
	version string
	layers  LayerSource
	fixed   platform // tests only: used whatever is configured

	patience time.Duration // tests only: see localPlatform
	pause    time.Duration // tests only: see cloud.Client
}

// New returns the constructor that a plugin server asks for.
func New(version string, options ...Option) func() fwprovider.Provider {
	return func() fwprovider.Provider {
		p := &boxerProvider{version: version, layers: layers.Zip}
		for _, option := range options {
			option(p)
		}
		return p
	}
}

func (p *boxerProvider) Metadata(_ context.Context, _ fwprovider.MetadataRequest, resp *fwprovider.MetadataResponse) {
	resp.TypeName = "boxer"
	resp.Version = p.version
}

type providerModel struct {
	Platform    types.String `tfsdk:"platform"`
	Local       types.Object `tfsdk:"local"`
	AWS         types.Object `tfsdk:"aws"`
	DefaultTags types.Map    `tfsdk:"default_tags"`
}

type localModel struct {
	StateDir  types.String `tfsdk:"state_dir"`
	Isolation types.String `tfsdk:"isolation"`
}

func (p *boxerProvider) Schema(_ context.Context, _ fwprovider.SchemaRequest, resp *fwprovider.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "Boxer puts virtual machines and serverless functions on one overlay network, where unmodified " +
			"programs reach each other by name. The provider is self-contained: with `platform = \"local\"` it runs the whole " +
			"network on this machine, without a cloud account.",
		Attributes: map[string]schema.Attribute{
			"platform": schema.StringAttribute{
				Optional: true,
				MarkdownDescription: "Where nodes run: `local` (the default), hosts and function sandboxes that are Linux namespaces of this machine, " +
					"or `aws`, EC2 instances and Lambda functions. May also be set by the environment variable `BOXER_PLATFORM`.",
				Validators: []validator.String{stringvalidator.OneOf(platformLocal, platformAWS)},
			},
			"default_tags": schema.MapAttribute{
				ElementType: types.StringType, Optional: true,
				MarkdownDescription: "Tags that all resources get, unless they have one of the same key themselves.",
				Validators:          []validator.Map{validTags{}},
			},
			"aws": awsAttribute(),
			"local": schema.SingleNestedAttribute{
				Optional:            true,
				MarkdownDescription: "Settings of the local platform.",
				Attributes: map[string]schema.Attribute{
					"state_dir": schema.StringAttribute{
						Optional: true,
						MarkdownDescription: "Directory that holds local networks: secrets, logs, files of hosts. Default: `BOXER_STATE_DIR`, " +
							"else `$XDG_STATE_HOME/boxer`, else `~/.local/state/boxer`.",
						Validators: []validator.String{stringCheck{"Invalid state directory", "a directory", func(dir string) error {
							if dir == "" {
								return errors.New("state_dir is empty: name a directory, or leave it out for the default")
							}
							return nil
						}}},
					},
					"isolation": schema.StringAttribute{
						Optional: true,
						MarkdownDescription: "What keeps the nodes of a new network apart: `namespaces`, or an error where the system denies them; " +
							"`processes`: nothing, nodes are plain processes of this machine and functions are not behind NAT; `auto` (the default): " +
							"namespaces where the system allows them, else processes, with a warning that says how to allow them. " +
							"May also be set by the environment variable `BOXER_ISOLATION`. Networks that exist stay as they were made.",
						Validators: []validator.String{stringvalidator.OneOf(
							localcloud.IsolationAuto, localcloud.IsolationNamespaces, localcloud.IsolationProcesses)},
					},
				},
			},
		},
	}
}

func (p *boxerProvider) Configure(ctx context.Context, req fwprovider.ConfigureRequest, resp *fwprovider.ConfigureResponse) {
	var data providerModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &data)...)
	if resp.Diagnostics.HasError() {
		return
	}
	name := platformName(data.Platform, &resp.Diagnostics)
	dir := stateDir(ctx, data.Local, &resp.Diagnostics)
	kept := isolation(ctx, data.Local, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	chosen := p.fixed
	switch {
	case chosen != nil:
	case name == platformAWS:
		chosen = p.openAWS(ctx, data.AWS, &resp.Diagnostics)
		if resp.Diagnostics.HasError() {
			return
		}
	default:
		local := newLocalPlatform(dir, p.layers)
		local.isolation = kept
		local.patience = cmp.Or(p.patience, local.patience)
		chosen = local
	}
	chosen = settings{platform: chosen, defaultTags: defaultTags(data.DefaultTags, &resp.Diagnostics), version: p.version}
	resp.ResourceData, resp.DataSourceData, resp.EphemeralResourceData = chosen, chosen, chosen
}

func defaultTags(tags types.Map, diags *diag.Diagnostics) map[string]string {
	for _, element := range tags.Elements() {
		if element.IsUnknown() {
			tags = types.MapUnknown(types.StringType)
		}
	}
	if tags.IsUnknown() {
		diags.AddAttributeError(path.Root("default_tags"), "Tags not known while planning",
			"The tags of all resources depend on a value that is known only after apply. Write it out, or set it as tags of each resource.")
	}
	return given(tags)
}

// Platforms.
const (
	platformLocal = "local"
	platformAWS   = "aws"
)

// platformName is the platform that is configured.
func platformName(configured types.String, diags *diag.Diagnostics) string {
	if configured.IsUnknown() {
		diags.AddAttributeError(path.Root("platform"), "Platform not known while planning",
			"The platform depends on a value that is known only after apply. Write it out, or set "+envPlatform+".")
		return ""
	}
	name := cmp.Or(configured.ValueString(), os.Getenv(envPlatform), platformLocal)
	if name != platformLocal && name != platformAWS {
		diags.AddError("Platform not available", envPlatform+" is \""+name+"\": set it to local or aws, or unset it.")
	}
	return name
}

// stateDir returns the configured state directory, "" for the default.
func stateDir(ctx context.Context, local types.Object, diags *diag.Diagnostics) string {
	at := path.Root("local")
	if local.IsNull() {
		return os.Getenv(envStateDir)
	}
	var data localModel
	if !local.IsUnknown() {
		diags.Append(local.As(ctx, &data, basetypes.ObjectAsOptions{})...)
		at = at.AtName("state_dir")
	}
	if local.IsUnknown() || data.StateDir.IsUnknown() {
		diags.AddAttributeError(at, "State directory not known while planning",
			"The state directory depends on a value that is known only after apply. Write it out, or set "+envStateDir+".")
		return ""
	}
	if dir := data.StateDir.ValueString(); dir != "" {
		return dir
	}
	return os.Getenv(envStateDir)
}

// isolation returns what is configured, "" for the default.
func isolation(ctx context.Context, local types.Object, diags *diag.Diagnostics) string {
	if local.IsNull() || local.IsUnknown() { // stateDir says so
		return ""
	}
	var data localModel
	diags.Append(local.As(ctx, &data, basetypes.ObjectAsOptions{})...)
	if data.Isolation.IsUnknown() {
		diags.AddAttributeError(path.Root("local").AtName("isolation"), "Isolation not known while planning",
			"The isolation depends on a value that is known only after apply. Write it out, or set "+localcloud.IsolationEnv+".")
	}
	return data.Isolation.ValueString()
}

func (p *boxerProvider) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{newNetworkResource, newVMNodeResource, newFunctionNodeResource}
}

func (p *boxerProvider) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{newNetworkDataSource, newNodesDataSource, newCapacityDataSource, newBootstrapDataSource}
}

// platformOf unpacks what Configure handed to a resource; nil while Terraform
// only validates.
func platformOf(data any, diags *diag.Diagnostics) platform {
	if data == nil {
		return nil
	}
	p, ok := data.(platform)
	if !ok {
		diags.AddError("Provider data of another kind", "This is a bug of the provider: report it with the configuration and the provider's version.")
	}
	return p
}
