// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	fwprovider "github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
)

// Documentation is generated from the descriptions, so none may be missing.
func TestSchemas(t *testing.T) {
	ctx := context.Background()
	p := New("test")()
	var config fwprovider.SchemaResponse
	p.Schema(ctx, fwprovider.SchemaRequest{}, &config)
	if diags := config.Schema.ValidateImplementation(ctx); diags.HasError() {
		t.Errorf("provider: %v", diags)
	}
	for _, make := range p.Resources(ctx) {
		r := make()
		var meta resource.MetadataResponse
		r.Metadata(ctx, resource.MetadataRequest{ProviderTypeName: "boxer"}, &meta)
		var resp resource.SchemaResponse
		r.Schema(ctx, resource.SchemaRequest{}, &resp)
		if diags := resp.Schema.ValidateImplementation(ctx); diags.HasError() {
			t.Errorf("%s: %v", meta.TypeName, diags)
		}
		if resp.Schema.MarkdownDescription == "" {
			t.Errorf("%s has no description", meta.TypeName)
		}
		checkDescriptions(t, meta.TypeName, resp.Schema.Attributes)
	}
}

func checkDescriptions(t *testing.T, at string, attributes map[string]schema.Attribute) {
	t.Helper()
	for name, attribute := range attributes {
		here := at + "." + name
		if !strings.HasSuffix(attribute.GetMarkdownDescription(), ".") {
			t.Errorf("%s: no description, or no full stop at its end", here)
		}
		if nested, ok := attribute.(schema.ListNestedAttribute); ok {
			checkDescriptions(t, here, nested.NestedObject.Attributes)
		}
	}
}

func TestProviderBlock(t *testing.T) {
	network := "resource \"boxer_network\" \"shop\" { name = \"shop\" }\n"
	cases := map[string]struct {
		config string
		env    string
	}{
		"aws without region": {"", "aws"},
		"aws endpoint":       {"provider \"boxer\" {\n  platform = \"aws\"\n  aws = { endpoints = { ssm = \"localhost\" } }\n}\n", ""},
		"aws unknown key":    {"provider \"boxer\" {\n  platform = \"aws\"\n  aws = { region = \"eu-north-1\" }\n}\n", ""},
		"unknown platform":   {"provider \"boxer\" { platform = \"gcp\" }\n", ""},
		"default tags":       {"provider \"boxer\" {\n  default_tags = { \"\" = \"y\" }\n}\n", ""},
		"default tags later": {"resource \"terraform_data\" \"later\" { input = \"x\" }\n" +
			"provider \"boxer\" { default_tags = { a = terraform_data.later.output } }\n", ""},
		"state dir empty": {"provider \"boxer\" { local = { state_dir = \"\" } }\n", ""},
		"isolation":       {"provider \"boxer\" { local = { isolation = \"chroot\" } }\n", ""},
		"isolation later": {"resource \"terraform_data\" \"later\" { input = \"x\" }\n" +
			"provider \"boxer\" { local = { isolation = terraform_data.later.output } }\n", ""},
		"platform later": {"resource \"terraform_data\" \"later\" { input = \"x\" }\n" +
			"provider \"boxer\" { platform = terraform_data.later.output }\n", ""},
		"state dir later": {"resource \"terraform_data\" \"later\" { input = \"x\" }\n" +
			"provider \"boxer\" { local = { state_dir = terraform_data.later.output } }\n", ""},
	}
	aws := newStranger(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorkspace(t)
			t.Setenv(envPlatform, c.env)
			aws.setenv(t)
			w.configure(c.config + network)
			w.golden("provider/"+name, w.errors("plan", "-input=false"), nil)
		})
	}
}

// Planning a new network must leave no trace on the machine.
func TestPlanMakesNothing(t *testing.T) {
	w := newWorkspace(t)
	state := w.dir + "/state"
	w.configure("provider \"boxer\" { local = { state_dir = \"" + state + "\" } }\n" +
		"resource \"boxer_network\" \"shop\" { name = \"shop\" }\n")
	w.planned()
	if exists(state) {
		t.Errorf("planning made the state directory")
	}
}

// stranger is an AWS that knows nobody.
type stranger struct{ url string }

func newStranger(t *testing.T) stranger {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>The security token included in the request is invalid."+
			"</Message></Error></ErrorResponse>")
	}))
	t.Cleanup(server.Close)
	return stranger{server.URL}
}

func (s stranger) setenv(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": s.url, "AWS_ACCESS_KEY_ID": "AKIASTRANGER", "AWS_SECRET_ACCESS_KEY": "none", "AWS_SESSION_TOKEN": "",
		"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(name, value)
	}
}
