// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// fakePlatform keeps networks and nodes in memory, and fails when told to. It
// is for what the real platform cannot be made to do on purpose; everything
// else is tested on the real one (acceptance_test.go).
type fakePlatform struct {
	mu        sync.Mutex
	machine   string
	notice    string // of networks that are made
	secret    string // of the network made last
	networks  map[string]networkStatus
	vms       map[string]vmStatus
	functions map[string]*fakeFunction
	members   map[string]cluster.Member // by slot
	nextID    uint32
	calls     []string
	waited    map[string]launch.Want // by slot

	aws      bool   // it passes for AWS
	await    error  // what Await fails with
	failing  string // the only slot that it fails for; "": all
	deletion error  // what deletions of nodes fail with
	look     error  // what looks at nodes fail with
}

// fakeFunction is a function with the revisions of it that its running slots were
// started with.
type fakeFunction struct {
	spec     nodeSpec
	revision int
	running  map[string]int
	kept     *policy
	count    int // that the controller keeps
}

// move is what the controller does of itself. The caller is change.
func (f *fakePlatform) move(name string, count int) {
	function := f.functions[name]
	function.count = count
	clear(function.running)
	for _, slot := range launch.Slots(name, count) {
		function.running[slot] = function.revision
		if _, held := f.members[slot]; !held {
			f.nextID++
			f.members[slot] = cluster.Member{ID: f.nextID, Slot: slot, OverlayAddress: netip.AddrFrom4([4]byte{100, 80, 0, byte(f.nextID)})}
		}
	}
}

func newFakePlatform() *fakePlatform {
	return &fakePlatform{
		machine: "here", networks: map[string]networkStatus{}, vms: map[string]vmStatus{}, functions: map[string]*fakeFunction{},
		members: map[string]cluster.Member{}, waited: map[string]launch.Want{}, nextID: 2,
	}
}

func (f *fakePlatform) OnAWS() bool { return f.aws }

// instance is what AWS would tell.
func (f *fakePlatform) instance(spec nodeSpec) *awsVM {
	if !f.aws {
		return nil
	}
	image := spec.AWS.ImageID
	if image == "" {
		image = "ami-0123456789abcdef0"
	}
	return &awsVM{InstanceID: "i-1", PrivateIP: "10.0.0.7", PublicIP: "203.0.113.7", ImageID: image}
}

func withPlatform(p platform) Option { return func(b *boxerProvider) { b.fixed = p } }

// locked notes the call and holds the lock until the returned function is called.
func (f *fakePlatform) locked(call string) func() {
	f.mu.Lock()
	f.calls = append(f.calls, call)
	return f.mu.Unlock
}

func (f *fakePlatform) MachineID() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.machine, nil
}

func (f *fakePlatform) CreateNetwork(_ context.Context, spec networkSpec) (networkStatus, error) {
	defer f.locked("create network " + spec.Name)()
	f.secret = spec.Secret
	endpoints := []string{"127.0.0.1:7", "127.0.0.1:8", "127.0.0.1:9"}
	f.networks[spec.Name] = networkStatus{
		CIDR: spec.CIDR, Port: spec.Port, SeedEndpoints: endpoints[:spec.Seeds], SecretRef: "file:/secret",
		SecretVersion: spec.SecretVersion, RuntimeVersion: spec.RuntimeVersion, Tags: spec.Tags, Notice: f.notice,
	}
	if f.aws {
		status := f.networks[spec.Name]
		status.AWS = spec.AWS
		f.networks[spec.Name] = status
	}
	return f.networks[spec.Name], nil
}

func (f *fakePlatform) UpdateNetwork(_ context.Context, spec networkSpec) (networkStatus, error) {
	defer f.locked("update network " + spec.Name)()
	status := f.networks[spec.Name]
	status.Tags = spec.Tags
	f.networks[spec.Name] = status
	return status, nil
}

func (f *fakePlatform) Network(_ context.Context, name string) (networkStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	status, ok := f.networks[name]
	if !ok {
		return status, errGone
	}
	return status, nil
}

func (f *fakePlatform) DeleteNetwork(_ context.Context, name string) error {
	defer f.locked("delete network " + name)()
	delete(f.networks, name)
	return nil
}

func (f *fakePlatform) StartVM(_ context.Context, spec nodeSpec) (launch.Want, error) {
	defer f.locked("start vm " + spec.Name)()
	want := launch.Want{Slot: spec.Name, Token: launch.Token(), JoinOnly: spec.JoinOnly}
	f.vms[spec.Name] = vmStatus{LaunchID: cluster.LaunchID(want.Token), Spec: recorded(spec), AWS: f.instance(spec)}
	return want, nil
}

// recorded is a spec as a platform keeps it.
func recorded(spec nodeSpec) nodeSpec {
	spec.SourceDir, spec.Package, spec.KeepSource, spec.JoinOnly, spec.Policy = "", "", false, false, policy{}
	return spec
}

func (f *fakePlatform) UpdateVM(_ context.Context, spec nodeSpec, again bool) error {
	call := "update vm " + spec.Name
	if again {
		call += " again"
	}
	defer f.locked(call)()
	f.vms[spec.Name] = vmStatus{LaunchID: f.vms[spec.Name].LaunchID, Spec: recorded(spec), AWS: f.instance(spec)}
	return nil
}

func (f *fakePlatform) VM(_ context.Context, _, name string) (vmStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, ok := f.vms[name]
	if !ok && f.look == nil {
		return vmStatus{}, errGone
	}
	return found, f.look
}

func (f *fakePlatform) DeleteVM(_ context.Context, _, name string) error {
	defer f.locked("delete vm " + name)()
	if f.deletion == nil {
		delete(f.vms, name)
	}
	return f.deletion
}

func (f *fakePlatform) CreateFunction(_ context.Context, spec nodeSpec) error {
	defer f.locked("create function " + spec.Name)()
	f.functions[spec.Name] = &fakeFunction{spec: recorded(spec), running: map[string]int{}}
	return nil
}

func (f *fakePlatform) UpdateFunction(_ context.Context, spec nodeSpec) error {
	defer f.locked("update function " + spec.Name)()
	function := f.functions[spec.Name]
	if !spec.KeepSource || !spec.sameGuest(function.spec) {
		function.revision++
	}
	function.spec = recorded(spec)
	return nil
}

func (f *fakePlatform) StartReplica(_ context.Context, spec nodeSpec, slot string) (launch.Want, error) {
	defer f.locked("start " + slot)()
	f.functions[spec.Name].running[slot] = f.functions[spec.Name].revision
	return launch.Want{Slot: slot, Token: launch.Token(), Function: spec.Name}, nil
}

func (f *fakePlatform) StopReplica(_ context.Context, _, name, slot string) error {
	defer f.locked("stop " + slot)()
	delete(f.functions[name].running, slot)
	return nil
}

func (f *fakePlatform) Function(_ context.Context, _, name string) (functionStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	function, ok := f.functions[name]
	if f.look != nil {
		return functionStatus{}, f.look
	}
	if !ok {
		return functionStatus{}, errGone
	}
	status := functionStatus{Spec: function.spec, Kept: function.kept}
	if f.aws {
		status.AWS = &awsFunction{ARN: "arn:aws:lambda:eu-central-1:123456789012:function:boxer-shop_" + name, LogGroup: "/aws/lambda/boxer-shop_" + name}
	}
	for slot, started := range function.running {
		status.Running = append(status.Running, slot)
		if started != function.revision {
			status.Stale = append(status.Stale, slot)
		}
	}
	slices.Sort(status.Running)
	slices.Sort(status.Stale)
	return status, nil
}

func (f *fakePlatform) Keep(_ context.Context, spec nodeSpec, count int) (wants []launch.Want, err error) {
	defer f.locked(fmt.Sprintf("keep %d of %s", count, spec.Name))()
	function := f.functions[spec.Name]
	switch {
	case count >= 0:
	case function.kept == nil:
		count = max(spec.Policy.Min, spec.Policy.Count, 0)
	default:
		count = spec.Policy.clamp(function.count)
	}
	function.kept, function.count = &spec.Policy, count
	maps.DeleteFunc(function.running, func(slot string, _ int) bool { return !slices.Contains(launch.Slots(spec.Name, count), slot) })
	for _, slot := range launch.Slots(spec.Name, count) {
		if _, runs := function.running[slot]; !runs {
			function.running[slot] = function.revision
		}
		wants = append(wants, launch.Want{Slot: slot, Token: launch.Token(), Function: spec.Name})
	}
	return wants, nil
}

func (f *fakePlatform) Release(_ context.Context, _, name string) (was int, err error) {
	defer f.locked("release " + name)()
	function := f.functions[name]
	if function == nil || function.kept == nil {
		return -1, nil
	}
	function.kept = nil
	return function.count, nil
}

func (f *fakePlatform) DeleteFunction(_ context.Context, _, name string) error {
	defer f.locked("delete function " + name)()
	if f.deletion == nil {
		delete(f.functions, name)
	}
	return f.deletion
}

func (f *fakePlatform) Watching(ctx context.Context, _ string) (context.Context, func()) {
	return ctx, func() {}
}

func (f *fakePlatform) Await(_ context.Context, _ string, launches []launch.Want) ([]cluster.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.await != nil && (f.failing == "" || slices.ContainsFunc(launches, func(w launch.Want) bool { return w.Slot == f.failing })) {
		return nil, f.await
	}
	var members []cluster.Member
	for _, want := range launches {
		f.waited[want.Slot] = want
		member, held := f.members[want.Slot]
		launched := want.ID
		if launched == "" {
			launched = cluster.LaunchID(want.Token)
		}
		if !held {
			member = cluster.Member{Slot: want.Slot, OverlayAddress: netip.AddrFrom4([4]byte{100, 80, 0, byte(f.nextID + 1)})}
		}
		if member.LaunchID != launched { // the address is the slot's, the id the launch's
			f.nextID++
			member.ID, member.LaunchID = f.nextID, launched
		}
		f.members[want.Slot] = member
		members = append(members, member)
	}
	return members, nil
}

// change lets a test change what there is.
func (f *fakePlatform) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
}

// called returns the calls since the last time, in any order of concurrent ones.
func (f *fakePlatform) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	slices.Sort(calls)
	return calls
}

func wantCalls(t *testing.T, f *fakePlatform, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := f.called(); !slices.Equal(got, want) {
		t.Errorf("calls:\n got %q\nwant %q", got, want)
	}
}

var errGuest = &launch.Failure{
	Slot: "store", Cause: "the guest ended with exit status 3",
	Output: []string{"Reading the configuration", "fatal: no such option: --prot"}, Remedy: "Check the command",
}

var errDisk = errors.New("the disk is on fire")
