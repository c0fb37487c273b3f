// SPDX-License-Identifier: Apache-2.0

package cloud

import "cmp"

// Scope says what an applying principal works on; what is empty is any.
type Scope struct{ Network, Prefix, Account, Region string }

// Applying is the policy of who applies a configuration: the actions of the calls
// in this package, and of no others (policy_test.go compares). What has the network in its
// name or in its tag is allowed by that; only looking around is not bounded.
func Applying(s Scope) Document {
	region, account, network := cmp.Or(s.Region, "*"), cmp.Or(s.Account, "*"), cmp.Or(s.Network, "*")
	n := &Network{Name: network, Prefix: cmp.Or(s.Prefix, DefaultPrefix)}
	ec2 := func(kinds ...string) (arns []string) {
		for _, kind := range kinds {
			arns = append(arns, arn("ec2", region, account, kind+"/*"))
		}
		return arns
	}
	tag := func(where string, st Statement) Statement {
		st.Condition = map[string]map[string][]string{"StringLike": {"aws:" + where + "/" + TagNetwork: {network}}}
		return st
	}
	created := allow("TagNew", []string{"ec2:CreateTags"}, ec2("*")...)
	created.Condition = map[string]map[string][]string{"StringEquals": {"ec2:CreateAction": {"RunInstances", "CreateSecurityGroup", "AllocateAddress",
		"AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress"}}}
	roles := []string{"arn:" + partition(region) + ":iam::" + account + ":role/*" + n.FunctionPrefix() + "*",
		"arn:" + partition(region) + ":iam::" + account + ":instance-profile/*" + n.FunctionPrefix() + "*"}
	pass := allow("PassRoles", []string{"iam:PassRole"}, roles[0])
	pass.Condition = map[string]map[string][]string{"StringLike": {"iam:PassedToService": {"ec2.amazonaws.com*", "lambda.amazonaws.com"}}}
	// The first spot instance of an account makes it.
	spot := allow("FirstSpot", []string{"iam:CreateServiceLinkedRole"},
		"arn:"+partition(region)+":iam::"+account+":role/aws-service-role/spot.amazonaws.com/*")
	return policy(
		allow("Look", []string{
			"ec2:DescribeAddresses", "ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroupRules",
			"ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs", "ec2:GetConsoleOutput",
			"lambda:ListFunctions", "lambda:ListLayerVersions", "sts:GetCallerIdentity",
		}, "*"),
		tag("RequestTag", allow("MakeTagged", []string{"ec2:AllocateAddress", "ec2:CreateSecurityGroup", "ec2:RunInstances"},
			ec2("elastic-ip", "instance", "security-group", "volume")...)),
		allow("MakeIn", []string{"ec2:CreateSecurityGroup"}, ec2("vpc")...),
		allow("RunWith", []string{"ec2:RunInstances"},
			append(ec2("key-pair", "network-interface", "security-group", "spot-instances-request", "subnet"), arn("ec2", region, "*", "image/*"))...),
		created,
		tag("ResourceTag", allow("ChangeTagged", []string{
			"ec2:AssociateAddress", "ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress", "ec2:CreateTags", "ec2:DeleteSecurityGroup",
			"ec2:DeleteTags", "ec2:DisassociateAddress", "ec2:ModifyInstanceAttribute", "ec2:ReleaseAddress", "ec2:RevokeSecurityGroupEgress",
			"ec2:RevokeSecurityGroupIngress", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances",
		}, ec2("*")...)),
		// A rule or an interface that somebody else made has no tag of ours.
		allow("ChangeParts", []string{"ec2:AssociateAddress", "ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress", "ec2:DisassociateAddress",
			"ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress"}, ec2("network-interface", "security-group-rule")...),
		allow("JoinGroups", []string{"ec2:ModifyInstanceAttribute"}, ec2("network-interface", "security-group")...),
		allow("Roles", []string{
			"iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:CreateRole", "iam:DeleteInstanceProfile", "iam:DeleteRole",
			"iam:DeleteRolePermissionsBoundary", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:GetInstanceProfile", "iam:GetRole", "iam:GetRolePolicy",
			"iam:ListAttachedRolePolicies", "iam:ListRolePolicies", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy", "iam:RemoveRoleFromInstanceProfile",
			"iam:TagInstanceProfile", "iam:TagRole", "iam:UntagInstanceProfile", "iam:UntagRole", "iam:UpdateAssumeRolePolicy",
		}, roles...),
		pass, spot,
		allow("Layers", []string{"lambda:DeleteLayerVersion", "lambda:GetLayerVersion", "lambda:PublishLayerVersion"},
			arn("lambda", region, account, "layer:"+n.Prefix+"*")),
		allow("Functions", []string{
			"lambda:CreateFunction", "lambda:DeleteFunction", "lambda:DeleteFunctionConcurrency", "lambda:DeleteFunctionEventInvokeConfig", "lambda:GetFunction",
			"lambda:GetFunctionConfiguration", "lambda:InvokeFunction", "lambda:ListTags", "lambda:PutFunctionConcurrency", "lambda:PutFunctionEventInvokeConfig",
			"lambda:PutFunctionRecursionConfig", "lambda:TagResource", "lambda:UntagResource", "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration",
		}, arn("lambda", region, account, "function:"+n.FunctionPrefix()+"*")),
		allow("Logs", []string{
			"logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:DeleteRetentionPolicy", "logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents", "logs:ListTagsForResource",
			"logs:PutRetentionPolicy", "logs:TagResource", "logs:UntagResource",
		}, arn("logs", region, account, "log-group:"+n.LogGroup("*")), arn("logs", region, account, "log-group:"+n.LogGroup("*")+":*")),
		allow("Parameters", []string{
			"ssm:AddTagsToResource", "ssm:DeleteParameter", "ssm:DeleteParameters", "ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath", "ssm:ListTagsForResource",
			"ssm:PutParameter", "ssm:RemoveTagsFromResource",
		}, arn("ssm", region, account, "parameter/boxer/"+network+"/*")),
		allow("Images", []string{"ssm:GetParameter"}, arn("ssm", region, "", "parameter/aws/service/ami-amazon-linux-latest/*")),
	)
}

// Action is the permission that a call needs, where that is named otherwise.
func Action(service, call string) string {
	if service == "lambda" && call == "Invoke" {
		call = "InvokeFunction"
	}
	return service + ":" + call
}
