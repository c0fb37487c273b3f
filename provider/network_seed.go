// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"

	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
)

var seedTypes = map[string]attr.Type{
	"count": types.Int64Type, "instance_type": types.StringType, "subnet_id": types.StringType,
	"ingress_cidrs": types.ListType{ElemType: types.StringType},
}

// seedModel is the value of `seed`.
type seedModel struct {
	Count        types.Int64  `tfsdk:"count"`
	InstanceType types.String `tfsdk:"instance_type"`
	SubnetID     types.String `tfsdk:"subnet_id"`
	IngressCIDRs types.List   `tfsdk:"ingress_cidrs"`
}

func (s seedModel) object() types.Object {
	return types.ObjectValueMust(seedTypes, map[string]attr.Value{
		"count": s.Count, "instance_type": s.InstanceType, "subnet_id": s.SubnetID, "ingress_cidrs": s.IngressCIDRs,
	})
}

// seedsOf is the value of `seed` for so many seeds.
func seedsOf(count int) types.Object {
	return seedModel{Count: types.Int64Value(int64(count)), IngressCIDRs: types.ListNull(types.StringType)}.object()
}

// seedOf reads the value of `seed`; what is missing is null.
func seedOf(ctx context.Context, seed types.Object, diags *diag.Diagnostics) seedModel {
	model := seedModel{IngressCIDRs: types.ListNull(types.StringType)}
	if !seed.IsNull() && !seed.IsUnknown() {
		diags.Append(seed.As(ctx, &model, basetypes.ObjectAsOptions{})...)
	}
	return model
}

// seedCount is how many seeds the value of `seed` asks for.
func seedCount(seed types.Object) int {
	if count, ok := seed.Attributes()["count"].(types.Int64); ok && !count.IsNull() && !count.IsUnknown() {
		return int(count.ValueInt64())
	}
	return 1
}

// planSeed is the configured `seed` with what the platform has by default: an
// instance type, or none ("") and then no other setting either.
func planSeed(configured types.Object, instanceType string, diags *diag.Diagnostics) types.Object {
	if configured.IsUnknown() {
		return configured
	}
	seed := seedOf(context.Background(), configured, diags)
	if seed.Count.IsNull() {
		seed.Count = types.Int64Value(1)
	}
	if instanceType == "" {
		for name, set := range map[string]bool{
			"instance_type": !seed.InstanceType.IsNull(), "subnet_id": !seed.SubnetID.IsNull(), "ingress_cidrs": !seed.IngressCIDRs.IsNull(),
		} {
			if set {
				diags.AddAttributeError(path.Root("seed").AtName(name), "Only on AWS",
					"The local platform has no "+name+": leave it out here, or set platform = \"aws\" in the provider block.")
			}
		}
	} else if seed.InstanceType.IsNull() {
		seed.InstanceType = types.StringValue(instanceType)
	}
	return seed.object()
}

// readSeed is `seed` as the platform has it.
func readSeed(ctx context.Context, known types.Object, aws bool, count int, found awsNetwork, diags *diag.Diagnostics) types.Object {
	if !aws {
		return seedsOf(count)
	}
	had := seedOf(ctx, known, diags)
	return seedModel{
		Count: types.Int64Value(int64(count)), InstanceType: types.StringValue(found.SeedInstanceType),
		SubnetID: optionalString(found.SeedSubnet), IngressCIDRs: keepList(ctx, had.IngressCIDRs, found.SeedIngress, diags),
	}.object()
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
			"instance_type": schema.StringAttribute{
				Optional: true, Computed: true,
				MarkdownDescription: "On `aws`: type of the seeds' instances. Default `" + cloud.DefaultSeedType + "`. A change stops one after " +
					"the other for a minute; they keep their addresses and what they know. A type of another architecture replaces the network.",
				Validators: []validator.String{stringCheck{"Invalid instance type", "a type of instance", checkInstanceType}},
			},
			"subnet_id": schema.StringAttribute{
				Optional: true,
				MarkdownDescription: "On `aws`: subnet of all seeds, with a route to an internet gateway. Default: `subnet_ids`. Another one replaces " +
					"the network.",
				Validators: []validator.String{awsID("subnet-", "a subnet")},
			},
			"ingress_cidrs": schema.ListAttribute{
				ElementType: types.StringType, Optional: true,
				MarkdownDescription: "On `aws`: IPv4 ranges that may reach the overlay port of seeds and VM nodes, and the port after it. Default: everywhere, as " +
					"functions outside a VPC have no address of their own; whoever comes has to know the network's secret.",
				Validators: []validator.List{listvalidator.SizeBetween(1, 50), listvalidator.UniqueValues(), listvalidator.ValueStringsAre(
					stringCheck{"Invalid source", "an IPv4 range", config.CheckSource})},
			},
		},
		PlanModifiers: []planmodifier.Object{seedsReplace{replaceBecause{"one seed keeps its state in another way than three, which must agree"}}},
	}
}

// seedsReplace knows that the state of an earlier version says nothing of
// seeds, and means one.
type seedsReplace struct{ replaceBecause }

func (r seedsReplace) PlanModifyObject(ctx context.Context, req planmodifier.ObjectRequest, resp *planmodifier.ObjectResponse) {
	before, after := seedsOf(seedCount(req.StateValue)), seedsOf(seedCount(req.PlanValue))
	resp.RequiresReplace = r.needed(req.State, req.Plan, req.Path, before, after, &resp.Diagnostics)
	was, is := seedOf(ctx, req.StateValue, &resp.Diagnostics), seedOf(ctx, req.PlanValue, &resp.Diagnostics)
	moved := replaceBecause{"a seed cannot move to another subnet with what it knows"}
	if moved.needed(req.State, req.Plan, req.Path.AtName("subnet_id"), was.SubnetID, is.SubnetID, &resp.Diagnostics) {
		resp.RequiresReplace = true
	}
	if req.ConfigValue.IsUnknown() {
		return
	}
	// Not what is planned: there the type that is left out is unknown still, or the one that was.
	if is = seedOf(ctx, req.ConfigValue, &resp.Diagnostics); is.InstanceType.IsUnknown() {
		return // UpdateNetwork looks again
	}
	processors := replaceBecause{"a seed keeps what it knows on a disk that boots one architecture"}
	if processors.needed(req.State, req.Plan, req.Path.AtName("instance_type"), seedArch(was), seedArch(is), &resp.Diagnostics) {
		resp.RequiresReplace = true
	}
}

// seedArch is the architecture of the seeds' processors.
func seedArch(s seedModel) types.String {
	return types.StringValue(archOf(cmp.Or(s.InstanceType.ValueString(), cloud.DefaultSeedType)))
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
