// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// Object is something that exists in the account.
type Object struct {
	Kind string // instance, address, group, role, profile, policy, parameter, function, loggroup, layer, ...
	Name string // or its id
	Tags map[string]string
}

func (o Object) String() string { return o.Kind + " " + o.Name }

// Config is for clients of this account. Their calls are not among Calls, and no fault
// strikes them.
func (a *AWS) Config() aws.Config {
	return aws.Config{
		Region: Region, BaseEndpoint: aws.String(a.moto.String()), RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIAEMULATED00000000", SecretAccessKey: "emulated"}, nil
		}),
	}
}

// Forget has Objects leave out what exists now: what a test made itself.
func (a *AWS) Forget() {
	a.t.Helper()
	a.mu.Lock()
	a.baseline = nil
	a.mu.Unlock()
	known := map[string]bool{}
	for _, o := range a.Objects() {
		known[o.String()] = true
	}
	a.mu.Lock()
	a.baseline = known
	a.mu.Unlock()
}

// Leftovers is what was made and still exists, layers apart; whose network it is of, and
// whether it has tags, does not matter.
func (a *AWS) Leftovers() []string {
	a.t.Helper()
	var left []string
	for _, o := range a.Objects() {
		if o.Kind != "layer" {
			left = append(left, o.String())
		}
	}
	return left
}

// Objects is everything that was made and still exists.
func (a *AWS) Objects() []Object {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all []Object
	for _, list := range []func(context.Context, aws.Config) ([]Object, error){
		instances, addresses, groups, volumes, networkParts, roles, profiles, policies, parameters, functions, layers, logGroups,
	} {
		found, err := list(ctx, a.Config())
		for range 2 { // an answer that broke off is asked for again
			if err != nil && ctx.Err() == nil {
				found, err = list(ctx, a.Config())
			}
		}
		if err != nil {
			a.t.Fatalf("emulator: list what exists: %v", err)
		}
		all = append(all, found...)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(all, func(o Object) bool { return a.baseline[o.String()] })
}

func ec2Tags(tags []ec2types.Tag) map[string]string {
	found := map[string]string{}
	for _, tag := range tags {
		found[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	return found
}

func instances(ctx context.Context, c aws.Config) (all []Object, err error) {
	out, err := ec2.NewFromConfig(c).DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	if err != nil {
		return nil, err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if i.State != nil && i.State.Name != ec2types.InstanceStateNameTerminated {
				all = append(all, Object{"instance", aws.ToString(i.InstanceId), ec2Tags(i.Tags)})
			}
		}
	}
	return all, nil
}

func addresses(ctx context.Context, c aws.Config) (all []Object, err error) {
	out, err := ec2.NewFromConfig(c).DescribeAddresses(ctx, &ec2.DescribeAddressesInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range out.Addresses {
		all = append(all, Object{"address", aws.ToString(one.PublicIp), ec2Tags(one.Tags)})
	}
	return all, nil
}

func groups(ctx context.Context, c aws.Config) (all []Object, err error) {
	out, err := ec2.NewFromConfig(c).DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range out.SecurityGroups {
		all = append(all, Object{"group", aws.ToString(one.GroupName) + " " + aws.ToString(one.GroupId), ec2Tags(one.Tags)})
	}
	return all, nil
}

func volumes(ctx context.Context, c aws.Config) (all []Object, err error) {
	out, err := ec2.NewFromConfig(c).DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range out.Volumes {
		all = append(all, Object{"volume", aws.ToString(one.VolumeId), ec2Tags(one.Tags)})
	}
	return all, nil
}

// networkParts are what a network of Boxer's never makes, or only as part of an instance.
func networkParts(ctx context.Context, c aws.Config) (all []Object, err error) {
	client := ec2.NewFromConfig(c)
	vpcs, err := client.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range vpcs.Vpcs {
		all = append(all, Object{"vpc", aws.ToString(one.VpcId), ec2Tags(one.Tags)})
	}
	subnets, err := client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range subnets.Subnets {
		all = append(all, Object{"subnet", aws.ToString(one.SubnetId), ec2Tags(one.Tags)})
	}
	templates, err := client.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range templates.LaunchTemplates {
		all = append(all, Object{"template", aws.ToString(one.LaunchTemplateName), ec2Tags(one.Tags)})
	}
	return all, nil
}

func iamTags(tags []iamtypes.Tag) map[string]string {
	found := map[string]string{}
	for _, tag := range tags {
		found[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	return found
}

func roles(ctx context.Context, c aws.Config) (all []Object, err error) {
	client := iam.NewFromConfig(c)
	out, err := client.ListRoles(ctx, &iam.ListRolesInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range out.Roles {
		tags, err := client.ListRoleTags(ctx, &iam.ListRoleTagsInput{RoleName: one.RoleName})
		if err != nil {
			return nil, err
		}
		all = append(all, Object{"role", aws.ToString(one.RoleName), iamTags(tags.Tags)})
	}
	return all, nil
}

func profiles(ctx context.Context, c aws.Config) (all []Object, err error) {
	client := iam.NewFromConfig(c)
	out, err := client.ListInstanceProfiles(ctx, &iam.ListInstanceProfilesInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range out.InstanceProfiles {
		all = append(all, Object{"profile", aws.ToString(one.InstanceProfileName), iamTags(one.Tags)})
	}
	return all, nil
}

func policies(ctx context.Context, c aws.Config) (all []Object, err error) {
	out, err := iam.NewFromConfig(c).ListPolicies(ctx, &iam.ListPoliciesInput{Scope: iamtypes.PolicyScopeTypeLocal})
	if err != nil {
		return nil, err
	}
	for _, one := range out.Policies {
		all = append(all, Object{"policy", aws.ToString(one.PolicyName), iamTags(one.Tags)})
	}
	return all, nil
}

func parameters(ctx context.Context, c aws.Config) (all []Object, err error) {
	client := ssm.NewFromConfig(c)
	for pages := ssm.NewDescribeParametersPaginator(client, &ssm.DescribeParametersInput{}); pages.HasMorePages(); {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, one := range out.Parameters {
			name := aws.ToString(one.Name)
			if strings.HasPrefix(name, "/aws/") { // AWS's own
				continue
			}
			tags, err := client.ListTagsForResource(ctx, &ssm.ListTagsForResourceInput{
				ResourceId: &name, ResourceType: ssmtypes.ResourceTypeForTaggingParameter})
			if err != nil {
				return nil, err
			}
			found := map[string]string{}
			for _, tag := range tags.TagList {
				found[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
			}
			all = append(all, Object{"parameter", name, found})
		}
	}
	return all, nil
}

func functions(ctx context.Context, c aws.Config) (all []Object, err error) {
	client := lambda.NewFromConfig(c)
	out, err := client.ListFunctions(ctx, &lambda.ListFunctionsInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range out.Functions {
		tags, err := client.ListTags(ctx, &lambda.ListTagsInput{Resource: one.FunctionArn})
		if err != nil {
			return nil, err
		}
		all = append(all, Object{"function", aws.ToString(one.FunctionName), tags.Tags})
	}
	return all, nil
}

// layers have no tags on AWS.
func layers(ctx context.Context, c aws.Config) (all []Object, err error) {
	client := lambda.NewFromConfig(c)
	out, err := client.ListLayers(ctx, &lambda.ListLayersInput{})
	if err != nil {
		return nil, err
	}
	for _, layer := range out.Layers {
		versions, err := client.ListLayerVersions(ctx, &lambda.ListLayerVersionsInput{LayerName: layer.LayerName})
		if err != nil {
			return nil, err
		}
		for _, v := range versions.LayerVersions {
			all = append(all, Object{"layer", fmt.Sprintf("%s:%d", aws.ToString(layer.LayerName), v.Version), nil})
		}
	}
	return all, nil
}

func logGroups(ctx context.Context, c aws.Config) (all []Object, err error) {
	client := cloudwatchlogs.NewFromConfig(c)
	out, err := client.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{})
	if err != nil {
		return nil, err
	}
	for _, one := range out.LogGroups {
		arn := strings.TrimSuffix(aws.ToString(one.Arn), ":*")
		tags, err := client.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: &arn})
		if err != nil {
			return nil, err
		}
		all = append(all, Object{"loggroup", aws.ToString(one.LogGroupName), maps.Clone(tags.Tags)})
	}
	return all, nil
}
