// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// functionAWSModel are the attributes of a function node that only AWS has.
type functionAWSModel struct {
	Architecture     types.String `tfsdk:"architecture"`
	ImageURI         types.String `tfsdk:"image_uri"`
	SubnetIDs        types.List   `tfsdk:"subnet_ids"`
	SecurityGroupIDs types.List   `tfsdk:"security_group_ids"`
	RoleARN          types.String `tfsdk:"role_arn"`
	Reserved         types.Int64  `tfsdk:"reserved_concurrency"`
	FunctionARN      types.String `tfsdk:"function_arn"`
	LogGroupName     types.String `tfsdk:"log_group_name"`
}

func functionAWSAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"architecture": architectureAttribute("AWS: `amd64` (the default) or `arm64`, of the command and all that it loads. Changed in place."),
		"image_uri": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "AWS: a container image in ECR to run instead of a zip package, made from one of the base images under `layer/`. What is behind " +
				"a tag is looked up when the attribute changes: name the digest to be sure. Conflicts with `source_dir` and `package`.",
			Validators: []validator.String{stringCheck{"Invalid image", "an image in ECR", checkImageURI}},
		},
		"subnet_ids": schema.ListAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "AWS: subnets of a VPC to attach the function to. It then has no public address, and reaches the network's seeds only through a " +
				"NAT gateway or inside the VPC; destroying it takes up to an hour, which is how long AWS keeps its network interfaces. Default: no VPC.",
			Validators: []validator.List{listvalidator.SizeAtLeast(1), listvalidator.ValueStringsAre(validSubnet())},
		},
		"security_group_ids": schema.ListAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "AWS: security groups of a function with `subnet_ids`, besides the network's own.",
			Validators:          []validator.List{listvalidator.ValueStringsAre(validGroup())},
		},
		"role_arn": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "AWS: the role that the function runs with, instead of the network's own for functions. It needs that one's rights, and may have more " +
				"for the program.",
			Validators: []validator.String{stringCheck{"Invalid role", "the ARN of a role", checkRoleARN}},
		},
		"reserved_concurrency": schema.Int64Attribute{
			Optional: true,
			MarkdownDescription: "AWS: how many invocations are set aside for this function, and the most it may have at once: more than replicas, since a renewal " +
				"needs a second one. Default: what the account has left.",
			Validators: []validator.Int64{int64validator.AtLeast(1)},
		},
		"function_arn":   exported("AWS: the ARN of the function."),
		"log_group_name": exported("AWS: the CloudWatch log group with what the guests print."),
	}
}

func (m *functionAWSModel) spec(ctx context.Context, diags *diag.Diagnostics) awsNode {
	a := awsNode{
		Architecture: m.Architecture.ValueString(), ImageURI: m.ImageURI.ValueString(), RoleARN: m.RoleARN.ValueString(),
		SubnetIDs: stringList(ctx, m.SubnetIDs, diags), SecurityGroupIDs: stringList(ctx, m.SecurityGroupIDs, diags),
	}
	if !m.Reserved.IsNull() && !m.Reserved.IsUnknown() {
		n := int32(m.Reserved.ValueInt64())
		a.Reserved = &n
	}
	return a
}

func (m *functionAWSModel) onlyAWS(diags *diag.Diagnostics) {
	onlyAWS(map[string]bool{
		"architecture": !m.Architecture.IsNull(), "image_uri": !m.ImageURI.IsNull(), "subnet_ids": !m.SubnetIDs.IsNull(),
		"security_group_ids": !m.SecurityGroupIDs.IsNull(), "role_arn": !m.RoleARN.IsNull(), "reserved_concurrency": !m.Reserved.IsNull(),
	}, diags)
}

// exports leaves what the platform tells to apply; elsewhere there is nothing to tell.
func (m *functionAWSModel) exports(aws bool, old *functionAWSModel) {
	switch {
	case !aws:
		m.FunctionARN, m.LogGroupName = types.StringNull(), types.StringNull()
	case old == nil || old.FunctionARN.IsNull():
		m.FunctionARN, m.LogGroupName = types.StringUnknown(), types.StringUnknown()
	default:
		m.FunctionARN, m.LogGroupName = old.FunctionARN, old.LogGroupName
	}
}

// changes: replicas of one are not those of the other.
func (m *functionAWSModel) changes(old *functionAWSModel) bool {
	return !m.Architecture.Equal(old.Architecture) || !m.ImageURI.Equal(old.ImageURI) || !m.SubnetIDs.Equal(old.SubnetIDs) ||
		!m.SecurityGroupIDs.Equal(old.SecurityGroupIDs) || !m.RoleARN.Equal(old.RoleARN)
}

// read takes over what the platform knows of the function.
func (m *functionAWSModel) read(ctx context.Context, found awsNode, at *awsFunction, diags *diag.Diagnostics) {
	if at == nil {
		m.exports(false, nil)
		return
	}
	m.FunctionARN, m.LogGroupName = orNull(at.ARN), orNull(at.LogGroup)
	if at.Unrecorded {
		return // a function is not replaced because a record is lost
	}
	if known := m.spec(ctx, diags); known.architecture() != found.architecture() {
		m.Architecture = types.StringValue(found.architecture())
	}
	m.ImageURI, m.RoleARN = orNull(found.ImageURI), orNull(found.RoleARN)
	m.SubnetIDs = keepList(ctx, m.SubnetIDs, found.SubnetIDs, diags)
	m.SecurityGroupIDs = keepList(ctx, m.SecurityGroupIDs, found.SecurityGroupIDs, diags)
	m.Reserved = types.Int64Null()
	if found.Reserved != nil {
		m.Reserved = types.Int64Value(int64(*found.Reserved))
	}
}

// check refuses what no function can be.
func (m *functionAWSModel) check(node *nodeModel, diags *diag.Diagnostics) {
	if stated(m.ImageURI) && (stated(node.SourceDir) || stated(node.Package)) {
		diags.AddAttributeError(path.Root("image_uri"), "Two sources",
			"An image brings all its files, and a function takes no package besides it: leave out source_dir and package, or image_uri.")
	}
	if stated(m.SecurityGroupIDs) && m.SubnetIDs.IsNull() {
		diags.AddAttributeError(path.Root("security_group_ids"), "Security groups without subnets",
			"A function has security groups only in a VPC: add subnet_ids, or leave security_group_ids out.")
	}
}

// planFunction plans what a function node on AWS is. Whether it is an image or a zip
// file is settled when it is made.
func (m *functionNodeModel) planFunction(ctx context.Context, old *functionNodeModel, resp *resource.ModifyPlanResponse) {
	m.checkFunctionOnAWS(ctx, &resp.Diagnostics)
	if !old.ID.IsNull() && m.ImageURI.IsNull() != old.ImageURI.IsNull() {
		resp.RequiresReplace = append(resp.RequiresReplace, path.Root("image_uri"))
		m.functionAWSModel.exports(true, nil)
		return
	}
	m.functionAWSModel.exports(true, &old.functionAWSModel)
}

// interfacesTimeout is enough for AWS to remove the network interfaces of a function.
const interfacesTimeout = time.Hour

// deletion gives the removal of a function its time: more in a VPC, unless it says itself.
func (m *functionNodeModel) deletion(ctx context.Context) (context.Context, context.CancelFunc) {
	if own, ok := m.Timeouts.Attributes()[opDelete].(types.String); m.SubnetIDs.IsNull() || ok && !own.IsNull() {
		return within(ctx, m.Timeouts, opDelete)
	}
	return context.WithTimeout(context.WithValue(ctx, limitKey{}, interfacesTimeout), interfacesTimeout)
}
