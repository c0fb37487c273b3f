// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// defaultLogDays is how long logs of functions are kept. Lambda's own default is
// for ever, at the account's cost.
const defaultLogDays = 14

// networkAWSModel is what only networks on aws have.
type networkAWSModel struct {
	VPCID               types.String `tfsdk:"vpc_id"`
	SubnetIDs           types.List   `tfsdk:"subnet_ids"`
	RolePath            types.String `tfsdk:"role_path"`
	PermissionsBoundary types.String `tfsdk:"permissions_boundary"`
	NamePrefix          types.String `tfsdk:"name_prefix"`
	LogRetentionDays    types.Int64  `tfsdk:"log_retention_days"`
}

func networkAWSAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"vpc_id": schema.StringAttribute{
			Optional: true, Computed: true,
			MarkdownDescription: "On `aws`: VPC of the seeds and VM nodes. Default: that of `subnet_ids`, else the account's default VPC.",
			Validators:          []validator.String{awsID("vpc-", "a VPC")},
			PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown(),
				replaceBecause{"seeds and VM nodes cannot move to another VPC"}},
		},
		"subnet_ids": schema.ListAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "On `aws`: subnets for seeds and VM nodes, with a route to an internet gateway; seeds are spread over them. Default: the " +
				"VPC's subnets that give public addresses. A change holds for what is made from then on.",
			Validators: []validator.List{someSubnets{}, listvalidator.UniqueValues(),
				listvalidator.ValueStringsAre(awsID("subnet-", "a subnet"))},
		},
		"role_path": schema.StringAttribute{
			Optional:            true,
			MarkdownDescription: "On `aws`: IAM path of the network's roles and instance profiles, such as `/apps/boxer/`. Default `/`.",
			Validators:          []validator.String{stringCheck{"Invalid role path", "a path that begins and ends with /", checkRolePath}},
			PlanModifiers:       []planmodifier.String{replaceBecause{"a role keeps the path it was made with"}},
		},
		"permissions_boundary": schema.StringAttribute{
			Optional:            true,
			MarkdownDescription: "On `aws`: ARN of the policy that bounds what the network's roles may do.",
			Validators: []validator.String{stringCheck{"Invalid permissions boundary", "the ARN of a policy", func(text string) error {
				if !policyARN.MatchString(text) {
					return fmt.Errorf("%q is not the ARN of a policy: write one such as arn:aws:iam::123456789012:policy/boundary", text)
				}
				return nil
			}}},
		},
		"name_prefix": schema.StringAttribute{
			Optional: true, Computed: true,
			MarkdownDescription: "On `aws`: beginning of the names of roles, security group, functions and layers. Default `" + cloud.DefaultPrefix + "`. Roles have " +
				"names of 64 characters at most, with the region: with this, a network's name has 40 in the longest one.",
			Validators: []validator.String{stringCheck{"Invalid name prefix", "letters, digits and dashes", checkNamePrefix}},
			PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown(),
				replaceBecause{"roles, groups and functions keep the names they were made with"}},
		},
		"log_retention_days": schema.Int64Attribute{
			Optional: true, Computed: true,
			MarkdownDescription: fmt.Sprintf("On `aws`: how long the logs of functions are kept, in days; 0: for ever. Default `%d`. A change holds for the "+
				"functions that are made or changed from then on.", defaultLogDays),
			Validators: []validator.Int64{int64validator.OneOf(0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192,
				2557, 2922, 3288, 3653)},
			PlanModifiers: []planmodifier.Int64{int64planmodifier.UseStateForUnknown()},
		},
	}
}

// maxSubnets is more than a region has zones.
const maxSubnets = 16

// someSubnets bounds how many there are.
type someSubnets struct{}

func (someSubnets) Description(context.Context) string {
	return fmt.Sprintf("1 to %d subnets", maxSubnets)
}

func (v someSubnets) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (someSubnets) ValidateList(_ context.Context, req validator.ListRequest, resp *validator.ListResponse) {
	if n := len(req.ConfigValue.Elements()); !req.ConfigValue.IsNull() && !req.ConfigValue.IsUnknown() && (n < 1 || n > maxSubnets) {
		resp.Diagnostics.AddAttributeError(req.Path, "Wrong number of subnets",
			fmt.Sprintf("%d subnets: name 1 to %d of them, or leave the attribute out.", n, maxSubnets))
	}
}

var (
	policyARN = regexp.MustCompile(`^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$`)
	rolePath  = regexp.MustCompile(`^/([!-~]+/)*$`)
	prefix    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)
)

func checkRolePath(text string) error {
	if !rolePath.MatchString(text) || len(text) > 512 {
		return fmt.Errorf("%q is no IAM path: use one that begins and ends with a slash, as in /apps/boxer/", text)
	}
	return nil
}

func checkNamePrefix(text string) error {
	switch {
	case !prefix.MatchString(text):
		return fmt.Errorf("%q: use letters, digits and dashes, and begin with a letter, as in team-", text)
	case len(text) > 20:
		return fmt.Errorf("%q has %d characters: use at most 20, for names of functions are bounded", text, len(text))
	case strings.HasPrefix(text, "sg-"):
		return fmt.Errorf("%q: names of security groups cannot begin with sg-", text)
	}
	return nil
}

func awsID(prefix, what string) validator.String {
	return stringCheck{"Invalid id", "the id of " + what, idCheck(prefix, what, prefix+"0123456789abcdef0")}
}

// longestRegion stands for one that is not known yet.
const longestRegion = "ap-southeast-1"

// checkRoleNames refuses a network whose roles would have too long names. One that there
// is has its roles: an earlier version gave them shorter names.
func (m *networkModel) checkRoleNames(had *networkModel, p platform, diags *diag.Diagnostics) {
	if m.NamePrefix.IsUnknown() || m.Name.IsUnknown() || m.Name.Equal(had.Name) && m.NamePrefix.Equal(had.NamePrefix) {
		return
	}
	n := cloud.Network{Name: m.Name.ValueString(), Prefix: m.NamePrefix.ValueString(), Region: longestRegion}
	if aws, ok := settingsOf(p).platform.(*awsPlatform); ok {
		n.Region = cmp.Or(aws.cloud.Region, n.Region)
	}
	if name := n.RoleName(cloud.PartFunction); len(name) > maxRoleName {
		diags.AddAttributeError(path.Root("name"), "Name too long for AWS",
			fmt.Sprintf("A role such as %s would have %d characters, and IAM takes %d: choose a shorter name or name_prefix.", name, len(name), maxRoleName))
	}
}

// maxRoleName is how long IAM lets the name of a role be.
const maxRoleName = 64

// planAWS fills in what aws has by default, and refuses what the platform lacks. had is
// what there is of the network, if anything.
func (m *networkModel) planAWS(configured, had *networkModel, p platform, diags *diag.Diagnostics) {
	if !onAWS(p) {
		onlyAWS(map[string]bool{
			"vpc_id": !configured.VPCID.IsNull(), "subnet_ids": !configured.SubnetIDs.IsNull(), "role_path": !configured.RolePath.IsNull(),
			"permissions_boundary": !configured.PermissionsBoundary.IsNull(), "name_prefix": !configured.NamePrefix.IsNull(),
			"log_retention_days": !configured.LogRetentionDays.IsNull(),
		}, diags)
		m.VPCID, m.NamePrefix, m.LogRetentionDays = types.StringNull(), types.StringNull(), types.Int64Null()
		m.Seed = planSeed(configured.Seed, "", diags)
		return
	}
	if configured.NamePrefix.IsNull() {
		m.NamePrefix = types.StringValue(cloud.DefaultPrefix)
	}
	if configured.LogRetentionDays.IsNull() {
		m.LogRetentionDays = types.Int64Value(defaultLogDays)
	}
	m.Seed = planSeed(configured.Seed, cloud.DefaultSeedType, diags)
	m.checkRoleNames(had, p, diags)
	if port := m.Port.ValueInt64(); !m.Port.IsNull() && !m.Port.IsUnknown() && (port < 1024 || port == 9001 || port == 3000) {
		diags.AddAttributeError(path.Root("port"), "Port that functions cannot have",
			fmt.Sprintf("The supervisor of a function listens on the overlay port too, and Lambda lets nobody have %d (those below 1024, 3000 and 9001): "+
				"choose another, or leave it out for %d.", port, config.DefaultPort))
	}
	checkAWSTags(m.TagsAll, diags)
}

// tagKey: the metadata of an instance has its tags, each under a path of its key.
var tagKey = regexp.MustCompile(`^[A-Za-z0-9+\-=.,_:@]+$`)

// checkAWSTags refuses tags that some object of a network on aws cannot have.
func checkAWSTags(tags types.Map, diags *diag.Diagnostics) {
	if tags.IsUnknown() {
		return
	}
	checkTags(tags, cloud.MaxTags, diags)
	for key := range stringsOf(tags) {
		if !tagKey.MatchString(key) || strings.HasPrefix(key, "boxer:") || key == "Name" || key == "." || key == ".." || key == "_index" {
			diags.AddAttributeError(path.Root("tags"), "Invalid tag for AWS",
				fmt.Sprintf("Key %q: on aws use letters, digits and + - = . , _ : @ only (instances see their tags as paths); Name and boxer:... are Boxer's own.", key))
		}
	}
}

// checkNodeTags is checkTags for nodes, whose own tags tell what they are.
func checkNodeTags(tags types.Map, most int, diags *diag.Diagnostics) {
	checkTags(tags, most, diags)
	for key := range tags.Elements() {
		if strings.HasPrefix(key, "boxer:") {
			diags.AddAttributeError(path.Root("tags"), "Invalid tag for AWS", fmt.Sprintf("Key %q: boxer:... are Boxer's own: choose another.", key))
		}
	}
}

// tagText is what roles, parameters and functions take; EC2 takes more.
var tagText = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+@-]*$`)

// checkTags refuses tags that AWS would refuse at apply, when half is made.
func checkTags(tags types.Map, most int, diags *diag.Diagnostics) {
	if n := len(tags.Elements()); n > most {
		diags.AddAttributeError(path.Root("tags"), "Too many tags",
			fmt.Sprintf("%d tags with those of default_tags are more than the %d that AWS leaves beside Boxer's own: remove some.", n, most))
	}
	for key, value := range stringsOf(tags) {
		var problem string
		switch {
		case !tagText.MatchString(key) || !tagText.MatchString(value):
			problem = "tags on aws hold letters, digits, blanks and _ . : / = + - @ only"
		case utf8.RuneCountInString(key) > 128 || utf8.RuneCountInString(value) > 256:
			problem = "a key has 128 characters at most, a value 256"
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			problem = "aws: is the beginning of AWS' own"
		default:
			continue
		}
		diags.AddAttributeError(path.Root("tags"), "Tag that AWS does not take", fmt.Sprintf("%q = %q: %s: choose another.", key, value, problem))
	}
}

func (m *networkModel) awsSpec(ctx context.Context, diags *diag.Diagnostics) awsNetwork {
	seed := seedOf(ctx, m.Seed, diags)
	return awsNetwork{
		VPC: m.VPCID.ValueString(), Subnets: stringList(ctx, m.SubnetIDs, diags), RolePath: m.RolePath.ValueString(),
		PermissionsBoundary: m.PermissionsBoundary.ValueString(), NamePrefix: m.NamePrefix.ValueString(),
		LogRetentionDays: int(m.LogRetentionDays.ValueInt64()),
		SeedInstanceType: seed.InstanceType.ValueString(), SeedSubnet: seed.SubnetID.ValueString(),
		SeedIngress: stringList(ctx, seed.IngressCIDRs, diags),
	}
}

// readAWS takes over what AWS says of the network.
func (m *networkModel) readAWS(ctx context.Context, aws bool, found awsNetwork, diags *diag.Diagnostics) {
	if !aws {
		m.VPCID, m.RolePath, m.PermissionsBoundary, m.NamePrefix = types.StringNull(), types.StringNull(), types.StringNull(), types.StringNull()
		m.SubnetIDs, m.LogRetentionDays = types.ListNull(types.StringType), types.Int64Null()
		return
	}
	m.VPCID, m.NamePrefix = types.StringValue(found.VPC), types.StringValue(found.NamePrefix)
	m.RolePath, m.PermissionsBoundary = optionalString(found.RolePath), optionalString(found.PermissionsBoundary)
	m.LogRetentionDays = types.Int64Value(int64(found.LogRetentionDays))
	m.SubnetIDs = keepList(ctx, m.SubnetIDs, found.Subnets, diags)
}

func optionalString(text string) types.String {
	if text == "" {
		return types.StringNull()
	}
	return types.StringValue(text)
}

// driftKey is where private state keeps what was changed by hand.
const driftKey = "drift"

// noteDrift keeps what reading a network found changed, for the plan to propose to
// put it right.
func noteDrift(ctx context.Context, private privateWriter, found []string) diag.Diagnostics {
	value, err := json.Marshal(found)
	if err != nil {
		return diag.Diagnostics{diag.NewErrorDiagnostic("Noting what was changed", detail(err))}
	}
	return private.SetKey(ctx, driftKey, value)
}

func notedDrift(ctx context.Context, private privateReader) (found []string) {
	if value, _ := private.GetKey(ctx, driftKey); value != nil {
		_ = json.Unmarshal(value, &found)
	}
	return found
}

// upgradeKey is where private state keeps the version that an upgrade which did not end
// was to.
const upgradeKey = "upgrading"

func noteUpgrade(ctx context.Context, private privateWriter, to string) diag.Diagnostics {
	value, err := json.Marshal(to)
	if err != nil {
		return diag.Diagnostics{diag.NewErrorDiagnostic("Noting an upgrade", detail(err))}
	}
	return private.SetKey(ctx, upgradeKey, value)
}

func notedUpgrade(ctx context.Context, private privateReader) (to string) {
	if value, _ := private.GetKey(ctx, upgradeKey); value != nil {
		_ = json.Unmarshal(value, &to)
	}
	return to
}

// planDrift proposes an update where something was changed by hand. A seed that
// comes back has its address, so only AWS can say whether endpoints stay.
func (m *networkModel) planDrift(found []string, diags *diag.Diagnostics) {
	if len(found) == 0 {
		return
	}
	m.SeedEndpoints, m.LayerARNs = types.ListUnknown(types.StringType), types.ListUnknown(types.StringType)
	diags.AddWarning(fmt.Sprintf("%s (%s) was changed outside of Terraform", networkKind, m.Name.ValueString()),
		"Apply puts right:\n    "+strings.Join(found, "\n    "))
}
