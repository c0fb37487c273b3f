// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Opening is a port that others than nodes may connect to.
type Opening struct {
	Port  int
	CIDRs []string // none: from anywhere
}

// publishRules are those of a node's group. It lets nothing out that the network's own does
// not, but EC2 gives every group that rule, and without it a group looks changed by hand.
func publishRules(openings []Opening) []rule {
	all := []rule{{true, "-1", -1, -1, "0.0.0.0/0"}}
	for _, o := range openings {
		from := o.CIDRs
		if len(from) == 0 {
			from = anywhere
		}
		for _, cidr := range from {
			r := rule{false, "tcp", int32(o.Port), int32(o.Port), canonical(cidr)}
			if !slices.Contains(all, r) {
				all = append(all, r)
			}
		}
	}
	return all
}

func (c *Client) findPublishGroup(ctx context.Context, n *Network, node string) (*types.SecurityGroup, error) {
	out, err := c.EC2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: tagged(n.Name, PartPublish, node)})
	if err != nil {
		return nil, failed("looking for the security group of node", n.Name+"/"+node, err)
	}
	if len(out.SecurityGroups) == 0 {
		return nil, ErrNotFound
	}
	return &out.SecurityGroups[0], nil
}

// Publish makes the group that opens a node's ports, or gives it other rules. It returns the
// group's id.
func (c *Client) Publish(ctx context.Context, n *Network, node string, openings []Opening, tags map[string]string) (string, error) {
	group, err := c.findPublishGroup(ctx, n, node)
	var id string
	switch {
	case errors.Is(err, ErrNotFound):
		id, err = c.makePublishGroup(ctx, n, node, tags)
	case err == nil:
		id = aws.ToString(group.GroupId)
		for _, s := range c.retag(id, "security group", ofEC2(group.Tags), Tags(n.Name, node, PartPublish, tags)) {
			err = errors.Join(err, s.do(ctx))
		}
	}
	if err != nil {
		return "", err
	}
	var steps []step
	err = c.settled(ctx, func(ctx context.Context) (err error) {
		steps, err = c.checkRules(ctx, n, id, publishRules(openings))
		return err
	})
	for i := 0; err == nil && i < len(steps); i++ {
		err = steps[i].do(ctx)
	}
	return id, err
}

func (c *Client) makePublishGroup(ctx context.Context, n *Network, node string, tags map[string]string) (string, error) {
	out, err := c.EC2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String(n.PublishName(node)), VpcId: aws.String(n.VPC), Description: aws.String("Boxer node " + n.InstanceName(node) + ": what it publishes"),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSecurityGroup, Tags: ec2Tags(Tags(n.Name, node, PartPublish, tags))}},
	})
	if is(err, "InvalidGroup.Duplicate") {
		return "", foreign("security group", n.PublishName(node), "delete it", "another name for the node")
	}
	if err != nil {
		return "", failed("making security group", n.PublishName(node), err)
	}
	return aws.ToString(out.GroupId), nil
}

// Published is the group of a node, and what in it is not as these openings want it;
// ErrNotFound: there is none.
func (c *Client) Published(ctx context.Context, n *Network, node string, openings []Opening) (id string, drift []string, err error) {
	group, err := c.findPublishGroup(ctx, n, node)
	if err != nil {
		return "", nil, err
	}
	id = aws.ToString(group.GroupId)
	steps, err := c.checkRules(ctx, n, id, publishRules(openings))
	for _, s := range steps {
		drift = append(drift, s.what)
	}
	return id, drift, err
}

// Unpublish removes a node's group, once nothing uses it.
func (c *Client) Unpublish(ctx context.Context, network, node string) error {
	if node == "" {
		return fmt.Errorf("unpublish of network %q: no node", network)
	}
	return c.deleteGroups(ctx, network, PartPublish, node)
}
