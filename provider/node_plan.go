// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// serviceOrName plans the name as the service when none is configured.
type serviceOrName struct{}

func (serviceOrName) Description(context.Context) string {
	return "The name, unless a service is given."
}

func (m serviceOrName) MarkdownDescription(ctx context.Context) string { return m.Description(ctx) }

func (serviceOrName) PlanModifyString(ctx context.Context, req planmodifier.StringRequest, resp *planmodifier.StringResponse) {
	if !req.ConfigValue.IsNull() {
		return
	}
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("name"), &resp.PlanValue)...)
}

// sourceContents plans the hash of what is in /var/task: a changed file is a
// changed node.
type sourceContents struct{}

func (sourceContents) Description(context.Context) string {
	return "The hash of the source directory or package; another hash starts the guest again."
}

func (m sourceContents) MarkdownDescription(ctx context.Context) string { return m.Description(ctx) }

func (sourceContents) PlanModifyString(ctx context.Context, req planmodifier.StringRequest, resp *planmodifier.StringResponse) {
	var wanted, known nodeModel
	read := func(from interface {
		GetAttribute(context.Context, path.Path, any) diag.Diagnostics
	}, m *nodeModel) {
		resp.Diagnostics.Append(from.GetAttribute(ctx, path.Root("source_dir"), &m.SourceDir)...)
		resp.Diagnostics.Append(from.GetAttribute(ctx, path.Root("package"), &m.Package)...)
	}
	read(req.Config, &wanted)
	exists := !req.State.Raw.IsNull()
	if exists {
		read(req.State, &known)
	}
	if resp.Diagnostics.HasError() {
		return
	}
	at, name := wanted.source()
	_, old := known.source()
	switch {
	case wanted.SourceDir.IsUnknown() || wanted.Package.IsUnknown():
		resp.PlanValue = types.StringUnknown()
		return
	case name.IsNull():
		resp.PlanValue = types.StringNull()
		return
	}
	if strings.HasPrefix(name.ValueString(), s3Scheme) {
		resp.PlanValue = types.StringUnknown()
		if exists && name.Equal(old) {
			resp.PlanValue = req.StateValue
		}
		return
	}
	found, err := contentHash(at, name.ValueString())
	switch {
	case err == nil:
		resp.PlanValue = types.StringValue(found)
	case exists && name.Equal(old):
		// Terraform also plans before it destroys, which needs no files, and a
		// node that runs has its own copy.
		resp.PlanValue = req.StateValue
		resp.Diagnostics.AddAttributeWarning(at, strings.ToUpper(invalidSource(at)[8:9])+invalidSource(at)[9:]+" not readable",
			sentence(err.Error())+" The node goes on with the files it was created with.")
	default:
		resp.Diagnostics.AddAttributeError(at, invalidSource(at), sentence(err.Error()))
	}
}
