// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// filter asks EC2 for objects with one of these values.
func filter(name string, values ...string) []types.Filter {
	return []types.Filter{{Name: aws.String(name), Values: values}}
}

// subnets are those that instances of the network may be in, by zone: those of
// the configuration, else those of the VPC whose instances get public addresses.
func (c *Client) subnets(ctx context.Context, n *Network) ([]string, error) {
	in := &ec2.DescribeSubnetsInput{Filters: append(filter("vpc-id", n.VPC), filter("map-public-ip-on-launch", "true")...)}
	if len(n.Subnets) > 0 {
		in = &ec2.DescribeSubnetsInput{SubnetIds: n.Subnets}
	}
	out, err := c.EC2.DescribeSubnets(ctx, in)
	if err != nil {
		return nil, failed("looking for subnets of VPC", n.VPC, err)
	}
	found := out.Subnets
	slices.SortFunc(found, func(a, b types.Subnet) int {
		return cmp.Or(cmp.Compare(aws.ToString(a.AvailabilityZone), aws.ToString(b.AvailabilityZone)),
			cmp.Compare(aws.ToString(a.SubnetId), aws.ToString(b.SubnetId)))
	})
	ids := make([]string, 0, len(found))
	for _, s := range found {
		if aws.ToString(s.VpcId) != n.VPC {
			return nil, &Error{Doing: "using subnet", On: aws.ToString(s.SubnetId),
				Err:    fmt.Errorf("it is in %s, and the network in %s", aws.ToString(s.VpcId), n.VPC),
				Remedy: "Set vpc_id and subnet_ids to those of one VPC."}
		}
		ids = append(ids, aws.ToString(s.SubnetId))
	}
	return ids, nil
}
