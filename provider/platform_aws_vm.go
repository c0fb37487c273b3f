// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// tagLaunch tells one launch of a VM node from the next: it is in its instance's tags,
// which live as long as the instance.
const tagLaunch = "boxer:launch"

func (p *awsPlatform) StartVM(ctx context.Context, spec nodeSpec) (launch.Want, error) {
	want := launch.Want{Slot: spec.Name, Token: launch.Token(), JoinOnly: spec.JoinOnly}
	n, err := p.networkFor(ctx, spec.Network)
	if err != nil {
		return want, err
	}
	found, err := p.cloud.FindInstance(ctx, n.Name, cloud.PartVM, spec.Name)
	if err == nil {
		return want, awsTaken(spec, fmt.Sprintf("instance %s, which is %s since %s", found.ID, found.State, found.Launched.Format(time.DateTime)))
	}
	if !errors.Is(err, cloud.ErrNotFound) {
		return want, err
	}
	if err := p.slotFreeOnAWS(ctx, n, spec, want.Slot); err != nil {
		return want, err
	}
	if err := p.unclaimed(ctx, n, want.Slot); err != nil {
		return want, err
	}
	if err := p.makeVM(ctx, n, spec, want); err != nil {
		return want, errors.Join(err, p.undo(ctx, func(ctx context.Context) error { return p.DeleteVM(ctx, spec.Network, spec.Name) }))
	}
	return want, nil
}

// awsUndo bounds the removal of what a failed creation made.
const awsUndo = 3 * time.Minute

// undo removes what was made before something failed: it is in no state yet.
func (p *awsPlatform) undo(ctx context.Context, remove func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), awsUndo)
	defer cancel()
	if err := remove(ctx); err != nil {
		return fmt.Errorf("what was made before that is left, and could not be removed: %w", err)
	}
	return nil
}

// makeVM makes what a VM node consists of, its instance last.
func (p *awsPlatform) makeVM(ctx context.Context, n *cloud.Network, spec nodeSpec, want launch.Want) error {
	contents, err := p.contents(ctx, n, spec)
	if err != nil {
		return err
	}
	a := spec.AWS
	if a.ImageID == "" {
		if a.ImageID, err = p.cloud.NewestImage(ctx, a.architecture()); err != nil {
			return err
		}
	}
	subnets := []string{a.SubnetID}
	if a.SubnetID == "" {
		if subnets, err = p.cloud.SubnetsFor(ctx, n, spec.Name); err != nil {
			return err
		}
	}
	data, err := bootData(spec, n, p.cloud.Region, want.Token, contents, nodeVariables())
	if err != nil {
		return err
	}
	if err := p.keepRecord(ctx, spec, awsRecord{}); err != nil {
		return err
	}
	groups, err := p.groups(ctx, n, spec)
	if err != nil {
		return err
	}
	id := cluster.LaunchID(want.Token)
	made, err := p.cloud.RunInstanceIn(ctx, cloud.InstanceSpec{
		Network: n.Name, Slot: spec.Name, Part: cloud.PartVM, Name: n.InstanceName(spec.Name), ClientToken: id,
		Image: a.ImageID, Type: a.instanceType(), KeyName: a.KeyName, Profile: cmp.Or(a.InstanceProfile, n.RoleName(cloud.PartVM)),
		Groups: groups, Spot: a.Spot, Volume: a.volume(), UserData: data, Tags: p.vmTags(n, spec, id),
	}, subnets)
	if err == nil { // EC2 ends what it cannot start, and says why; all of EC2 knows it then
		_, err = p.cloud.AwaitInstance(ctx, made.ID)
	}
	return err
}

// contents publishes what a VM node has in /var/task, if anything.
func (p *awsPlatform) contents(ctx context.Context, n *cloud.Network, spec nodeSpec) (cloud.Layer, error) {
	if spec.SourceDir == "" && spec.Package == "" {
		return cloud.Layer{}, nil
	}
	packed, err := codeZip(spec)
	if err != nil {
		return cloud.Layer{}, err
	}
	return p.cloud.PutContents(ctx, n, spec.Name, packed)
}

// groups are the network's security group, the node's own, made here, that opens what it
// publishes, and those that it has besides.
func (p *awsPlatform) groups(ctx context.Context, n *cloud.Network, spec nodeSpec) ([]string, error) {
	groups := []string{n.Group}
	if opens := openings(spec); len(opens) > 0 {
		own, err := p.cloud.Publish(ctx, n, spec.Name, opens, spec.Tags)
		if err != nil {
			return nil, err
		}
		groups = append(groups, own)
	}
	return append(groups, spec.AWS.SecurityGroupIDs...), nil
}

// openings are the ports that a node publishes.
func openings(spec nodeSpec) (opens []cloud.Opening) {
	for _, publish := range spec.Publish {
		opens = append(opens, cloud.Opening{Port: cmp.Or(publish.HostPort, publish.Port), CIDRs: publish.CIDRs})
	}
	return opens
}

func (a awsNode) volume() cloud.Volume {
	if a.RootVolume == nil {
		return cloud.Volume{}
	}
	return cloud.Volume{SizeGB: a.RootVolume.SizeGB, IOPS: a.RootVolume.IOPS, Type: a.RootVolume.Type, Plain: !a.RootVolume.Encrypted}
}

// vmTags are those of an instance besides the network's and the node's name. One of
// them names the layer that its supervisor is to run from (layer.UpgradeTag).
func (p *awsPlatform) vmTags(n *cloud.Network, spec nodeSpec, launched string) map[string]string {
	tags := map[string]string{tagLaunch: launched}
	if brings, ok := n.Layers[spec.AWS.architecture()]; ok {
		tags[layer.UpgradeTag] = layer.Fetch{URL: brings.ARN, SHA256: brings.SHA256}.Tag()
	}
	maps.Copy(tags, spec.Tags)
	return tags
}

// VM fails with errGone when there is no instance, or it is being terminated.
func (p *awsPlatform) VM(ctx context.Context, network, name string) (vmStatus, error) {
	found, err := p.cloud.FindInstance(ctx, network, cloud.PartVM, name)
	if err != nil {
		return vmStatus{}, lookProblemOfNode(err)
	}
	r, recorded, err := p.recordOf(ctx, network, name)
	if err != nil {
		return vmStatus{}, lookProblemOfNode(err)
	}
	status := vmStatus{
		LaunchID: found.Tags[tagLaunch], Spec: r.Spec,
		AWS: &awsVM{InstanceID: found.ID, PrivateIP: found.PrivateIP, PublicIP: found.PublicIP, ImageID: found.Image},
	}
	if !recorded { // nothing is known but what AWS tells
		status.Spec, status.AWS.Unrecorded = nodeSpec{Network: network, Name: name, Kind: "vm"}, true
		status.AWS.Seen = seenInstance{Type: found.Type, Subnet: found.Subnet, KeyName: found.KeyName, Spot: found.Spot}
		status.Notice = fmt.Sprintf("Its record, the SSM parameters /boxer/%s/nodes/%s/..., is gone or not whole: what was changed by hand cannot be told. "+
			"The next change of the node writes it anew.", network, name)
	}
	status.Spec.Tags = cloud.UserTags(found.Tags)
	_, named := r.Tags["Name"]
	if !named && (&cloud.Network{Name: network}).InstanceName(name) == status.Spec.Tags["Name"] { // the console's, not the user's
		delete(status.Spec.Tags, "Name")
	}
	if len(status.Spec.Tags) == 0 {
		status.Spec.Tags = nil
	}
	p.compare(ctx, &status.Spec, network, found)
	if found.Stopped() {
		if status.Notice != "" {
			status.Notice += " "
		}
		status.Notice += fmt.Sprintf("Instance %s is %s (%s): its guest does not run. Start it with \"aws ec2 start-instances --instance-ids %s\", or replace the node "+
			"(terraform apply -replace). Terraform leaves it as it is.", found.ID, found.State, found.Reason, found.ID)
	}
	return status, nil
}

// compare puts what an instance is where the record says otherwise.
func (p *awsPlatform) compare(ctx context.Context, spec *nodeSpec, network string, found cloud.Instance) {
	a := &spec.AWS
	if a.instanceType() != found.Type {
		a.InstanceType = found.Type
	}
	if profile := found.Profile[strings.LastIndexByte(found.Profile, '/')+1:]; a.InstanceProfile != "" {
		a.InstanceProfile = profile
	}
	n, err := p.cloud.Network(ctx, network)
	if err != nil {
		return // what its own group is nobody knows
	}
	own, drift, err := p.cloud.Published(ctx, n, spec.Name, openings(*spec))
	switch {
	case err != nil && !errors.Is(err, cloud.ErrNotFound):
		return
	case len(spec.Publish) > 0 && (len(drift) > 0 || !slices.Contains(found.Groups, own)):
		tflog.Info(ctx, "what a node publishes is not open", map[string]any{"name": spec.Name, "drift": strings.Join(drift, "; ")})
		spec.Publish = nil // to be opened again
	}
	has := slices.DeleteFunc(slices.Clone(found.Groups), func(id string) bool { return id == n.Group || id == own })
	if !slices.Equal(slices.Sorted(slices.Values(has)), slices.Sorted(slices.Values(a.SecurityGroupIDs))) {
		a.SecurityGroupIDs = has
	}
}

// lookProblemOfNode tells errors that say nothing about what there is from others.
func lookProblemOfNode(err error) error {
	switch {
	case errors.Is(err, cloud.ErrNotFound):
		return errGone
	case cloud.Passing(err):
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	return err
}

// UpdateVM changes an instance's groups and tags, and passes its guest's new
// configuration on by a seed. User data would be read at the first boot only.
func (p *awsPlatform) UpdateVM(ctx context.Context, spec nodeSpec, again bool) error {
	n, err := p.networkFor(ctx, spec.Network)
	if err != nil {
		return err
	}
	found, err := p.cloud.FindInstance(ctx, n.Name, cloud.PartVM, spec.Name)
	if errors.Is(err, cloud.ErrNotFound) {
		return &explained{fmt.Errorf("the instance of node %q is gone", spec.Name), "It ended after the plan: run terraform apply again, which makes it anew."}
	}
	if err != nil {
		return err
	}
	r, _, err := p.recordOf(ctx, n.Name, spec.Name)
	if err != nil {
		return err
	}
	tags := cloud.Tags(n.Name, spec.Name, cloud.PartVM, p.vmTags(n, spec, found.Tags[tagLaunch]))
	if _, own := tags["Name"]; !own {
		tags["Name"] = n.InstanceName(spec.Name)
	}
	groups, err := p.groups(ctx, n, spec)
	if err != nil {
		return err
	}
	if err := p.cloud.SetInstance(ctx, found, groups, tags); err != nil {
		return err
	}
	if len(spec.Publish) == 0 {
		if err := p.cloud.Unpublish(ctx, n.Name, spec.Name); err != nil {
			return err
		}
	}
	if again || !r.Spec.sameGuest(spec) {
		if found.Stopped() {
			return &explained{fmt.Errorf("instance %s of node %q is %s", found.ID, spec.Name, found.State),
				fmt.Sprintf("Start it with \"aws ec2 start-instances --instance-ids %s\", then apply again.", found.ID)}
		}
		if err := p.configure(ctx, n, spec); err != nil {
			return err
		}
	}
	return p.keepRecord(ctx, spec, r)
}

// configure gives a VM node another configuration, and waits until it has left for it:
// who waits for the guest then must not see the one before.
func (p *awsPlatform) configure(ctx context.Context, n *cloud.Network, spec nodeSpec) error {
	doc, err := vmDocument(spec, n, p.cloud.Region, "")
	if err != nil {
		return err
	}
	session, err := p.watch(ctx, n)
	if err != nil {
		return err
	}
	defer session.Close()
	events, stop := session.Subscribe()
	defer stop()
	holder, held := liveHolder(session.Members(), spec.Name)
	if !held {
		return &explained{fmt.Errorf("node %q is not in the network now, and cannot be given another configuration", spec.Name),
			"Its instance's console says why (aws ec2 get-console-output); \"terraform apply -replace\" makes it anew."}
	}
	if err := launch.ControlBy(ctx, session, controller.MethodConfigure, controller.Slot{Slot: spec.Name, Node: &doc}, nil); err != nil {
		return fmt.Errorf("give node %q its new configuration: %w", spec.Name, err)
	}
	if err := left(ctx, session, events, holder.ID); err != nil {
		return fmt.Errorf("wait until node %q begins again with its new configuration: %w", spec.Name, err)
	}
	return nil
}

// DeleteVM ends the instance, and waits for that: its successor may have the same name.
func (p *awsPlatform) DeleteVM(ctx context.Context, network, name string) error {
	if err := p.cloud.DeleteInstances(ctx, network, cloud.PartVM, name); err != nil {
		return err
	}
	if err := p.cloud.Unpublish(ctx, network, name); err != nil {
		return err
	}
	n, err := p.cloud.Network(ctx, network)
	if errors.Is(err, cloud.ErrNotFound) { // what it was called cannot be told any more
		n, err = &cloud.Network{Name: network, Prefix: cloud.DefaultPrefix}, nil
	}
	if err == nil {
		err = p.cloud.DeleteContents(ctx, n, name, "")
	}
	if err != nil {
		return err
	}
	return p.cloud.DeleteNode(ctx, network, name)
}
