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
	var dir types.String
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, at, &dir)...)
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
		if err != nil {
			resp.Diagnostics.AddAttributeError(at, "Invalid source directory", sentence(err.Error()))
			return
		}
		resp.PlanValue = types.StringValue(found)
	}
	exists := !req.State.Raw.IsNull()
	resp.RequiresReplace = exists && !resp.PlanValue.Equal(req.StateValue)
}
