// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// InstanceSpec is an instance to be.
type InstanceSpec struct {
	Network, Slot, Part string
	Name                string // for the console
	ClientToken         string // the same token, the same instance

	Image, Type, Subnet, KeyName, Profile string
	Groups                                []string
	Spot                                  bool
	Volume                                Volume
	UserData                              []byte
	Tags                                  map[string]string // the user's
}

// Volume is an instance's root volume. What is 0 or empty is the image's, the type's.
type Volume struct {
	SizeGB, IOPS int32
	Type         string
	Plain        bool // not encrypted
}

// Instance is one there is.
type Instance struct {
	ID, State, Reason                     string
	PrivateIP, PublicIP                   string
	Image, Type, Subnet, KeyName, Profile string
	Arch                                  string // amd64, arm64
	Groups                                []string
	Spot                                  bool
	Launched                              time.Time
	Tags                                  map[string]string
}

// Stopped says whether somebody stopped it; it can go on.
func (i *Instance) Stopped() bool {
	return i.State == string(types.InstanceStateNameStopped) || i.State == string(types.InstanceStateNameStopping)
}

// existing are the states of instances that there are; others are as good as gone.
var existing = []string{"pending", "running", "stopping", "stopped"}

// FindInstance finds the instance of a slot by its tags.
func (c *Client) FindInstance(ctx context.Context, network, part, slot string) (Instance, error) {
	found, err := c.instances(ctx, network, part, slot, existing)
	if err != nil {
		return Instance{}, failed("looking for the instance of", network+"/"+slot, err)
	}
	if len(found) == 0 {
		return Instance{}, &Error{Doing: "looking for the instance of", On: network + "/" + slot, Err: ErrNotFound}
	}
	return found[0], nil
}

// instances in these states, the newest first.
func (c *Client) instances(ctx context.Context, network, part, slot string, states []string) ([]Instance, error) {
	filters := append(tagged(network, part, slot), types.Filter{Name: aws.String("instance-state-name"), Values: states})
	pages := ec2.NewDescribeInstancesPaginator(c.EC2, &ec2.DescribeInstancesInput{Filters: filters})
	var all []Instance
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				all = append(all, instanceOf(i))
			}
		}
	}
	slices.SortFunc(all, func(a, b Instance) int { return b.Launched.Compare(a.Launched) })
	return all, nil
}

func instanceOf(i types.Instance) Instance {
	found := Instance{
		ID: aws.ToString(i.InstanceId), PrivateIP: aws.ToString(i.PrivateIpAddress), PublicIP: aws.ToString(i.PublicIpAddress),
		Image: aws.ToString(i.ImageId), Type: string(i.InstanceType), Subnet: aws.ToString(i.SubnetId), KeyName: aws.ToString(i.KeyName),
		Spot: i.InstanceLifecycle == types.InstanceLifecycleTypeSpot, Launched: aws.ToTime(i.LaunchTime), Tags: ofEC2(i.Tags), Arch: "amd64",
	}
	if i.Architecture == types.ArchitectureValuesArm64 {
		found.Arch = "arm64"
	}
	if i.State != nil {
		found.State = string(i.State.Name)
	}
	if i.StateReason != nil {
		found.Reason = aws.ToString(i.StateReason.Message)
	}
	if i.IamInstanceProfile != nil {
		found.Profile = aws.ToString(i.IamInstanceProfile.Arn)
	}
	for _, g := range i.SecurityGroups {
		found.Groups = append(found.Groups, aws.ToString(g.GroupId))
	}
	return found
}

// RunInstance starts an instance. IMDSv2 is required, also from containers on it, and
// its tags can be read there. A profile that IAM has not spread yet is waited for.
func (c *Client) RunInstance(ctx context.Context, s InstanceSpec) (Instance, error) {
	device, size, err := c.rootDevice(ctx, s.Image)
	if err != nil {
		return Instance{}, err
	}
	s.Volume.SizeGB = cmp.Or(s.Volume.SizeGB, size)
	tags := Tags(s.Network, s.Slot, s.Part, s.Tags)
	if _, own := tags[tagName]; !own {
		tags[tagName] = s.Name
	}
	in := &ec2.RunInstancesInput{
		MinCount: aws.Int32(1), MaxCount: aws.Int32(1), ClientToken: optional(s.ClientToken),
		ImageId: aws.String(s.Image), InstanceType: types.InstanceType(s.Type), SubnetId: optional(s.Subnet), KeyName: optional(s.KeyName),
		SecurityGroupIds: s.Groups, UserData: aws.String(base64.StdEncoding.EncodeToString(s.UserData)),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String(device), Ebs: s.Volume.device()}},
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpEndpoint: types.InstanceMetadataEndpointStateEnabled, HttpTokens: types.HttpTokensStateRequired,
			HttpPutResponseHopLimit: aws.Int32(2), InstanceMetadataTags: types.InstanceMetadataTagsStateEnabled,
		},
		TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeInstance, Tags: ec2Tags(tags)}, {ResourceType: types.ResourceTypeVolume, Tags: ec2Tags(tags)},
		},
	}
	if s.Profile != "" {
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String(s.Profile)}
	}
	if s.Spot {
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot}
	}
	var out *ec2.RunInstancesOutput
	err = c.propagated(ctx, func(ctx context.Context) (err error) {
		out, err = c.EC2.RunInstances(ctx, in)
		return err
	})
	if err != nil {
		return Instance{}, runProblem(s, err)
	}
	return instanceOf(out.Instances[0]), nil
}

func (v Volume) device() *types.EbsBlockDevice {
	ebs := &types.EbsBlockDevice{DeleteOnTermination: aws.Bool(true), Encrypted: aws.Bool(!v.Plain), VolumeType: types.VolumeType(v.Type)}
	if v.Type == "" {
		ebs.VolumeType = types.VolumeTypeGp3
	}
	if v.SizeGB > 0 {
		ebs.VolumeSize = aws.Int32(v.SizeGB)
	}
	if v.IOPS > 0 {
		ebs.Iops = aws.Int32(v.IOPS)
	}
	return ebs
}

// runProblem adds what to do where AWS's own words do not say it.
func runProblem(s InstanceSpec, err error) error {
	known := failed("starting the instance", s.Name, err)
	var e *Error
	if !errors.As(known, &e) || e.Remedy != "" {
		return known
	}
	switch code(err) {
	case "InsufficientInstanceCapacity", "InsufficientHostCapacity", "SpotMaxPriceTooLow", "MaxSpotInstanceCountExceeded":
		e.Remedy = fmt.Sprintf("AWS has no %s to give in this zone now: choose another instance_type or subnet_id, or leave spot out.", s.Type)
	case "Unsupported":
		e.Remedy = fmt.Sprintf("The zone of subnet %s may lack instances of type %s: choose another instance_type or subnet_id.", s.Subnet, s.Type)
	case "InvalidKeyPair.NotFound":
		e.Remedy = "key_name names a key pair of this region: make it first, or leave it out."
	}
	return e
}

// rootDevice is what an image calls the volume it boots from, and its size; 0: EC2 knows.
func (c *Client) rootDevice(ctx context.Context, image string) (name string, sizeGB int32, err error) {
	out, err := c.EC2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{image}})
	if err == nil && len(out.Images) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		known := &Error{Doing: "looking at image", On: image, Err: err, Remedy: remedy(err)}
		if missing(err) {
			known.Remedy = "An AMI belongs to one region: name one of " + c.Region + ", or leave image_id out for the newest Amazon Linux 2023."
		}
		return "", 0, known
	}
	name = cmp.Or(aws.ToString(out.Images[0].RootDeviceName), "/dev/xvda")
	for _, m := range out.Images[0].BlockDeviceMappings {
		if aws.ToString(m.DeviceName) == name && m.Ebs != nil {
			sizeGB = aws.ToInt32(m.Ebs.VolumeSize)
		}
	}
	return name, sizeGB, nil
}

// AwaitInstance waits until an instance runs.
func (c *Client) AwaitInstance(ctx context.Context, id string) (found Instance, err error) {
	err = c.await(ctx, "instance "+id+" to run", func(ctx context.Context) (state, error) {
		out, err := c.EC2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		if missing(err) || err == nil && (len(out.Reservations) == 0 || len(out.Reservations[0].Instances) == 0) {
			return state{Now: "not known to all of EC2"}, nil
		}
		if err != nil {
			return state{}, err
		}
		found = instanceOf(out.Reservations[0].Instances[0])
		s := state{Now: found.State, Reason: found.Reason, Done: found.State == "running"}
		s.Failed = !s.Done && found.State != "pending"
		return s, nil
	})
	var e *Error
	if errors.As(err, &e) && e.Remedy == "" {
		e.Remedy = fmt.Sprintf("\"aws ec2 get-console-output --latest --output text --instance-id %s\" may say more.", id)
	}
	return found, err
}

// DeleteInstances ends all instances of a slot and waits until they have ended. What
// they had (address, volume) is given back only then.
func (c *Client) DeleteInstances(ctx context.Context, network, part, slot string) error {
	on := network + "/" + slot
	found, err := c.instances(ctx, network, part, slot, append([]string{"shutting-down"}, existing...))
	if err != nil {
		return failed("looking for the instance of", on, err)
	}
	if len(found) == 0 {
		return nil
	}
	var ids []string
	for _, i := range found {
		ids = append(ids, i.ID)
	}
	if _, err := c.EC2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}); err != nil && !missing(err) {
		known := failed("ending the instance of", on, err)
		var e *Error
		if code(err) == "OperationNotPermitted" && errors.As(known, &e) {
			e.Remedy = "Somebody protected it: turn its termination protection off, then apply again."
		}
		return known
	}
	return c.await(ctx, "instance "+strings.Join(ids, ", ")+" to end", func(ctx context.Context) (state, error) {
		left, err := c.instances(ctx, network, part, slot, append([]string{"shutting-down"}, existing...))
		if err != nil || len(left) == 0 {
			return state{Done: err == nil}, err
		}
		return state{Now: left[0].State, Reason: left[0].Reason}, nil
	})
}

// SetInstance gives an instance other security groups and tags.
func (c *Client) SetInstance(ctx context.Context, has Instance, groups []string, tags map[string]string) error {
	sorted := func(list []string) []string { return slices.Sorted(slices.Values(list)) }
	if !slices.Equal(sorted(has.Groups), sorted(groups)) {
		if _, err := c.EC2.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: aws.String(has.ID), Groups: groups}); err != nil {
			return failed("changing the security groups of instance", has.ID, err)
		}
	}
	set, remove := changes(has.Tags, tags)
	if len(set) > 0 {
		if _, err := c.EC2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{has.ID}, Tags: ec2Tags(set)}); err != nil {
			return failed("tagging instance", has.ID, err)
		}
	}
	if len(remove) > 0 {
		var gone []types.Tag
		for _, key := range remove {
			gone = append(gone, types.Tag{Key: aws.String(key)})
		}
		if _, err := c.EC2.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{has.ID}, Tags: gone}); err != nil {
			return failed("removing tags of instance", has.ID, err)
		}
	}
	return nil
}

// Console is what an instance wrote to its console last, Boxer's own lines if there
// are some. It is a hint: nil where AWS has nothing to show (yet).
func (c *Client) Console(ctx context.Context, id string) []string {
	out, err := c.EC2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: aws.String(id), Latest: aws.Bool(true)})
	if err != nil { // only newer types show the latest
		if out, err = c.EC2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: aws.String(id)}); err != nil {
			return nil
		}
	}
	text, err := base64.StdEncoding.DecodeString(aws.ToString(out.Output))
	if err != nil {
		text = []byte(aws.ToString(out.Output))
	}
	var all, ours []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		all = append(all, line)
		if strings.Contains(line, "boxer") {
			ours = append(ours, line)
		}
	}
	if len(ours) > 0 {
		all = ours
	}
	return all[max(0, len(all)-12):]
}

// optional is nil for what is not given.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return aws.String(s)
}

// SubnetsFor are the subnets for a node that names none, the one to try first first. Nodes
// are spread over the zones by their names, so that a successor is where its predecessor was.
func (c *Client) SubnetsFor(ctx context.Context, n *Network, node string) ([]string, error) {
	subnets, err := c.subnets(ctx, n)
	if err != nil {
		return nil, err
	}
	if len(subnets) == 0 {
		return nil, &Error{Doing: "looking for a subnet in", On: n.VPC, Err: ErrNotFound, Remedy: "Set subnet_id."}
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(node))
	first := int(sum.Sum32() % uint32(len(subnets)))
	return append(slices.Clone(subnets[first:]), subnets[:first]...), nil
}

// RunInstanceIn starts an instance in the first of these subnets whose zone has one to give:
// not every zone has every type.
func (c *Client) RunInstanceIn(ctx context.Context, s InstanceSpec, subnets []string) (made Instance, err error) {
	token := s.ClientToken
	for i, subnet := range subnets {
		if s.Subnet = subnet; token != "" { // another request needs another token
			s.ClientToken = fmt.Sprintf("%s-%d", token, i)
		}
		if made, err = c.RunInstance(ctx, s); !is(err, "Unsupported", "InsufficientInstanceCapacity") {
			break
		}
	}
	return made, err
}

// RoleARN is the role of a part of the network.
func (c *Client) RoleARN(ctx context.Context, n *Network, part string) (string, error) {
	account, err := c.Account(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("arn:%s:iam::%s:role%s%s", partition(c.Region), account, n.path(), n.RoleName(part)), nil
}
