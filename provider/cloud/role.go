// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// PolicyName is the inline policy of the network's roles.
const PolicyName = "boxer"

// Statement is one of a policy.
type Statement struct {
	Sid      string   `json:"Sid,omitempty"`
	Effect   string   `json:"Effect"`
	Action   []string `json:"Action"`
	Resource []string `json:"Resource"`

	Condition map[string]map[string][]string `json:"Condition,omitempty"`
}

// Document is a policy.
type Document struct {
	Version   string      `json:"Version"`
	Statement []Statement `json:"Statement"`
}

func policy(statements ...Statement) Document {
	return Document{Version: "2012-10-17", Statement: statements}
}

func allow(sid string, actions []string, resources ...string) Statement {
	return Statement{Sid: sid, Effect: "Allow", Action: actions, Resource: resources}
}

// partition of a region, as ARNs begin with it.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// arn of an object in a region and account.
func arn(service, region, account, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", partition(region), service, region, account, resource)
}

// rolePolicy is what nodes of a part may do: what they do, and nothing else. The
// network's guide lists it (docs/aws.md).
func (n *Network) rolePolicy(part, region, account string) Document {
	secret := allow("ReadTheSecret", []string{"ssm:GetParameter"}, arn("ssm", region, account, "parameter"+SecretName(n.Name)))
	// Another version of the same layer is what an upgrade brings.
	layers := allow("FetchTheLayer", []string{"lambda:GetLayerVersion"}, arn("lambda", region, account, "layer:"+n.Prefix+"runtime-*"))
	switch part {
	case PartSeed:
		return policy(secret, layers,
			allow("LaunchFunctions", []string{"lambda:InvokeFunction"}, arn("lambda", region, account, "function:"+n.FunctionPrefix()+"*")))
	case PartVM:
		return policy(secret, layers, // what a node has in /var/task is a layer of its own
			allow("FetchTheContents", []string{"lambda:GetLayerVersion"}, arn("lambda", region, account, "layer:"+n.FunctionPrefix()+"*")))
	default:
		// Lambda attaches a function to a VPC as the function's role; what runs in the
		// function is denied the same, as AWS advises.
		attach := []string{"ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces",
			"ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses"}
		guest := Statement{Sid: "NotForGuests", Effect: "Deny", Action: attach, Resource: []string{"*"}, Condition: map[string]map[string][]string{
			"ArnLike": {"lambda:SourceFunctionArn": {arn("lambda", region, account, "function:"+n.FunctionPrefix()+"*")}}}}
		return policy(secret,
			allow("WriteLogs", []string{"logs:CreateLogStream", "logs:PutLogEvents"}, arn("logs", region, account, "log-group:"+n.LogGroup("*")+":*")),
			allow("AttachToTheVPC", attach, "*"), guest)
	}
}

// parts that have a role, and the service that takes it on.
var rolesOf = []struct{ part, service string }{{PartSeed, "ec2"}, {PartVM, "ec2"}, {PartFunction, "lambda"}}

func trust(service, region string) string {
	domain := ".amazonaws.com"
	if service == "ec2" && partition(region) == "aws-cn" {
		domain = ".amazonaws.com.cn"
	}
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"` + service + domain + `"}}]}`
}

func (c *Client) checkRoles(ctx context.Context, d *Design) ([]step, error) {
	account, err := c.Account(ctx)
	if err != nil {
		return nil, err
	}
	var all []step
	for _, r := range rolesOf {
		steps, err := c.checkRole(ctx, d.Network, r.part, r.service, account)
		if err == nil && r.service == "ec2" {
			var also []step
			also, err = c.checkProfile(ctx, d.Network, r.part)
			steps = append(steps, also...)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, steps...)
	}
	return all, nil
}

func (c *Client) checkRole(ctx context.Context, n *Network, part, service, account string) ([]step, error) {
	name, tags := aws.String(n.RoleName(part)), Tags(n.Name, "", PartRole, n.Tags)
	text, err := json.Marshal(n.rolePolicy(part, c.Region, account))
	if err != nil {
		return nil, err
	}
	put := func(ctx context.Context) error {
		err := c.settled(ctx, func(ctx context.Context) error {
			_, err := c.IAM.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: aws.String(PolicyName), PolicyDocument: aws.String(string(text))})
			return err
		})
		return failed("writing the policy of role", *name, err)
	}
	out, err := c.IAM.GetRole(ctx, &iam.GetRoleInput{RoleName: name})
	if missing(err) {
		return []step{{"role " + *name + " is gone", func(ctx context.Context) error {
			in := &iam.CreateRoleInput{
				RoleName: name, Path: aws.String(n.path()), AssumeRolePolicyDocument: aws.String(trust(service, c.Region)), Tags: iamTags(tags),
				Description: aws.String("Boxer network " + n.Name + ": " + part + " nodes"),
			}
			if n.Boundary != "" {
				in.PermissionsBoundary = aws.String(n.Boundary)
			}
			if _, err := c.IAM.CreateRole(ctx, in); err != nil {
				return failed("making role", *name, err)
			}
			return put(ctx)
		}}}, nil
	}
	if err != nil {
		return nil, failed("looking for role", *name, err)
	}
	has := ofIAM(out.Role.Tags)
	if has[TagNetwork] != n.Name {
		return nil, foreign("IAM role", *name, "delete it", "another name_prefix")
	}
	var steps []step
	add, remove := changes(has, tags)
	if len(add)+len(remove) > 0 {
		steps = append(steps, step{"the tags of role " + *name + " are others", func(ctx context.Context) error {
			var err error
			if len(add) > 0 {
				_, err = c.IAM.TagRole(ctx, &iam.TagRoleInput{RoleName: name, Tags: iamTags(add)})
			}
			if err == nil && len(remove) > 0 {
				_, err = c.IAM.UntagRole(ctx, &iam.UntagRoleInput{RoleName: name, TagKeys: remove})
			}
			return failed("tagging role", *name, err)
		}})
	}
	if !sameJSON(aws.ToString(out.Role.AssumeRolePolicyDocument), trust(service, c.Region)) {
		steps = append(steps, step{"role " + *name + " is for others than " + service, func(ctx context.Context) error {
			_, err := c.IAM.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: aws.String(trust(service, c.Region))})
			return failed("writing who may take on role", *name, err)
		}})
	}
	var boundary string
	if b := out.Role.PermissionsBoundary; b != nil {
		boundary = aws.ToString(b.PermissionsBoundaryArn)
	}
	if boundary != n.Boundary {
		steps = append(steps, step{"the permissions boundary of role " + *name + " is another", func(ctx context.Context) error {
			return c.bound(ctx, *name, n.Boundary)
		}})
	}
	current, err := c.IAM.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: name, PolicyName: aws.String(PolicyName)})
	if err != nil && !missing(err) {
		return nil, failed("reading the policy of role", *name, err)
	}
	if err != nil || !sameJSON(aws.ToString(current.PolicyDocument), string(text)) {
		steps = append(steps, step{"the policy of role " + *name + " is another", put})
	}
	return steps, nil
}

func (c *Client) bound(ctx context.Context, role, boundary string) error {
	var err error
	if boundary == "" {
		_, err = c.IAM.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: aws.String(role)})
	} else {
		_, err = c.IAM.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: aws.String(role), PermissionsBoundary: aws.String(boundary)})
	}
	return failed("setting the permissions boundary of role", role, err)
}

// sameJSON compares documents as IAM gives them back, which is URL-encoded.
func sameJSON(found, want string) bool {
	if text, err := url.PathUnescape(found); err == nil {
		found = text
	}
	var a, b any
	return json.Unmarshal([]byte(found), &a) == nil && json.Unmarshal([]byte(want), &b) == nil && reflect.DeepEqual(a, b)
}

// checkProfile wants an instance profile of the role's name, with the role.
func (c *Client) checkProfile(ctx context.Context, n *Network, part string) ([]step, error) {
	name, tags := aws.String(n.RoleName(part)), Tags(n.Name, "", PartRole, n.Tags)
	join := func(ctx context.Context) error {
		err := c.settled(ctx, func(ctx context.Context) error {
			_, err := c.IAM.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name})
			return err
		})
		return failed("giving its role to instance profile", *name, err)
	}
	out, err := c.IAM.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: name})
	if missing(err) {
		return []step{{"instance profile " + *name + " is gone", func(ctx context.Context) error {
			_, err := c.IAM.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{
				InstanceProfileName: name, Path: aws.String(n.path()), Tags: iamTags(tags)})
			if err != nil {
				return failed("making instance profile", *name, err)
			}
			return join(ctx)
		}}}, nil
	}
	if err != nil {
		return nil, failed("looking for instance profile", *name, err)
	}
	has := ofIAM(out.InstanceProfile.Tags)
	if has[TagNetwork] != n.Name {
		return nil, foreign("instance profile", *name, "delete it", "another name_prefix")
	}
	var steps []step
	if add, remove := changes(has, tags); len(add)+len(remove) > 0 {
		steps = append(steps, step{"the tags of instance profile " + *name + " are others", func(ctx context.Context) error {
			var err error
			if len(add) > 0 {
				_, err = c.IAM.TagInstanceProfile(ctx, &iam.TagInstanceProfileInput{InstanceProfileName: name, Tags: iamTags(add)})
			}
			if err == nil && len(remove) > 0 {
				_, err = c.IAM.UntagInstanceProfile(ctx, &iam.UntagInstanceProfileInput{InstanceProfileName: name, TagKeys: remove})
			}
			return failed("tagging instance profile", *name, err)
		}})
	}
	if len(out.InstanceProfile.Roles) == 0 {
		steps = append(steps, step{"instance profile " + *name + " has no role", join})
	}
	return steps, nil
}
