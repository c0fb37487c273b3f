// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// anywhere is who may reach the overlay port unless the configuration says less:
// functions outside a VPC come from any address, and prove who they are.
var anywhere = []string{"0.0.0.0/0"}

// rule of the security group, in what tells one from another.
type rule struct {
	egress   bool
	protocol string
	from, to int32
	peer     string // a CIDR, or "group"
}

const wholeGroup = "group"

// rules that the group should have: the overlay port and the one after it, at
// which seeds answer probes of NATs; everything among the nodes; everything out.
func (n *Network) rules() []rule {
	all := []rule{
		{false, "-1", -1, -1, wholeGroup},
		{true, "-1", -1, -1, "0.0.0.0/0"},
	}
	from := n.Ingress
	if len(from) == 0 {
		from = anywhere
	}
	for _, cidr := range from {
		all = append(all, rule{false, "tcp", int32(n.Port), int32(min(n.Port+1, 65535)), canonical(cidr)})
	}
	return all
}

// canonical is a range as EC2 writes it.
func canonical(cidr string) string {
	if p, err := netip.ParsePrefix(cidr); err == nil {
		return p.String()
	}
	return cidr
}

func (c *Client) findGroup(ctx context.Context, n *Network) (*types.SecurityGroup, error) {
	out, err := c.EC2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{
		Filters: append(filter("group-name", n.GroupName()), filter("vpc-id", n.VPC)...),
	})
	if err != nil {
		return nil, failed("looking for security group", n.GroupName(), err)
	}
	if len(out.SecurityGroups) == 0 {
		return nil, ErrNotFound
	}
	group := &out.SecurityGroups[0]
	if ofEC2(group.Tags)[TagNetwork] != n.Name {
		return nil, foreign("security group", n.GroupName()+" ("+aws.ToString(group.GroupId)+")", "delete it", "another name_prefix")
	}
	return group, nil
}

func (c *Client) checkGroup(ctx context.Context, d *Design) ([]step, error) {
	group, err := c.findGroup(ctx, d.Network)
	if errors.Is(err, ErrNotFound) {
		return []step{{"security group " + d.GroupName() + " is gone", func(ctx context.Context) error { return c.makeGroup(ctx, d) }}}, nil
	}
	if err != nil {
		return nil, err
	}
	id := aws.ToString(group.GroupId)
	var steps []step
	if d.Group != id { // made by an apply that ended there
		steps = append(steps, step{"security group " + d.GroupName() + " is another", func(context.Context) error { d.Group = id; return nil }})
	}
	steps = append(steps, c.retag(id, "security group", ofEC2(group.Tags), Tags(d.Name, "", PartGroup, d.Tags))...)
	also, err := c.checkRules(ctx, d.Network, id, d.rules())
	return append(steps, also...), err
}

func (c *Client) makeGroup(ctx context.Context, d *Design) error {
	out, err := c.EC2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String(d.GroupName()), VpcId: aws.String(d.VPC), Description: aws.String("Boxer network " + d.Name),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSecurityGroup, Tags: ec2Tags(Tags(d.Name, "", PartGroup, d.Tags))}},
	})
	if err != nil {
		return failed("making security group", d.GroupName(), err)
	}
	d.Group = aws.ToString(out.GroupId)
	var steps []step
	err = c.settled(ctx, func(ctx context.Context) (err error) {
		steps, err = c.checkRules(ctx, d.Network, d.Group, d.rules())
		return err
	})
	for i := 0; err == nil && i < len(steps); i++ {
		err = steps[i].do(ctx)
	}
	return err
}

// checkRules wants a group to have these rules and no others.
func (c *Client) checkRules(ctx context.Context, n *Network, id string, want []rule) ([]step, error) {
	var found []types.SecurityGroupRule
	pages := ec2.NewDescribeSecurityGroupRulesPaginator(c.EC2, &ec2.DescribeSecurityGroupRulesInput{Filters: filter("group-id", id)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, failed("reading the rules of security group", id, err)
		}
		found = append(found, page.SecurityGroupRules...)
	}
	var have []rule
	var steps []step
	for _, f := range found {
		r := ruleOf(f, id)
		switch {
		case slices.Contains(want, r) && !slices.Contains(have, r):
			have = append(have, r)
		default:
			steps = append(steps, step{fmt.Sprintf("security group %s lets through more: %s", id, r), func(ctx context.Context) error {
				return c.revoke(ctx, id, f)
			}})
		}
	}
	for _, r := range want {
		if !slices.Contains(have, r) {
			steps = append(steps, step{fmt.Sprintf("security group %s does not let through %s", id, r), func(ctx context.Context) error {
				return c.authorize(ctx, n, id, r)
			}})
		}
	}
	return steps, nil
}

func ruleOf(f types.SecurityGroupRule, group string) rule {
	r := rule{aws.ToBool(f.IsEgress), aws.ToString(f.IpProtocol), aws.ToInt32(f.FromPort), aws.ToInt32(f.ToPort), aws.ToString(f.CidrIpv4)}
	if r.protocol == "-1" {
		r.from, r.to = -1, -1
	}
	switch {
	case f.ReferencedGroupInfo != nil && aws.ToString(f.ReferencedGroupInfo.GroupId) == group:
		r.peer = wholeGroup
	case f.ReferencedGroupInfo != nil:
		r.peer = aws.ToString(f.ReferencedGroupInfo.GroupId)
	case r.peer == "":
		r.peer = aws.ToString(f.CidrIpv6) + aws.ToString(f.PrefixListId)
	}
	return r
}

func (r rule) String() string {
	direction, ports := "from", ""
	if r.egress {
		direction = "to"
	}
	if r.protocol != "-1" {
		ports = fmt.Sprintf("%s %d-%d ", r.protocol, r.from, r.to)
	}
	peer := r.peer
	if peer == wholeGroup {
		peer = "nodes of the network"
	}
	return fmt.Sprintf("%s%s %s", ports, direction, peer)
}

func (r rule) permission(group string) []types.IpPermission {
	p := types.IpPermission{IpProtocol: aws.String(r.protocol)}
	if r.protocol != "-1" {
		p.FromPort, p.ToPort = aws.Int32(r.from), aws.Int32(r.to)
	}
	switch {
	case r.peer == wholeGroup:
		p.UserIdGroupPairs = []types.UserIdGroupPair{{GroupId: aws.String(group)}}
	case strings.Contains(r.peer, ":"):
		p.Ipv6Ranges = []types.Ipv6Range{{CidrIpv6: aws.String(r.peer)}}
	default:
		p.IpRanges = []types.IpRange{{CidrIp: aws.String(r.peer)}}
	}
	return []types.IpPermission{p}
}

func (c *Client) authorize(ctx context.Context, n *Network, id string, r rule) error {
	group := aws.String(id)
	specs := []types.TagSpecification{{ResourceType: types.ResourceTypeSecurityGroupRule, Tags: ec2Tags(Tags(n.Name, "", PartGroup, n.Tags))}}
	err := c.settled(ctx, func(ctx context.Context) (err error) {
		if r.egress {
			_, err = c.EC2.AuthorizeSecurityGroupEgress(ctx, &ec2.AuthorizeSecurityGroupEgressInput{
				GroupId: group, IpPermissions: r.permission(id), TagSpecifications: specs})
		} else {
			_, err = c.EC2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
				GroupId: group, IpPermissions: r.permission(id), TagSpecifications: specs})
		}
		return err
	})
	if is(err, "InvalidPermission.Duplicate") {
		return nil
	}
	return failed("opening security group", id+" ("+r.String()+")", err)
}

func (c *Client) revoke(ctx context.Context, id string, f types.SecurityGroupRule) error {
	var err error
	rules := []string{aws.ToString(f.SecurityGroupRuleId)}
	if aws.ToBool(f.IsEgress) {
		_, err = c.EC2.RevokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: aws.String(id), SecurityGroupRuleIds: rules})
	} else {
		_, err = c.EC2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: aws.String(id), SecurityGroupRuleIds: rules})
	}
	if missing(err) {
		return nil
	}
	return failed("closing security group", id, err)
}

// retag gives an object of EC2 the tags that it should have.
func (c *Client) retag(id, kind string, has, want map[string]string) []step {
	add, remove := changes(has, want)
	if len(add)+len(remove) == 0 {
		return nil
	}
	return []step{{fmt.Sprintf("the tags of %s %s are others", kind, id), func(ctx context.Context) error {
		var err error
		if len(add) > 0 {
			_, err = c.EC2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: ec2Tags(add)})
		}
		if err == nil && len(remove) > 0 {
			var old []types.Tag
			for _, key := range remove {
				old = append(old, types.Tag{Key: aws.String(key)})
			}
			_, err = c.EC2.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: old})
		}
		return failed("tagging "+kind, id, err)
	}}}
}

// deleteGroups waits for what still uses the groups of a part (and node): a terminated
// instance's interface goes within seconds, one of a function in a VPC within an hour.
func (c *Client) deleteGroups(ctx context.Context, network, part, node string) error {
	groups, err := c.EC2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: tagged(network, part, node)})
	if err != nil {
		return failed("looking for the security groups of network", network, err)
	}
	for _, group := range groups.SecurityGroups {
		id := aws.ToString(group.GroupId)
		err := c.await(ctx, "security group "+id+" to be in nobody's use", func(ctx context.Context) (state, error) {
			_, err := c.EC2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: group.GroupId})
			if err == nil || missing(err) {
				return state{Done: true}, nil
			}
			if is(err, "DependencyViolation", "InvalidGroup.InUse") {
				return state{Now: "in use", Reason: c.users(ctx, id)}, nil
			}
			return state{}, failed("deleting security group", id, err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// users of a group are network interfaces.
func (c *Client) users(ctx context.Context, group string) string {
	out, err := c.EC2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: filter("group-id", group)})
	if err != nil || len(out.NetworkInterfaces) == 0 {
		return "by another security group, or by an interface that is just going"
	}
	var names []string
	for _, i := range out.NetworkInterfaces {
		names = append(names, strings.TrimSpace(aws.ToString(i.NetworkInterfaceId)+" "+aws.ToString(i.Description)))
	}
	return "by " + strings.Join(names, ", ")
}
