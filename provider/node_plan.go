// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"

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

// sourceContents plans the hash of the source directory, and a replacement when
// it is not the one in the state: a changed file is a changed node.
type sourceContents struct{}

func (sourceContents) Description(context.Context) string {
	return "The hash of the source directory; another hash replaces the node."
}

func (m sourceContents) MarkdownDescription(ctx context.Context) string { return m.Description(ctx) }

func (sourceContents) PlanModifyString(ctx context.Context, req planmodifier.StringRequest, resp *planmodifier.StringResponse) {
	at := path.Root("source_dir")
	var dir, known types.String
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, at, &dir)...)
	exists := !req.State.Raw.IsNull()
	if exists {
		resp.Diagnostics.Append(req.State.GetAttribute(ctx, at, &known)...)
	}
	if resp.Diagnostics.HasError() {
		return
	}
	switch {
	case dir.IsUnknown():
		resp.PlanValue = types.StringUnknown()
	case dir.IsNull():
		resp.PlanValue = types.StringNull()
	default:
		found, err := sourceHash(dir.ValueString())
		switch {
		case err == nil:
			resp.PlanValue = types.StringValue(found)
		case exists && dir.Equal(known):
			// Terraform also plans before it destroys, which needs no files, and a
			// node that runs has its own copy.
			resp.PlanValue = req.StateValue
			resp.Diagnostics.AddAttributeWarning(at, "Source directory not readable",
				sentence(err.Error())+" The node goes on with the files it was created with.")
		default:
			resp.Diagnostics.AddAttributeError(at, "Invalid source directory", sentence(err.Error()))
			return
		}
	}
	resp.RequiresReplace = exists && !resp.PlanValue.Equal(req.StateValue)
}
