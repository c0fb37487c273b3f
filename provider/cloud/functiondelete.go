// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// DeleteFunction removes a function and its log group, and waits until its network
// interfaces are gone, if it has any: while they are there its subnets and groups
// cannot be removed. progress is told how many are left.
func (c *Client) DeleteFunction(ctx context.Context, name, logGroup string, progress func(left int, waited time.Duration)) error {
	has, err := c.FindFunction(ctx, name)
	if err != nil && !missing(err) {
		return err
	}
	_, err = c.Lambda.DeleteFunctionEventInvokeConfig(ctx, &lambda.DeleteFunctionEventInvokeConfigInput{FunctionName: aws.String(name)})
	if err != nil && !missing(err) {
		return failed("removing how events are delivered to function", name, err)
	}
	again := func(err error) bool { return is(err, "ResourceConflictException") } // it is being changed
	err = c.retry(ctx, propagation, again, func(ctx context.Context) error {
		_, err := c.Lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: aws.String(name)})
		return err
	})
	if err != nil && !missing(err) {
		return failed("removing function", name, err)
	}
	if err := c.DeleteLogGroup(ctx, logGroup); err != nil {
		return err
	}
	began := time.Now()
	return c.await(ctx, "the network interfaces of function "+name+" to go", func(ctx context.Context) (state, error) {
		left, err := c.interfaces(ctx, name, has)
		if err != nil || left == 0 {
			return state{Done: err == nil}, err
		}
		if progress != nil {
			progress(left, time.Since(began).Round(time.Second))
		}
		return state{Now: fmt.Sprintf("%d there", left), Reason: "AWS removes them by itself, which takes up to an hour"}, nil
	})
}

// interfaces counts the network interfaces that only a deleted function needed. Lambda has
// one for each subnet and set of groups, for all functions there, and names it after the
// first of them: the last one that is deleted is who waits.
func (c *Client) interfaces(ctx context.Context, name string, deleted Function) (int, error) {
	filters := filter("description", "AWS Lambda VPC ENI-"+name+"-*")
	if len(deleted.Subnets) > 0 {
		filters = slices.Concat(filter("description", "AWS Lambda VPC ENI-*"), filter("subnet-id", deleted.Subnets...), filter("group-id", deleted.Groups...))
	}
	out, err := c.EC2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: filters})
	if err != nil || len(out.NetworkInterfaces) == 0 {
		return 0, failed("looking for the network interfaces of function", name, err)
	}
	needed := map[string]bool{}
	for pages := lambda.NewListFunctionsPaginator(c.Lambda, &lambda.ListFunctionsInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, failed("looking for who shares the network interfaces of function", name, err)
		}
		for _, f := range page.Functions {
			if f.VpcConfig == nil || aws.ToString(f.FunctionName) == name {
				continue
			}
			for _, subnet := range f.VpcConfig.SubnetIds {
				needed[attachment(subnet, f.VpcConfig.SecurityGroupIds)] = true
			}
		}
	}
	left := 0
	for _, i := range out.NetworkInterfaces {
		var groups []string
		for _, g := range i.Groups {
			groups = append(groups, aws.ToString(g.GroupId))
		}
		at := attachment(aws.ToString(i.SubnetId), groups)
		if !needed[at] && (len(deleted.Subnets) == 0 || slices.ContainsFunc(deleted.Subnets, func(s string) bool { return at == attachment(s, deleted.Groups) })) {
			left++
		}
	}
	return left, nil
}

// attachment is a subnet and a set of security groups.
func attachment(subnet string, groups []string) string {
	return subnet + " " + strings.Join(slices.Sorted(slices.Values(groups)), " ")
}
