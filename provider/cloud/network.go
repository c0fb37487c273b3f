// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// Design is what a network should be: its record, and what only who makes or
// changes it knows.
type Design struct {
	*Network

	Secret string // given by the user; "": generated

	// Zip is the layer of an architecture, as this program carries it.
	Zip func(arch string) ([]byte, error)
	// Upgrade is the runtime version to change to: Zip is published although the record
	// names another layer. Empty: none.
	Upgrade string
	// UserData is that of a seed.
	UserData func(n *Network, number int) ([]byte, error)

	fresh bool // it is just being made: what is there already is not its own
}

// step is one thing that is not as it should be, and what puts it right.
type step struct {
	what string
	do   func(context.Context) error
}

// checks compare what there is with the design, in the order in which things
// have to be made. Reading a network runs them for what they say; making and
// changing it for what they do.
func (c *Client) checks() []func(context.Context, *Design) ([]step, error) {
	return []func(context.Context, *Design) ([]step, error){
		c.checkRecord, c.checkSecret, c.checkLayers, c.checkRoles, c.checkGroup, c.checkAddresses, c.checkSeeds,
	}
}

// Create makes a network. As soon as made is true, something of it is there, for
// Delete to remove.
func (c *Client) Create(ctx context.Context, d *Design) (made bool, err error) {
	if err := c.place(ctx, d.Network); err != nil {
		return false, err
	}
	d.Made, d.Region = rand.Text(), c.Region
	err = c.record(ctx, d.Network, true)
	if errors.Is(err, ErrExists) { // or the answer was lost, and it was sent again
		if has, look := c.Network(ctx, d.Name); look == nil && has.Made == d.Made {
			err = nil
		}
	}
	if err != nil {
		return false, err
	}
	d.fresh = true
	return true, c.Converge(ctx, d)
}

// Converge makes a network what it should be, and its record to say so.
func (c *Client) Converge(ctx context.Context, d *Design) error {
	before := *d.Network
	for _, check := range c.checks() {
		steps, err := check(ctx, d)
		if err != nil {
			return err
		}
		for _, s := range steps {
			if err := s.do(ctx); err != nil {
				return err
			}
		}
		// What was made is noted at once: nodes and deletions go by the record.
		if !reflect.DeepEqual(before, *d.Network) {
			if err := c.record(ctx, d.Network, false); err != nil {
				return err
			}
			before = *d.Network
		}
	}
	return nil
}

// Change writes a new record, then makes the network so. The record has the runtime
// version that all of it runs: one that was changed half-way is still the old one, and
// says what it was changed to.
func (c *Client) Change(ctx context.Context, d *Design) error {
	if d.Upgrade != "" {
		d.Upgrading = d.Upgrade
	}
	err := c.record(ctx, d.Network, false)
	if err == nil {
		err = c.Converge(ctx, d)
	}
	if err != nil || d.Upgrade == "" {
		return err
	}
	if err := c.UpgradeNodes(ctx, d.Network); err != nil {
		return err
	}
	d.RuntimeVersion, d.Upgrade, d.Upgrading = d.Upgrade, "", ""
	return c.record(ctx, d.Network, false)
}

// Drift says what is not as the network's record has it.
func (c *Client) Drift(ctx context.Context, n *Network) ([]string, error) {
	var found []string
	if n.Upgrading != "" {
		found = append(found, fmt.Sprintf("its upgrade from %s to %s ended half-way", n.RuntimeVersion, n.Upgrading))
	}
	d := &Design{Network: n}
	for _, check := range c.checks() {
		steps, err := check(ctx, d)
		if err != nil && !errors.Is(err, ErrForeign) {
			return nil, err
		}
		if err != nil {
			found = append(found, err.Error())
		}
		for _, s := range steps {
			found = append(found, s.what)
		}
	}
	return found, nil
}

// Delete removes a network, in an order that works, whatever of it is there. The
// record goes last: as long as something is left, it can be deleted again.
func (c *Client) Delete(ctx context.Context, name string) error {
	n, err := c.Network(ctx, name)
	if errors.Is(err, ErrNotFound) {
		n, err = &Network{Name: name, Prefix: DefaultPrefix, Region: c.Region}, nil
	}
	if err != nil {
		return err
	}
	if err := c.noNodes(ctx, n); err != nil {
		return err
	}
	for _, remove := range []func(context.Context, *Network) error{
		c.deleteNodes, c.deleteSeeds, c.deleteAddresses,
		func(ctx context.Context, n *Network) error { return c.deleteGroups(ctx, n.Name, PartPublish, "") }, // of nodes that vanished
		func(ctx context.Context, n *Network) error { return c.deleteGroups(ctx, n.Name, PartGroup, "") },
		c.deleteRoles,
		func(ctx context.Context, n *Network) error { return c.deleteParameter(ctx, SecretName(n.Name)) },
		func(ctx context.Context, n *Network) error { return c.deleteParameter(ctx, RecordName(n.Name)) },
	} {
		if err := remove(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// noNodes refuses to take the network from under its nodes: without its record nobody
// finds them any more.
func (c *Client) noNodes(ctx context.Context, n *Network) error {
	machines, err := c.instances(ctx, n.Name, PartVM, "", existing)
	if err != nil {
		return failed("looking for the VM nodes of network", n.Name, err)
	}
	functions, err := c.functions(ctx, n)
	if err != nil {
		return err
	}
	var names []string
	for _, i := range machines {
		names = append(names, fmt.Sprintf("%s (%s)", i.Tags[TagNode], i.ID))
	}
	for _, f := range functions {
		names = append(names, fmt.Sprintf("%s (function %s)", f.Tags[TagNode], f.Name))
	}
	if len(names) == 0 {
		return nil
	}
	return &Error{Doing: "deleting network", On: n.Name, Err: fmt.Errorf("it still has nodes: %s", strings.Join(names, ", ")),
		Remedy: "Destroy them first; those that no configuration has can be imported (NETWORK,NAME), or removed with \"aws ec2 terminate-instances\" and " +
			"\"aws lambda delete-function\"."}
}

// place finds the VPC and the subnets of a network whose configuration names none.
func (c *Client) place(ctx context.Context, n *Network) error {
	if n.VPC == "" && len(n.Subnets) > 0 {
		out, err := c.EC2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: n.Subnets[:1]})
		if err != nil {
			return failed("looking for subnet", n.Subnets[0], err)
		}
		n.VPC = aws.ToString(out.Subnets[0].VpcId)
	}
	in := &ec2.DescribeVpcsInput{VpcIds: []string{n.VPC}}
	if n.VPC == "" {
		in = &ec2.DescribeVpcsInput{Filters: filter("is-default", "true")}
	}
	out, err := c.EC2.DescribeVpcs(ctx, in)
	if err != nil {
		return failed("looking for VPC", n.VPC, err)
	}
	if len(out.Vpcs) == 0 {
		return &Error{Doing: "looking for the default VPC of", On: c.Region, Err: errors.New("the account has none in this region"),
			Remedy: "Set vpc_id and subnet_ids, or make one with \"aws ec2 create-default-vpc\"."}
	}
	n.VPC = aws.ToString(out.Vpcs[0].VpcId)
	subnets, err := c.subnets(ctx, n)
	if err == nil && len(subnets) == 0 {
		err = noPublicSubnets(n.VPC)
	}
	return err
}

func noPublicSubnets(vpc string) error {
	return &Error{Doing: "looking for subnets of", On: vpc, Err: errors.New("none gives its instances public addresses"),
		Remedy: "Set subnet_ids to subnets with a route to an internet gateway: seeds need one."}
}
