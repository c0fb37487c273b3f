// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

func (p *awsPlatform) CreateFunction(ctx context.Context, spec nodeSpec) error {
	n, err := p.networkFor(ctx, spec.Network)
	if err != nil {
		return err
	}
	found, err := p.cloud.FindFunction(ctx, n.FunctionName(spec.Name))
	if err == nil {
		return p.functionTaken(n, spec, found)
	}
	if !errors.Is(err, cloud.ErrNotFound) {
		return err
	}
	// Of a function that somebody else has deleted the controller does not know: it
	// would launch the new one for what was declared of the old one.
	if err := p.tell(ctx, n, controller.MethodRemove, controller.Order{Name: spec.Name}, nil); err != nil {
		return fmt.Errorf("have the network's controller forget what was declared of a function %q before: %w", spec.Name, err)
	}
	made, err := p.makeFunction(ctx, n, spec)
	if err != nil && made {
		err = errors.Join(err, p.undo(ctx, func(ctx context.Context) error { return p.removeFunction(ctx, n, spec.Name) }))
	}
	return err
}

func (p *awsPlatform) functionTaken(n *cloud.Network, spec nodeSpec, found cloud.Function) error {
	if found.Tags[cloud.TagNetwork] == n.Name && found.Tags[cloud.TagNode] == spec.Name {
		return awsTaken(spec, "function "+found.Name)
	}
	return &explained{fmt.Errorf("function %s exists, and was not made by Boxer: it has no tag %s = %q", found.Name, cloud.TagNetwork, n.Name),
		"Choose another name for the node, or another name_prefix for the network, or delete the function if nobody needs it. It was left as it is."}
}

func (p *awsPlatform) makeFunction(ctx context.Context, n *cloud.Network, spec nodeSpec) (made bool, err error) {
	f, err := p.functionSpec(ctx, n, spec, true)
	if err != nil {
		return false, err
	}
	made, err = p.cloud.CreateFunction(ctx, f)
	if errors.Is(err, cloud.ErrForeign) { // made meanwhile, or by a request whose answer was lost
		if found, look := p.cloud.FindFunction(ctx, f.Name); look == nil {
			err = p.functionTaken(n, spec, found)
		}
	}
	if err != nil {
		return made, err
	}
	return true, p.noteFunction(ctx, spec, f, awsRecord{})
}

// noteFunction keeps what a function was told to be, and what Lambda made of its code.
func (p *awsPlatform) noteFunction(ctx context.Context, spec nodeSpec, f cloud.FunctionSpec, r awsRecord) error {
	has, err := p.cloud.FindFunction(ctx, f.Name)
	if err != nil {
		return err
	}
	r.CodeSent = has.CodeSHA256
	if remote, ok, _ := parseS3(spec.Package); ok {
		if remote.SHA256 != "" && remote.SHA256 != has.CodeSHA256 {
			return &explained{fmt.Errorf("s3://%s/%s has SHA-256 %s, and %s was wanted", remote.Bucket, remote.Key, has.CodeSHA256, remote.SHA256),
				"Put the right zip there, or correct the hash in package."}
		}
		spec.CodeSHA256 = has.CodeSHA256
	}
	return p.keepRecord(ctx, spec, r)
}

// functionSpec is what a function node is to Lambda. code says whether its package goes
// with it.
func (p *awsPlatform) functionSpec(ctx context.Context, n *cloud.Network, spec nodeSpec, code bool) (cloud.FunctionSpec, error) {
	if err := n.CheckFunctionName(spec.Name); err != nil {
		return cloud.FunctionSpec{}, err
	}
	a := spec.AWS
	f := cloud.FunctionSpec{
		Network: n.Name, Node: spec.Name, Name: n.FunctionName(spec.Name), Role: a.RoleARN, Arch: a.architecture(),
		MemoryMB: spec.MemoryMB, TimeoutS: spec.TimeoutS, EphemeralMB: spec.EphemeralMB,
		Layers: []string{n.Layers[a.architecture()].ARN}, Environment: nodeVariables(), Reserved: a.Reserved,
		LogGroup: n.LogGroup(spec.Name), LogDays: n.LogDays, Tags: spec.Tags,
	}
	if len(a.SubnetIDs) > 0 {
		f.Subnets, f.Groups = a.SubnetIDs, append([]string{n.Group}, a.SecurityGroupIDs...)
	}
	var err error
	if f.Role == "" {
		if f.Role, err = p.cloud.RoleARN(ctx, n, cloud.PartFunction); err != nil {
			return f, err
		}
	}
	remote, inS3, err := parseS3(spec.Package)
	switch {
	case err != nil:
	case a.ImageURI != "":
		f.Code.Image = a.ImageURI
	case inS3:
		f.Code.Bucket, f.Code.Key, f.Code.Version = remote.Bucket, remote.Key, remote.Version
	case code:
		f.Code.Zip, err = codeZip(spec)
	}
	return f, err
}

// event is the launch event of a replica, but for its slot and token.
func (p *awsPlatform) event(n *cloud.Network, spec nodeSpec, want launch.Want) (config.Node, error) {
	doc, err := spec.node(want)
	if err != nil {
		return doc, err
	}
	place(&doc, n, p.cloud.Region)
	doc.Load = spec.Policy.Scale != nil
	return doc, nil
}

func (p *awsPlatform) StartReplica(ctx context.Context, spec nodeSpec, slot string) (launch.Want, error) {
	want := launch.Want{Slot: slot, Token: launch.Token(), Function: spec.Name, JoinOnly: spec.JoinOnly}
	n, err := p.networkFor(ctx, spec.Network)
	if err != nil {
		return want, err
	}
	doc, err := p.event(n, spec, want)
	if err != nil {
		return want, err
	}
	if err := p.slotFreeOnAWS(ctx, n, spec, slot); err != nil {
		return want, err
	}
	if doc, err = config.New(doc); err != nil {
		return want, err
	}
	payload, err := json.Marshal(doc)
	if err != nil {
		return want, fmt.Errorf("launch event of %q: %w", slot, err)
	}
	return want, p.cloud.Invoke(ctx, n.FunctionName(spec.Name), payload)
}

// StopReplica asks the replica to leave: nobody can end an invocation from outside.
func (p *awsPlatform) StopReplica(ctx context.Context, network, name, slot string) error {
	n, err := p.cloud.Network(ctx, network)
	if errors.Is(err, cloud.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.sendAway(ctx, n, slot)
}

// lookAtSeed bounds the question who runs, which a plan can do without.
const lookAtSeed = 5 * time.Second

// Function fails with errGone when there is no function. Which replicas run only a seed
// knows; without one the rest is told all the same.
func (p *awsPlatform) Function(ctx context.Context, network, name string) (functionStatus, error) {
	r, recorded, err := p.recordOf(ctx, network, name)
	if err != nil {
		return functionStatus{}, lookProblemOfNode(err)
	}
	n, err := p.cloud.Network(ctx, network)
	if errors.Is(err, cloud.ErrNotFound) { // what it was called cannot be told any more
		n, err = &cloud.Network{Name: network, Prefix: cloud.DefaultPrefix}, nil
	}
	if err != nil {
		return functionStatus{}, lookProblemOfNode(err)
	}
	found, err := p.cloud.FindFunction(ctx, n.FunctionName(name))
	if err != nil {
		return functionStatus{}, lookProblemOfNode(err)
	}
	if found.Tags[cloud.TagNetwork] != network || found.Tags[cloud.TagNode] != name {
		return functionStatus{}, errGone // another one has the name
	}
	status := functionStatus{Kept: r.Kept, Spec: r.Spec, AWS: &awsFunction{ARN: found.ARN, LogGroup: n.LogGroup(name)}}
	if status.AWS.Unrecorded = !recorded; recorded {
		compareFunction(&status.Spec, n, found, r)
	}
	status.Spec.Tags = cloud.UserTags(found.Tags)
	if len(status.Spec.Tags) == 0 {
		status.Spec.Tags = nil
	}
	status.Running, status.Stale, err = p.running(ctx, n, name, r.Stale)
	if err != nil {
		status.Unknown = err.Error()
	}
	return status, nil
}

// compareFunction puts what Lambda has where the record says otherwise.
func compareFunction(spec *nodeSpec, n *cloud.Network, found cloud.Function, r awsRecord) {
	spec.MemoryMB, spec.TimeoutS, spec.EphemeralMB = found.MemoryMB, found.TimeoutS, found.EphemeralMB
	if found.CodeSHA256 != r.CodeSent && spec.AWS.ImageURI == "" {
		spec.CodeSHA256 = found.CodeSHA256 // somebody sent other code
	}
	a := &spec.AWS
	if a.architecture() != found.Arch {
		a.Architecture = found.Arch
	}
	if a.ImageURI != "" && found.Image != "" {
		a.ImageURI = found.Image
	}
	if a.RoleARN != "" {
		a.RoleARN = found.Role
	}
	a.Reserved = found.Reserved
	own := slices.DeleteFunc(slices.Clone(found.Groups), func(id string) bool { return id == n.Group })
	same := func(a, b []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
	}
	if !same(own, a.SecurityGroupIDs) {
		a.SecurityGroupIDs = own
	}
	if !same(found.Subnets, a.SubnetIDs) {
		a.SubnetIDs = found.Subnets
	}
}

// running are the slots of a function's replicas, and those of them that were launched
// by an earlier configuration.
func (p *awsPlatform) running(ctx context.Context, n *cloud.Network, name string, before []string) (slots, stale []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookAtSeed)
	defer cancel()
	session, err := p.watch(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	defer session.Close()
	for _, m := range replicasIn(session.Members(), name) {
		slots = append(slots, m.Slot)
		if slices.Contains(before, m.LaunchID) {
			stale = append(stale, m.Slot)
		}
	}
	return slots, stale, nil
}

// replicasIn are the members that are replicas of a function and hold their slots.
func replicasIn(members []cluster.Member, name string) (found []cluster.Member) {
	for _, m := range members {
		if m.Kind == config.KindFunction && m.Name == name && m.Holds() && m.State != cluster.StateLost && m.State != cluster.StateLeft {
			found = append(found, m)
		}
	}
	return found
}

func (p *awsPlatform) UpdateFunction(ctx context.Context, spec nodeSpec) error {
	n, err := p.networkFor(ctx, spec.Network)
	if err != nil {
		return err
	}
	has, err := p.cloud.FindFunction(ctx, n.FunctionName(spec.Name))
	if errors.Is(err, cloud.ErrNotFound) {
		return &explained{err, "It ended after the plan: run terraform apply again, which makes it anew."}
	}
	if err != nil {
		return err
	}
	r, recorded, err := p.recordOf(ctx, n.Name, spec.Name)
	if err != nil {
		return err
	}
	if changed := !recorded || !spec.KeepSource || !r.Spec.sameGuest(spec) || !sameFunctionOnAWS(r.Spec.AWS, spec.AWS); changed {
		// Those that run go on as they began; the next ones are the new ones.
		members, err := p.Members(ctx, n.Name)
		if err != nil {
			return err
		}
		r.Stale = nil
		for _, m := range replicasIn(members, spec.Name) {
			r.Stale = append(r.Stale, m.LaunchID)
		}
		if err := p.keepRecord(ctx, r.Spec.named(spec), r); err != nil {
			return err
		}
	}
	code := !spec.KeepSource || has.CodeSHA256 != r.CodeSent || r.Spec.AWS.architecture() != spec.AWS.architecture() || r.Spec.AWS.ImageURI != spec.AWS.ImageURI ||
		r.Spec.Package != spec.kept().Package
	f, err := p.functionSpec(ctx, n, spec, code)
	if err != nil {
		return err
	}
	if err := p.cloud.UpdateFunction(ctx, f, code); err != nil {
		return err
	}
	return p.noteFunction(ctx, spec, f, r)
}

// named is a recorded spec, under the name and tags of another.
func (s nodeSpec) named(other nodeSpec) nodeSpec {
	s.Network, s.Name, s.Tags = other.Network, other.Name, other.Tags
	return s
}

// sameFunctionOnAWS: a replica of one is as good as one of the other.
func sameFunctionOnAWS(one, other awsNode) bool {
	one.Reserved, other.Reserved = nil, nil
	one.Architecture, other.Architecture = one.architecture(), other.architecture()
	return reflect.DeepEqual(one, other)
}

func (p *awsPlatform) Keep(ctx context.Context, spec nodeSpec, count int) ([]launch.Want, error) {
	n, err := p.networkFor(ctx, spec.Network)
	if err != nil {
		return nil, err
	}
	doc, err := p.event(n, spec, launch.Want{})
	if err != nil {
		return nil, err
	}
	d := spec.Policy.declaration()
	d.Name, d.Function, d.Node, d.Count, d.MemoryMB = spec.Name, spec.Name, doc, count, spec.MemoryMB
	var view controller.View
	if err := p.tell(ctx, n, controller.MethodDeclare, d, &view); err != nil {
		return nil, fmt.Errorf("declare the replicas to the network's controller: %w", err)
	}
	r, _, err := p.recordOf(ctx, n.Name, spec.Name)
	if err != nil {
		return nil, err
	}
	kept := spec.Policy
	if !kept.owned() {
		kept.Count = view.Count
	}
	r.Kept = &kept
	code := r.Spec.CodeSHA256
	if spec.CodeSHA256 == "" {
		spec.CodeSHA256 = code
	}
	return launch.Wants(spec.Name, view), p.keepRecord(ctx, spec, r)
}

func (p *awsPlatform) Release(ctx context.Context, network, name string) (was int, err error) {
	r, recorded, err := p.recordOf(ctx, network, name)
	if err != nil || recorded && r.Kept == nil {
		return -1, err
	}
	n, err := p.networkFor(ctx, network)
	if err != nil {
		return -1, err
	}
	view := controller.View{Count: -1}
	if err := p.tell(ctx, n, controller.MethodRemove, controller.Order{Name: name, Stay: true}, &view); err != nil {
		return -1, fmt.Errorf("take the replicas of %q from the network's controller: %w", name, err)
	}
	if !recorded {
		return view.Count, nil
	}
	r.Kept = nil
	_, tags, err := p.cloud.Node(ctx, network, name)
	if err != nil {
		return view.Count, err
	}
	r.Spec.Network, r.Spec.Name, r.Spec.Tags = network, name, tags
	return view.Count, p.keepRecord(ctx, r.Spec, r)
}
