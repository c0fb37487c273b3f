// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/boxer-overlay/boxer/provider/cloud"
)

type awsModel struct {
	Region          types.String `tfsdk:"region"`
	Profile         types.String `tfsdk:"profile"`
	AssumeRoleARN   types.String `tfsdk:"assume_role_arn"`
	MaxRetries      types.Int64  `tfsdk:"max_retries"`
	SkipCredentials types.Bool   `tfsdk:"skip_credentials_validation"`
	Endpoints       types.Object `tfsdk:"endpoints"`
}

func awsAttribute() schema.Attribute {
	endpoints := map[string]schema.Attribute{}
	for _, service := range cloud.Services {
		endpoints[service] = schema.StringAttribute{
			Optional:            true,
			MarkdownDescription: "URL of `" + service + "`.",
			Validators:          []validator.String{validURL()},
		}
	}
	return schema.SingleNestedAttribute{
		Optional: true,
		MarkdownDescription: "Settings of the platform `aws`. Credentials are found as by the AWS command line: environment, `~/.aws`, single " +
			"sign-on, the role of the machine.",
		Attributes: map[string]schema.Attribute{
			"region": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Region that networks live in. Default: `AWS_REGION`, else the profile's.",
			},
			"profile": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Profile in `~/.aws/config` and `~/.aws/credentials`. Default: `AWS_PROFILE`.",
			},
			"assume_role_arn": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Role that the provider takes on for everything it does.",
			},
			"max_retries": schema.Int64Attribute{
				Optional:            true,
				MarkdownDescription: "How often a request is sent again when AWS is busy or does not answer. Default: 5, or as `AWS_MAX_ATTEMPTS` says.",
				Validators:          []validator.Int64{int64validator.Between(1, 100)},
			},
			"skip_credentials_validation": schema.BoolAttribute{
				Optional: true,
				MarkdownDescription: "Do not try the credentials before anything is planned. Default `false`: a plan with credentials that do not " +
					"work fails at once.",
			},
			"endpoints": schema.SingleNestedAttribute{
				Optional: true,
				MarkdownDescription: "Other endpoints than AWS's own, by service, for emulators and private links. The environment variables " +
					"`AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>` are honoured, too.",
				Attributes: endpoints,
			},
		},
	}
}

// openAWS makes the platform aws of the provider's block.
func (p *boxerProvider) openAWS(ctx context.Context, block types.Object, diags *diag.Diagnostics) platform {
	config, skip := awsConfig(ctx, block, diags)
	if diags.HasError() {
		return nil
	}
	client, err := cloud.Open(ctx, config)
	if err == nil && !skip {
		_, err = client.Account(ctx)
	}
	if err != nil {
		diags.AddError("Configuring the platform aws", detail(err))
		return nil
	}
	client.Pause = cmp.Or(p.pause, client.Pause)
	return newAWSPlatform(client, p.layers)
}

// awsConfig is what the provider's block says of AWS, and whether credentials are
// to be taken as they are.
func awsConfig(ctx context.Context, block types.Object, diags *diag.Diagnostics) (config cloud.Config, skip bool) {
	if block.IsNull() {
		return config, false
	}
	at := path.Root("aws")
	var data awsModel
	if !block.IsUnknown() {
		diags.Append(block.As(ctx, &data, basetypes.ObjectAsOptions{})...)
	}
	if block.IsUnknown() || slices.ContainsFunc([]interface{ IsUnknown() bool }{
		data.Region, data.Profile, data.AssumeRoleARN, data.MaxRetries, data.SkipCredentials, data.Endpoints,
	}, func(v interface{ IsUnknown() bool }) bool { return v.IsUnknown() }) {
		diags.AddAttributeError(at, "AWS settings not known while planning",
			"Where and as whom to work on AWS depends on a value that is known only after apply. Write it out, or use the environment (AWS_REGION, AWS_PROFILE).")
		return config, false
	}
	config = cloud.Config{
		Region: data.Region.ValueString(), Profile: data.Profile.ValueString(), AssumeRoleARN: data.AssumeRoleARN.ValueString(),
		MaxRetries: int(data.MaxRetries.ValueInt64()), Endpoints: map[string]string{},
	}
	for service, url := range data.Endpoints.Attributes() {
		text, ok := url.(types.String)
		if ok && text.IsUnknown() {
			diags.AddAttributeError(at.AtName("endpoints").AtName(service), "Endpoint not known while planning",
				"The endpoint depends on a value that is known only after apply. Write it out, or use the environment (AWS_ENDPOINT_URL).")
		}
		config.Endpoints[service] = text.ValueString()
	}
	return config, data.SkipCredentials.ValueBool()
}

func validURL() validator.String {
	return stringCheck{"Invalid endpoint", "a URL that begins with https:// or http://", func(text string) error {
		if !isURL(text) {
			return errors.New("\"" + text + "\" is no URL of a service: write one such as https://ssm.example.com")
		}
		return nil
	}}
}
