// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/config"
)

var seedTypes = map[string]attr.Type{"count": types.Int64Type}

// seedsOf is the value of `seed` for so many seeds.
func seedsOf(count int) types.Object {
	return types.ObjectValueMust(seedTypes, map[string]attr.Value{"count": types.Int64Value(int64(count))})
}

// seedCount is how many seeds the value of `seed` asks for.
func seedCount(seed types.Object) int {
	if count, ok := seed.Attributes()["count"].(types.Int64); ok && !count.IsNull() && !count.IsUnknown() {
		return int(count.ValueInt64())
	}
	return 1
}

func seedAttribute() schema.SingleNestedAttribute {
	return schema.SingleNestedAttribute{
		Optional: true, Computed: true,
		Default: objectdefault.StaticValue(seedsOf(1)),
		MarkdownDescription: "The network's own seeds. With three, nodes join and come back while one of them is away; what runs " +
			"already needs none. Another number replaces the network.",
		Attributes: map[string]schema.Attribute{
			"count": schema.Int64Attribute{
				Optional: true, Computed: true,
				Default:             int64default.StaticInt64(1),
				MarkdownDescription: "How many: 1 (the default) or 3.",
				Validators:          []validator.Int64{validSeedCount{}},
			},
		},
		PlanModifiers: []planmodifier.Object{seedsReplace{replaceBecause{"one seed keeps its state in another way than three, which must agree"}}},
	}
}

// seedsReplace knows that the state of an earlier version says nothing of
// seeds, and means one.
type seedsReplace struct{ replaceBecause }

func (r seedsReplace) PlanModifyObject(_ context.Context, req planmodifier.ObjectRequest, resp *planmodifier.ObjectResponse) {
	before, after := seedsOf(seedCount(req.StateValue)), seedsOf(seedCount(req.PlanValue))
	resp.RequiresReplace = r.needed(req.State, req.Plan, req.Path, before, after, &resp.Diagnostics)
}

// validSeedCount wants a number of seeds that can lose one, or is one.
type validSeedCount struct{}

func (validSeedCount) Description(context.Context) string { return "1 or 3" }

func (v validSeedCount) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (validSeedCount) ValidateInt64(_ context.Context, req validator.Int64Request, resp *validator.Int64Response) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if err := config.CheckSeedCount(int(req.ConfigValue.ValueInt64())); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid number of seeds", sentence(err.Error()))
	}
}
