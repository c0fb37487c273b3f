// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/boxer-overlay/boxer/provider/cloud"
)

// vmAWSModel are the attributes of a VM node that only AWS has.
type vmAWSModel struct {
	ImageID          types.String `tfsdk:"image_id"`
	InstanceType     types.String `tfsdk:"instance_type"`
	Architecture     types.String `tfsdk:"architecture"`
	SubnetID         types.String `tfsdk:"subnet_id"`
	Spot             types.Bool   `tfsdk:"spot"`
	RootVolume       types.Object `tfsdk:"root_volume"`
	KeyName          types.String `tfsdk:"key_name"`
	InstanceProfile  types.String `tfsdk:"instance_profile"`
	SecurityGroupIDs types.List   `tfsdk:"security_group_ids"`
	UserData         types.String `tfsdk:"user_data"`
	InstanceID       types.String `tfsdk:"instance_id"`
	PrivateIP        types.String `tfsdk:"private_ip"`
	PublicIP         types.String `tfsdk:"public_ip"`
	UserDataSize     types.Int64  `tfsdk:"user_data_size"`
}

var volumeTypes = map[string]attr.Type{
	"size": types.Int64Type, "type": types.StringType, "iops": types.Int64Type, "encrypted": types.BoolType,
}

func vmAWSAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"image_id": schema.StringAttribute{
			Optional: true, Computed: true,
			MarkdownDescription: "AWS: the AMI, one with cloud-init and systemd. Default: the newest Amazon Linux 2023 of the architecture when the node is made; " +
				"it stays so. A change replaces the instance.",
			Validators: []validator.String{stringCheck{"Invalid image", "the id of an AMI", idCheck("ami-", "an AMI", "ami-0123456789abcdef0")}},
		},
		"instance_type": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "AWS: the type of the instance. Default `" + defaultInstanceX86 + "`, or `" + defaultInstanceARM + "` with `architecture = \"arm64\"`. " +
				"A change replaces the instance.",
			Validators: []validator.String{stringCheck{"Invalid instance type", "an instance type such as t3.micro", checkInstanceType}},
		},
		"architecture": architectureAttribute("AWS: `amd64` or `arm64`. Default: that of `instance_type`. A change replaces the instance."),
		"subnet_id": schema.StringAttribute{
			Optional:            true,
			MarkdownDescription: "AWS: the subnet of the instance. Default: one of the network's. A change replaces the instance.",
			Validators:          []validator.String{validSubnet()},
		},
		"spot": schema.BoolAttribute{
			Optional:            true,
			MarkdownDescription: "AWS: a spot instance, which AWS may end at any time. Default `false`. A change replaces the instance.",
		},
		"root_volume": schema.SingleNestedAttribute{
			Optional:            true,
			MarkdownDescription: "AWS: the instance's disk, which goes with the instance. A change replaces the instance.",
			Attributes: map[string]schema.Attribute{
				"size": schema.Int64Attribute{
					Optional: true, MarkdownDescription: "GiB, 1 to 65536. Default: the image's.",
					Validators: []validator.Int64{int64validator.Between(1, 65536)},
				},
				"type": schema.StringAttribute{
					Optional: true, MarkdownDescription: "`gp3` (the default), `gp2`, `io1` or `io2`.",
					Validators: []validator.String{stringvalidator.OneOf("gp3", "gp2", "io1", "io2")},
				},
				"iops": schema.Int64Attribute{
					Optional: true, MarkdownDescription: "Operations per second, 100 to 256000, of `gp3`, `io1` and `io2`. Default: the type's.",
					Validators: []validator.Int64{int64validator.Between(100, 256000)},
				},
				"encrypted": schema.BoolAttribute{Optional: true, MarkdownDescription: "Default `true`."},
			},
		},
		"key_name": schema.StringAttribute{
			Optional:            true,
			MarkdownDescription: "AWS: a key pair to log in with. Default: nobody can log in. A change replaces the instance.",
		},
		"instance_profile": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "AWS: name of the instance profile to run with, instead of the network's own for VM nodes. Its role needs that one's rights, and " +
				"may have more for the program. A change replaces the instance.",
			Validators: []validator.String{stringCheck{"Invalid instance profile", "the name of an instance profile", checkInstanceProfile}},
		},
		"security_group_ids": schema.ListAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "AWS: security groups besides the network's own. Changed in place.",
			Validators:          []validator.List{listvalidator.ValueStringsAre(validGroup())},
		},
		"user_data": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "AWS: a script (`#!/bin/sh`) or configuration (`#cloud-config`) that cloud-init runs before Boxer's own part, to install what the " +
				"command needs. Anybody who may describe the instance can read it: no secrets. It runs at the first boot only, so a change replaces the instance.",
			Validators: []validator.String{stringCheck{"Invalid user data", "a script or a cloud-config", checkUserData}},
		},
		"instance_id": exported("AWS: the instance."),
		"private_ip":  exported("AWS: the instance's address in its subnet."),
		"public_ip":   exported("AWS: the instance's public address, null without one."),
		"user_data_size": schema.Int64Attribute{
			Computed: true,
			MarkdownDescription: "AWS: how many of the 16384 bytes that EC2 takes the user-data has, compressed: as measured at plan, before ids and tokens " +
				"of the same length are known.",
		},
	}
}

func exported(description string) schema.Attribute {
	return schema.StringAttribute{Computed: true, MarkdownDescription: description}
}

func architectureAttribute(description string) schema.Attribute {
	return schema.StringAttribute{
		Optional: true, MarkdownDescription: description,
		Validators: []validator.String{stringvalidator.OneOf(archX86, archARM)},
	}
}

func validSubnet() validator.String {
	return stringCheck{"Invalid subnet", "the id of a subnet", idCheck("subnet-", "a subnet", "subnet-0123456789abcdef0")}
}

func validGroup() validator.String {
	return stringCheck{"Invalid security group", "the id of a security group", idCheck("sg-", "a security group", "sg-0123456789abcdef0")}
}

// spec turns the attributes into what the platform understands.
func (m *vmAWSModel) spec(ctx context.Context, diags *diag.Diagnostics) awsNode {
	a := awsNode{
		ImageID: m.ImageID.ValueString(), InstanceType: m.InstanceType.ValueString(), Architecture: m.Architecture.ValueString(),
		SubnetID: m.SubnetID.ValueString(), Spot: m.Spot.ValueBool(), KeyName: m.KeyName.ValueString(), UserData: m.UserData.ValueString(),
		InstanceProfile:  m.InstanceProfile.ValueString(),
		SecurityGroupIDs: stringList(ctx, m.SecurityGroupIDs, diags),
	}
	if m.RootVolume.IsNull() || m.RootVolume.IsUnknown() {
		return a
	}
	var volume struct {
		Size      types.Int64  `tfsdk:"size"`
		Type      types.String `tfsdk:"type"`
		IOPS      types.Int64  `tfsdk:"iops"`
		Encrypted types.Bool   `tfsdk:"encrypted"`
	}
	diags.Append(m.RootVolume.As(ctx, &volume, basetypes.ObjectAsOptions{})...)
	a.RootVolume = &awsVolume{
		SizeGB: int32(volume.Size.ValueInt64()), IOPS: int32(volume.IOPS.ValueInt64()),
		Type: volume.Type.ValueString(), Encrypted: volume.Encrypted.IsNull() || volume.Encrypted.ValueBool(),
	}
	return a
}

// replaced are the attributes that another instance is needed for, as they are in m.
func (m *vmAWSModel) replaced() map[string]attr.Value {
	return map[string]attr.Value{
		"image_id": m.ImageID, "instance_type": m.InstanceType, "architecture": m.Architecture, "subnet_id": m.SubnetID,
		"spot": m.Spot, "root_volume": m.RootVolume, "key_name": m.KeyName, "instance_profile": m.InstanceProfile,
		"user_data": m.UserData,
	}
}

func (m *vmAWSModel) architecture(ctx context.Context) string {
	var ignored diag.Diagnostics // an element that is not known yet
	return m.spec(ctx, &ignored).architecture()
}

// imageMoves: an image that nobody named is of another architecture, or may be.
func (m *vmAWSModel) imageMoves(ctx context.Context, old *vmAWSModel, seen seenInstance) bool {
	if m.Architecture.IsUnknown() || m.Architecture.IsNull() && m.InstanceType.IsUnknown() {
		return true
	}
	arch := m.architecture(ctx)
	return arch != old.architecture(ctx) && !seen.has("architecture", types.StringValue(arch))
}

// onlyAWS refuses what is set where there are no instances.
func (m *vmAWSModel) onlyAWS(diags *diag.Diagnostics) {
	given := map[string]bool{"security_group_ids": !m.SecurityGroupIDs.IsNull()}
	for name, value := range m.replaced() {
		given[name] = !value.IsNull() && !value.IsUnknown()
	}
	onlyAWS(given, diags)
}

// exports leaves what the platform tells to apply; elsewhere there is nothing to tell.
func (m *vmAWSModel) exports(aws bool, old *vmAWSModel) {
	switch {
	case !aws:
		m.ImageID, m.InstanceID, m.PrivateIP, m.PublicIP = types.StringNull(), types.StringNull(), types.StringNull(), types.StringNull()
		m.UserDataSize = types.Int64Null()
	case old == nil:
		m.InstanceID, m.PrivateIP, m.PublicIP = types.StringUnknown(), types.StringUnknown(), types.StringUnknown()
	default:
		m.InstanceID, m.PrivateIP, m.PublicIP = old.InstanceID, old.PrivateIP, old.PublicIP
	}
}

// read takes over what the platform knows of the instance and how it was made.
func (m *vmAWSModel) read(ctx context.Context, found awsNode, at *awsVM, diags *diag.Diagnostics) {
	if at == nil {
		m.exports(false, nil)
		return
	}
	known := m.spec(ctx, diags)
	m.InstanceID, m.PrivateIP, m.PublicIP = orNull(at.InstanceID), orNull(at.PrivateIP), orNull(at.PublicIP)
	m.ImageID = orNull(cmp.Or(at.ImageID, found.ImageID))
	if at.Unrecorded {
		return // an instance is not replaced because a record is lost
	}
	if known.instanceType() != found.instanceType() {
		m.InstanceType = orNull(found.InstanceType)
	}
	if known.architecture() != found.architecture() {
		m.Architecture = orNull(found.Architecture)
	}
	m.SubnetID, m.KeyName = orNull(found.SubnetID), orNull(found.KeyName)
	m.UserData, m.InstanceProfile = orNull(found.UserData), orNull(found.InstanceProfile)
	if found.Spot != m.Spot.ValueBool() {
		m.Spot = types.BoolValue(found.Spot)
	}
	m.SecurityGroupIDs = keepList(ctx, m.SecurityGroupIDs, found.SecurityGroupIDs, diags)
	m.readVolume(known.RootVolume, found.RootVolume)
}

func (m *vmAWSModel) readVolume(known, found *awsVolume) {
	switch {
	case found == nil && known == nil, found != nil && known != nil && *found == *known:
		return
	case found == nil:
		m.RootVolume = types.ObjectNull(volumeTypes)
		return
	}
	number := func(n int32) types.Int64 {
		if n == 0 {
			return types.Int64Null()
		}
		return types.Int64Value(int64(n))
	}
	encrypted := types.BoolNull()
	if !found.Encrypted {
		encrypted = types.BoolValue(false)
	}
	m.RootVolume = types.ObjectValueMust(volumeTypes, map[string]attr.Value{
		"size": number(found.SizeGB), "iops": number(found.IOPS), "type": orNull(found.Type), "encrypted": encrypted,
	})
}

// checkVM refuses what no instance can be.
func (m *vmAWSModel) checkVM(ctx context.Context, diags *diag.Diagnostics) {
	var ignored diag.Diagnostics
	a := m.spec(ctx, &ignored)
	if !m.Architecture.IsUnknown() && !m.InstanceType.IsUnknown() {
		if err := a.checkArchitecture(); err != nil {
			diags.AddAttributeError(path.Root("architecture"), "Architecture and instance type differ", sentence(err.Error()))
		}
	}
	if v := a.RootVolume; v != nil && v.Type == "gp2" && v.IOPS != 0 {
		diags.AddAttributeError(path.Root("root_volume").AtName("iops"), "iops of a gp2 volume",
			"The size of a gp2 volume decides how many operations it does: leave iops out, or choose gp3, io1 or io2.")
	}
	if v := a.RootVolume; v != nil && (v.Type == "gp3" || v.Type == "") && v.IOPS != 0 && v.IOPS < 3000 {
		diags.AddAttributeError(path.Root("root_volume").AtName("iops"), "Too few iops of a gp3 volume",
			"A gp3 volume does 3000 operations per second at no extra cost, and EC2 takes no fewer: leave iops out, or ask for more.")
	}
	if v := a.RootVolume; v != nil && (v.Type == "io1" || v.Type == "io2") && v.IOPS == 0 && !m.RootVolume.IsUnknown() {
		if iops, ok := m.RootVolume.Attributes()["iops"]; ok && iops.IsNull() {
			diags.AddAttributeError(path.Root("root_volume").AtName("iops"), "No iops of an "+v.Type+" volume",
				"A volume of this type needs to be told how many operations it shall do: add iops, or choose gp3.")
		}
	}
}

// checkInstanceTag: the instance reads its own tags from its metadata, which takes
// fewer characters than tags have elsewhere.
func checkInstanceTag(key string) error {
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-=.,_:@") != "" || key == "." || key == ".." || key == "_index" {
		return fmt.Errorf("key %q: the keys of an instance's tags hold letters, digits and + - = . , _ : @ only, so that it can read them: choose another key", key)
	}
	return nil
}

// planInstance plans what a VM node on AWS is, and whether another instance is needed.
// image is the one that is configured, seen what is known instead of a lost record.
func (m *vmNodeModel) planInstance(ctx context.Context, old *vmNodeModel, image types.String, seen seenInstance, resp *resource.ModifyPlanResponse) {
	diags := &resp.Diagnostics
	m.checkVM(ctx, diags)
	checkNodeTags(m.TagsAll, cloud.MaxTags, diags)
	for key := range m.TagsAll.Elements() {
		if err := checkInstanceTag(key); err != nil {
			diags.AddAttributeError(path.Root("tags"), "Tag that an instance cannot have", sentence(err.Error()))
		}
	}
	m.planUserData(ctx, diags)
	var ignored diag.Diagnostics // an element that is not known yet
	if spec := m.spec(ctx, &ignored); !ignored.HasError() && len(spec.Command) > 0 {
		m.checkCode(spec, diags)
	}
	if old == nil {
		m.exports(true, nil)
		return
	}
	m.exports(true, &old.vmAWSModel)
	if image.IsNull() { // what the node has stays, where it boots
		m.ImageID = old.ImageID
		if m.imageMoves(ctx, &old.vmAWSModel, seen) {
			m.ImageID = types.StringUnknown()
		}
	}
	before := old.replaced()
	replaced := false
	for name, planned := range m.replaced() {
		if planned.Equal(before[name]) || name == "spot" && m.Spot.ValueBool() == old.Spot.ValueBool() && !m.Spot.IsUnknown() {
			continue
		}
		if before[name].IsNull() && seen.has(name, planned) {
			continue // it is so; the update writes the record
		}
		replaced = true
		resp.RequiresReplace = append(resp.RequiresReplace, path.Root(name))
	}
	if !m.CodeSHA256.Equal(old.CodeSHA256) {
		replaced = true
		resp.RequiresReplace = append(resp.RequiresReplace, path.Root("code_sha256"))
		at, _ := m.source()
		diags.AddAttributeWarning(at, "Other contents of /var/task replace the instance",
			"An instance fetches them when it boots first, so another one takes over the name and the overlay address. The guest's own files go with the old one.")
	}
	if replaced {
		if m.ImageID.Equal(old.ImageID) && old.ImageID.IsNull() {
			m.ImageID = types.StringUnknown()
		}
		m.exports(true, nil)
	} else if !old.UserDataSize.IsNull() { // an instance keeps what it booted with
		m.UserDataSize = old.UserDataSize
	}
}
