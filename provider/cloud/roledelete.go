// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

func (c *Client) deleteRoles(ctx context.Context, n *Network) error {
	for _, r := range rolesOf {
		if r.service == "ec2" {
			if err := c.deleteProfile(ctx, n, n.RoleName(r.part)); err != nil {
				return err
			}
		}
		if err := c.deleteRole(ctx, n, n.RoleName(r.part)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) deleteProfile(ctx context.Context, n *Network, name string) error {
	profile := aws.String(name)
	out, err := c.IAM.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: profile})
	if missing(err) || err == nil && ofIAM(out.InstanceProfile.Tags)[TagNetwork] != n.Name {
		return nil
	}
	if err != nil {
		return failed("looking for instance profile", name, err)
	}
	for _, role := range out.InstanceProfile.Roles {
		_, err := c.IAM.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: profile, RoleName: role.RoleName})
		if err != nil && !missing(err) {
			return failed("taking its role from instance profile", name, err)
		}
	}
	_, err = c.IAM.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: profile})
	if missing(err) {
		return nil
	}
	return failed("deleting instance profile", name, err)
}

// deleteRole deletes a role with all that hangs on it, also what somebody added.
func (c *Client) deleteRole(ctx context.Context, n *Network, name string) error {
	role := aws.String(name)
	out, err := c.IAM.GetRole(ctx, &iam.GetRoleInput{RoleName: role})
	if missing(err) || err == nil && ofIAM(out.Role.Tags)[TagNetwork] != n.Name {
		return nil
	}
	if err != nil {
		return failed("looking for role", name, err)
	}
	inline, err := c.IAM.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: role})
	if err != nil && !missing(err) {
		return failed("looking for the policies of role", name, err)
	}
	for i := 0; err == nil && i < len(inline.PolicyNames); i++ {
		_, err := c.IAM.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: role, PolicyName: aws.String(inline.PolicyNames[i])})
		if err != nil && !missing(err) {
			return failed("deleting a policy of role", name, err)
		}
	}
	attached, err := c.IAM.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: role})
	if err != nil && !missing(err) {
		return failed("looking for the policies attached to role", name, err)
	}
	for i := 0; err == nil && i < len(attached.AttachedPolicies); i++ {
		_, err := c.IAM.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: role, PolicyArn: attached.AttachedPolicies[i].PolicyArn})
		if err != nil && !missing(err) {
			return failed("detaching a policy from role", name, err)
		}
	}
	_, err = c.IAM.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: role})
	if missing(err) {
		return nil
	}
	return failed("deleting role", name, err)
}
