// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
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
	networks  map[string]networkStatus
	vms       map[string]string          // name -> launch id
	functions map[string]map[string]bool // name -> running slots
	nextID    uint32
	calls     []string

	await    error // what Await fails with
	deletion error // what deletions of nodes fail with
}

func newFakePlatform() *fakePlatform {
	return &fakePlatform{
		machine: "here", networks: map[string]networkStatus{}, vms: map[string]string{}, functions: map[string]map[string]bool{}, nextID: 2,
	}
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
	f.networks[spec.Name] = networkStatus{CIDR: spec.CIDR, Port: spec.Port, SeedEndpoints: []string{"127.0.0.1:7"}, SecretRef: "file:/secret"}
	return f.networks[spec.Name], nil
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
	want := launch.Want{Slot: spec.Name, Token: launch.Token()}
	f.vms[spec.Name] = cluster.LaunchID(want.Token)
	return want, nil
}

func (f *fakePlatform) VM(_ context.Context, _, name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.vms[name]
	if !ok {
		return "", errGone
	}
	return id, nil
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
	f.functions[spec.Name] = map[string]bool{}
	return nil
}

func (f *fakePlatform) StartReplica(_ context.Context, spec nodeSpec, slot string) (launch.Want, error) {
	defer f.locked("start " + slot)()
	f.functions[spec.Name][slot] = true
	return launch.Want{Slot: slot, Token: launch.Token(), Function: spec.Name}, nil
}

func (f *fakePlatform) StopReplica(_ context.Context, _, name, slot string) error {
	defer f.locked("stop " + slot)()
	delete(f.functions[name], slot)
	return nil
}

func (f *fakePlatform) RunningReplicas(_ context.Context, _, name string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	running, ok := f.functions[name]
	if !ok {
		return nil, errGone
	}
	var slots []string
	for slot := range running {
		slots = append(slots, slot)
	}
	slices.Sort(slots)
	return slots, nil
}

func (f *fakePlatform) DeleteFunction(_ context.Context, _, name string) error {
	defer f.locked("delete function " + name)()
	if f.deletion == nil {
		delete(f.functions, name)
	}
	return f.deletion
}

func (f *fakePlatform) Await(_ context.Context, _ string, launches []launch.Want) ([]cluster.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.await != nil {
		return nil, f.await
	}
	var members []cluster.Member
	for _, want := range launches {
		f.nextID++
		address := netip.AddrFrom4([4]byte{100, 80, 0, byte(f.nextID)})
		members = append(members, cluster.Member{ID: f.nextID, Slot: want.Slot, OverlayAddress: address})
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
