// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/boxer-overlay/boxer/layer"
)

// DefaultSeedType is the smallest there is: a seed answers, and carries nothing.
const DefaultSeedType = "t4g.nano"

// SeedSlot is the slot of a seed.
func SeedSlot(number int) string { return "seed-" + strconv.Itoa(number) }

// addresses are the Elastic IPs of the network's seeds, by slot. A slot has more than one
// when the answer to a request was lost, and it was sent again: the first is the one that
// nodes know, else the one in use.
func (c *Client) addresses(ctx context.Context, n *Network) (map[string][]types.Address, error) {
	out, err := c.EC2.DescribeAddresses(ctx, &ec2.DescribeAddressesInput{Filters: tagged(n.Name, PartAddress, "")})
	if err != nil {
		return nil, failed("looking for the Elastic IPs of network", n.Name, err)
	}
	rank := func(a types.Address) int {
		switch {
		case slices.Contains(n.Endpoints, n.endpoint(a)):
			return 0
		case a.AssociationId != nil:
			return 1
		}
		return 2
	}
	slices.SortFunc(out.Addresses, func(a, b types.Address) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(aws.ToString(a.AllocationId), aws.ToString(b.AllocationId)))
	})
	found := map[string][]types.Address{}
	for _, a := range out.Addresses {
		slot := ofEC2(a.Tags)[TagNode]
		found[slot] = append(found[slot], a)
	}
	return found, nil
}

// endpoint is where a seed with this address is reached.
func (n *Network) endpoint(a types.Address) string {
	return net.JoinHostPort(aws.ToString(a.PublicIp), strconv.Itoa(n.Port))
}

// addressOf is the one that a seed has or should have; the zero one: none.
func addressOf(found map[string][]types.Address, slot string) types.Address {
	if len(found[slot]) == 0 {
		return types.Address{}
	}
	return found[slot][0]
}

// checkAddresses wants an Elastic IP for each seed. They are there before the
// seeds, which are told all of them, and stay when a seed goes.
func (c *Client) checkAddresses(ctx context.Context, d *Design) ([]step, error) {
	found, err := c.addresses(ctx, d.Network)
	if err != nil {
		return nil, err
	}
	var steps []step
	for i := range d.Seeds {
		slot := SeedSlot(i)
		a := addressOf(found, slot)
		note := func(ip string) {
			endpoints := slices.Clone(d.Endpoints)
			for len(endpoints) <= i {
				endpoints = append(endpoints, "")
			}
			endpoints[i] = net.JoinHostPort(ip, strconv.Itoa(d.Port))
			d.Endpoints = endpoints
		}
		tags := Tags(d.Name, slot, PartAddress, d.Tags)
		if a.AllocationId == nil {
			steps = append(steps, step{"the Elastic IP of " + slot + " is gone", func(ctx context.Context) error {
				out, err := c.EC2.AllocateAddress(ctx, &ec2.AllocateAddressInput{
					Domain:            types.DomainTypeVpc,
					TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeElasticIp, Tags: ec2Tags(tags)}},
				})
				if err != nil {
					return failed("allocating an Elastic IP for", d.Name+"/"+slot, err)
				}
				note(aws.ToString(out.PublicIp))
				return nil
			}})
			continue
		}
		ip := aws.ToString(a.PublicIp)
		if i >= len(d.Endpoints) || d.Endpoints[i] != d.endpoint(a) {
			steps = append(steps, step{"the Elastic IP of " + slot + " is another", func(context.Context) error { note(ip); return nil }})
		}
		steps = append(steps, c.retag(aws.ToString(a.AllocationId), "Elastic IP", ofEC2(a.Tags), tags)...)
		for _, more := range found[slot][1:] {
			steps = append(steps, step{slot + " has another Elastic IP, " + aws.ToString(more.PublicIp), func(ctx context.Context) error {
				return c.release(ctx, d.Network, more)
			}})
		}
	}
	return steps, nil
}

// checkSeeds wants an instance for each seed, running, with its address.
func (c *Client) checkSeeds(ctx context.Context, d *Design) ([]step, error) {
	addresses, err := c.addresses(ctx, d.Network)
	if err != nil {
		return nil, err
	}
	var all []step
	for i := range d.Seeds {
		slot := SeedSlot(i)
		has, err := c.FindInstance(ctx, d.Name, PartSeed, slot)
		switch {
		case errors.Is(err, ErrNotFound):
			all = append(all, step{slot + " is gone", func(ctx context.Context) error { return c.startSeed(ctx, d, i) }})
		case err != nil:
			return nil, err
		default:
			all = append(all, c.seedSteps(d, i, has, addressOf(addresses, slot))...)
		}
	}
	return all, nil
}

func (n *Network) seedTags(slot string) map[string]string {
	tags := Tags(n.Name, slot, PartSeed, n.Tags)
	tags[tagName] = n.InstanceName(slot)
	l := n.Layers[n.SeedArch]
	tags[layer.UpgradeTag] = layer.Fetch{URL: l.ARN, SHA256: l.SHA256}.Tag() // another one is an upgrade, in place
	return tags
}

// seedSteps put an instance right that is there.
func (c *Client) seedSteps(d *Design, number int, has Instance, address types.Address) []step {
	slot := SeedSlot(number)
	steps := c.retag(has.ID, "the instance of "+slot, has.Tags, d.seedTags(slot))
	if has.Type != d.SeedType {
		steps = append(steps, step{slot + " is a " + has.Type, func(ctx context.Context) error { return c.resize(ctx, has.ID, d.SeedType) }})
	}
	if has.Stopped() {
		steps = append(steps, step{slot + " is stopped", func(ctx context.Context) error { return c.startAgain(ctx, has.ID) }})
	}
	if !slices.Equal(has.Groups, []string{d.Group}) {
		steps = append(steps, step{slot + " is in other security groups", func(ctx context.Context) error {
			return c.SetInstance(ctx, has, []string{d.Group}, d.seedTags(slot))
		}})
	}
	if aws.ToString(address.InstanceId) != has.ID {
		steps = append(steps, step{slot + " does not have its Elastic IP", func(ctx context.Context) error { return c.associate(ctx, d, slot, has.ID) }})
	}
	return steps
}

// startSeed starts an instance, in the first zone that has one to give.
func (c *Client) startSeed(ctx context.Context, d *Design, number int) error {
	slot := SeedSlot(number)
	subnets := []string{d.SeedSubnet}
	if d.SeedSubnet == "" {
		var err error
		if subnets, err = c.subnets(ctx, d.Network); err == nil && len(subnets) == 0 {
			err = noPublicSubnets(d.VPC)
		}
		if err != nil {
			return err
		}
	}
	image, err := c.NewestImage(ctx, d.SeedArch)
	if err != nil {
		return err
	}
	data, err := d.UserData(d.Network, number)
	if err != nil {
		return failed("making the user data of", d.InstanceName(slot), err)
	}
	tags := maps.Clone(d.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[layer.UpgradeTag] = d.seedTags(slot)[layer.UpgradeTag]
	first := number % len(subnets) // seeds are spread over the zones
	made, err := c.RunInstanceIn(ctx, InstanceSpec{
		Network: d.Name, Slot: slot, Part: PartSeed, Name: d.InstanceName(slot), Image: image, Type: d.SeedType,
		Profile: d.RoleName(PartSeed), Groups: []string{d.Group}, UserData: data, Tags: tags,
	}, append(slices.Clone(subnets[first:]), subnets[:first]...))
	if err != nil {
		return err
	}
	return c.associate(ctx, d, slot, made.ID)
}

// associate gives a seed its address, as soon as EC2 shows it and the instance runs.
func (c *Client) associate(ctx context.Context, d *Design, slot, instance string) error {
	if _, err := c.AwaitInstance(ctx, instance); err != nil {
		return err
	}
	err := c.settled(ctx, func(ctx context.Context) error {
		found, err := c.addresses(ctx, d.Network)
		if err == nil && len(found[slot]) == 0 {
			err = fmt.Errorf("its Elastic IP: %w", ErrNotFound)
		}
		if err != nil {
			return err
		}
		_, err = c.EC2.AssociateAddress(ctx, &ec2.AssociateAddressInput{
			AllocationId: found[slot][0].AllocationId, InstanceId: aws.String(instance), AllowReassociation: aws.Bool(true),
		})
		return err
	})
	return failed("giving its Elastic IP to", d.InstanceName(slot), err)
}

// resize changes the type of an instance, which has to be stopped for that: its
// disk and its addresses stay.
func (c *Client) resize(ctx context.Context, id, to string) error {
	if _, err := c.EC2.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}}); err != nil {
		return failed("stopping instance", id, err)
	}
	if err := c.awaitState(ctx, id, "stopped"); err != nil {
		return err
	}
	_, err := c.EC2.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{
		InstanceId: aws.String(id), InstanceType: &types.AttributeValue{Value: aws.String(to)}})
	if err != nil { // it stays what it was, but not stopped
		return errors.Join(failed("making a "+to+" of instance", id, err), c.startAgain(ctx, id))
	}
	return c.startAgain(ctx, id)
}

// startAgain starts an instance that was stopped; one that is just stopping first
// has to have stopped.
func (c *Client) startAgain(ctx context.Context, id string) error {
	if err := c.awaitState(ctx, id, "stopped", "running"); err != nil {
		return err
	}
	if _, err := c.EC2.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{id}}); err != nil {
		return failed("starting instance", id, err)
	}
	return c.awaitState(ctx, id, "running")
}

func (c *Client) awaitState(ctx context.Context, id string, states ...string) error {
	return c.await(ctx, fmt.Sprintf("instance %s to be %s", id, states[0]), func(ctx context.Context) (state, error) {
		out, err := c.EC2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		if err != nil || len(out.Reservations) == 0 || len(out.Reservations[0].Instances) == 0 {
			return state{Now: "not to be found"}, err
		}
		i := instanceOf(out.Reservations[0].Instances[0])
		return state{Now: i.State, Reason: i.Reason, Done: slices.Contains(states, i.State), Failed: i.State == "terminated"}, nil
	})
}

func (c *Client) deleteSeeds(ctx context.Context, n *Network) error {
	return c.DeleteInstances(ctx, n.Name, PartSeed, "")
}

func (c *Client) deleteAddresses(ctx context.Context, n *Network) error {
	found, err := c.addresses(ctx, n)
	if err != nil {
		return err
	}
	for _, slot := range slices.Sorted(maps.Keys(found)) {
		for _, a := range found[slot] {
			if err := c.release(ctx, n, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// release gives an Elastic IP back. EC2 takes it for used for a moment after it was
// taken from its instance.
func (c *Client) release(ctx context.Context, n *Network, a types.Address) error {
	of := n.InstanceName(ofEC2(a.Tags)[TagNode])
	if a.AssociationId != nil {
		if _, err := c.EC2.DisassociateAddress(ctx, &ec2.DisassociateAddressInput{AssociationId: a.AssociationId}); err != nil && !missing(err) {
			return failed("taking the Elastic IP from", of, err)
		}
	}
	used := func(err error) bool { return is(err, "InvalidIPAddress.InUse") }
	err := c.retry(ctx, time.Minute, used, func(ctx context.Context) error {
		_, err := c.EC2.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: a.AllocationId})
		return err
	})
	if missing(err) {
		return nil
	}
	return failed("releasing the Elastic IP of", of, err)
}
