// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	fwprovider "github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

const (
	joinTokenKind        = "Boxer Join Token"
	defaultTokenDuration = time.Hour
)

var _ fwprovider.ProviderWithEphemeralResources = (*boxerProvider)(nil)

// EphemeralResources are values that Terraform keeps neither in its state nor
// in a plan.
func (p *boxerProvider) EphemeralResources(context.Context) []func() ephemeral.EphemeralResource {
	return []func() ephemeral.EphemeralResource{newJoinToken}
}

type joinToken struct{ platform platform }

var _ ephemeral.EphemeralResourceWithConfigure = (*joinToken)(nil)

func newJoinToken() ephemeral.EphemeralResource { return &joinToken{} }

func (e *joinToken) Metadata(_ context.Context, _ ephemeral.MetadataRequest, resp *ephemeral.MetadataResponse) {
	resp.TypeName = "boxer_join_token"
}

func (e *joinToken) Configure(_ context.Context, req ephemeral.ConfigureRequest, resp *ephemeral.ConfigureResponse) {
	e.platform = platformOf(req.ProviderData, &resp.Diagnostics)
}

type joinTokenModel struct {
	NetworkID     types.String `tfsdk:"network_id"`
	Name          types.String `tfsdk:"name"`
	Service       types.String `tfsdk:"service"`
	Duration      types.String `tfsdk:"duration"`
	Token         types.String `tfsdk:"token"`
	ExpiresAt     types.String `tfsdk:"expires_at"`
	SeedEndpoints []string     `tfsdk:"seed_endpoints"`
}

func (e *joinToken) Schema(_ context.Context, _ ephemeral.SchemaRequest, resp *ephemeral.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "A token with which one program may join the network, once, without the network's secret: " +
			"`BOXER_JOIN_TOKEN=... boxer run -- psql -h db`, on any machine that reaches a seed. It is made anew each time Terraform needs it " +
			"and kept neither in state nor in a plan; hand it on through a write-only attribute or a provisioner.\n\n" +
			"The seed holds the node to it: it joins under this name and service only, as a client, before the token expires, and not again " +
			"once it has left, nor if another node has taken the name since the token was made. A node that lost its seed may come back for " +
			"a day after the token expired. The token cannot be taken back, does not let its holder admit others, and is as good as the node: " +
			"while it is a member, its programs reach every node of the network. A member is told the key that authenticates connections " +
			"between nodes, which stays the same for the network's life.",
		Attributes: map[string]schema.Attribute{
			"network_id": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "The `id` of the network to join.",
				Validators:          []validator.String{validName()},
			},
			"name": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "Name of the node that joins with the token.",
				Validators:          []validator.String{validName()},
			},
			"service": schema.StringAttribute{
				Optional: true, Computed: true,
				MarkdownDescription: "Service of the node. Default: the `name`.",
				Validators:          []validator.String{validName()},
			},
			"duration": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "How long the token may be used from now on, such as `30m`: `1m` to `24h`. Default `1h`.",
				Validators:          []validator.String{validTokenDuration()},
			},
			"token": schema.StringAttribute{
				Computed: true, Sensitive: true,
				MarkdownDescription: "The token, one word.",
			},
			"expires_at": schema.StringAttribute{
				Computed:            true,
				MarkdownDescription: "Until when the token may be used, as RFC 3339.",
			},
			"seed_endpoints": schema.ListAttribute{
				ElementType: types.StringType, Computed: true,
				MarkdownDescription: "The seeds that the token names, as `host:port`. Those of a local network listen on this machine only: from " +
					"elsewhere forward a port to one and say so with `boxer run --seed`.",
			},
		},
	}
}

func (e *joinToken) Open(ctx context.Context, req ephemeral.OpenRequest, resp *ephemeral.OpenResponse) {
	var model joinTokenModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	life := defaultTokenDuration
	if !model.Duration.IsNull() {
		var err error
		if life, err = tokenDuration(model.Duration.ValueString()); err != nil {
			resp.Diagnostics.AddAttributeError(path.Root("duration"), "Invalid duration", sentence(err.Error()))
			return
		}
	}
	network, name := model.NetworkID.ValueString(), model.Name.ValueString()
	token, err := e.platform.JoinToken(ctx, network, name, model.Service.ValueString(), time.Now().Add(life))
	switch {
	case errors.Is(err, errGone):
		resp.Diagnostics.AddAttributeError(path.Root("network_id"), noNetwork(network), networkRemedy)
		return
	case err != nil:
		addProblem(&resp.Diagnostics, "making", joinTokenKind, name, err)
		return
	}
	model.Service, model.SeedEndpoints = types.StringValue(token.Service), token.Seeds
	model.Token, model.ExpiresAt = types.StringValue(token.String()), types.StringValue(token.Expires.Format(time.RFC3339))
	resp.Diagnostics.Append(resp.Result.Set(ctx, &model)...)
}

func validTokenDuration() validator.String {
	return stringCheck{"Invalid duration", "1m to 24h", func(text string) error {
		_, err := tokenDuration(text)
		return err
	}}
}

func tokenDuration(text string) (time.Duration, error) {
	life, err := time.ParseDuration(text)
	if err != nil || life < time.Minute || life > cluster.TokenMaxLife {
		return 0, fmt.Errorf("%q is not a time that a token can be good for: write 1m to 24h, such as 30m or 1h30m", text)
	}
	return life, nil
}
