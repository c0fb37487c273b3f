// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

const (
	// defaultReadyTimeout is how long a node may take from its launch to a running guest.
	defaultReadyTimeout = 2 * time.Minute
	// stepTimeout is enough to start a dead daemon and its seed again.
	stepTimeout = time.Minute
)

// localPlatform runs everything on this machine. It opens the state directory
// on first use, so that planning new resources makes none.
type localPlatform struct {
	dir    string // "": the default
	layers LayerSource
	ready  time.Duration

	mu     sync.Mutex
	opened *localcloud.Store
}

func newLocalPlatform(dir string, source LayerSource) *localPlatform {
	return &localPlatform{dir: dir, layers: source, ready: defaultReadyTimeout}
}

// store is the state directory, for everything but making a network: what a
// network runs is kept with it.
func (p *localPlatform) store() (*localcloud.Store, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened != nil {
		return p.opened, nil
	}
	store, err := p.open(localcloud.Runtime{})
	if err != nil {
		return nil, err
	}
	p.opened = store
	return store, nil
}

func (p *localPlatform) open(rt localcloud.Runtime) (*localcloud.Store, error) {
	dir := p.dir
	if dir == "" {
		var err error
		if dir, err = localcloud.DefaultStateDir(); err != nil {
			return nil, err
		}
	}
	return localcloud.Open(dir, rt)
}

// connect returns a client that may start things; a dead daemon is restarted.
func (p *localPlatform) connect(ctx context.Context, network string) (*localcloud.Client, error) {
	store, err := p.store()
	if err != nil {
		return nil, err
	}
	client, err := connectTo(ctx, store, network)
	if errors.Is(err, localcloud.ErrNotFound) {
		return nil, &explained{fmt.Errorf("network %q does not exist in %s", network, store.Dir()),
			"Run terraform plan again: it will propose to create what is missing."}
	}
	return client, err
}

// connectTo returns a client of a network's daemon, which is started again if it
// died.
func connectTo(ctx context.Context, store *localcloud.Store, network string) (*localcloud.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	return store.Connect(ctx, network)
}

// step gives one step of the local cloud its time even when the user interrupts
// terraform: cut short, nobody knows whether its host exists, or a daemon that
// lives is taken for dead. Waiting, which comes after it, can be interrupted.
func step(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
}

// look returns a client that only looks, nil if the network's daemon does not
// run: looking must not start one. Without a network it fails with errGone.
func (p *localPlatform) look(ctx context.Context, network string) (*localcloud.Client, error) {
	store, err := p.store()
	if err != nil {
		return nil, err
	}
	info, err := store.Network(network)
	switch {
	case errors.Is(err, localcloud.ErrNotFound):
		return nil, errGone
	case err != nil || !info.Alive:
		return nil, err
	}
	return connectTo(ctx, store, network)
}

func (p *localPlatform) MachineID() (string, error) {
	store, err := p.store()
	if err != nil {
		return "", err
	}
	return store.MachineID()
}

func (p *localPlatform) CreateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error) {
	var info localcloud.NetworkInfo
	err := withLayer(p.layers, func(rt localcloud.Runtime) error {
		store, err := p.open(rt)
		if err != nil {
			return err
		}
		info, err = store.CreateNetwork(ctx, localcloud.NetworkSpec{Name: spec.Name, CIDR: spec.CIDR, Port: spec.Port})
		if errors.Is(err, localcloud.ErrExists) {
			return networkExists(spec.Name, store.Dir())
		}
		return err
	})
	return statusOf(info), err
}

func (p *localPlatform) Network(_ context.Context, name string) (networkStatus, error) {
	store, err := p.store()
	if err != nil {
		return networkStatus{}, err
	}
	info, err := store.Network(name)
	if errors.Is(err, localcloud.ErrNotFound) {
		return networkStatus{}, errGone
	}
	return statusOf(info), err
}

func statusOf(info localcloud.NetworkInfo) networkStatus {
	return networkStatus{
		CIDR: info.CIDR, Port: info.Port,
		SeedEndpoints: info.SeedEndpoints,
		SecretRef:     "file:" + info.SecretFile,
	}
}

func (p *localPlatform) DeleteNetwork(ctx context.Context, name string) error {
	store, err := p.store()
	if err != nil {
		return err
	}
	if err := store.DeleteNetwork(ctx, name); err != nil && !errors.Is(err, localcloud.ErrNotFound) {
		return err
	}
	return nil
}

func (p *localPlatform) StartVM(ctx context.Context, spec nodeSpec) (launch.Want, error) {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return launch.Want{}, err
	}
	defer client.Close()
	want := launch.Want{Slot: spec.Name, Token: launch.Token()}
	node, err := spec.node(want)
	if err != nil {
		return want, err
	}
	// What is left of a dead host must not stand in the way of its successor.
	old, err := client.Host(ctx, spec.Name)
	switch {
	case errors.Is(err, localcloud.ErrNotFound):
	case err != nil:
		return want, err
	case old.State != localcloud.HostExited:
		return want, nameTaken(spec, "a host that runs since "+old.Started.Format(time.DateTime))
	default:
		if err := client.DeleteHost(ctx, spec.Name); err != nil {
			return want, err
		}
	}
	if err := slotFree(ctx, client, spec, want.Slot); err != nil {
		return want, err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	_, err = launcher(ctx, client).VM(ctx, node, spec.SourceDir)
	if errors.Is(err, localcloud.ErrExists) {
		return want, nameTaken(spec, "another host")
	}
	return want, err
}

// VM fails with errGone when the host is not there or dead. A host dies with
// the daemon.
func (p *localPlatform) VM(ctx context.Context, network, name string) (string, error) {
	client, err := p.look(ctx, network)
	if err == nil && client == nil {
		err = errGone
	}
	if err != nil {
		return "", err
	}
	defer client.Close()
	host, err := client.Host(ctx, name)
	if errors.Is(err, localcloud.ErrNotFound) || err == nil && host.State == localcloud.HostExited {
		return "", errGone
	}
	return host.LaunchID, err
}

func (p *localPlatform) DeleteVM(ctx context.Context, network, name string) error {
	return p.remove(ctx, network, func(c *localcloud.Client) error { return c.DeleteHost(ctx, name) })
}

// remove runs one deletion; a network that is gone has nothing to delete.
func (p *localPlatform) remove(ctx context.Context, network string, deletion func(*localcloud.Client) error) error {
	store, err := p.store()
	if err != nil {
		return err
	}
	client, err := connectTo(ctx, store, network)
	if errors.Is(err, localcloud.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.Close()
	if err := deletion(client); err != nil && !errors.Is(err, localcloud.ErrNotFound) {
		return err
	}
	return nil
}

func (p *localPlatform) CreateFunction(ctx context.Context, spec nodeSpec) error {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := step(ctx)
	defer cancel()
	_, err = client.CreateFunction(ctx, localcloud.FunctionSpec{
		Name: spec.Name, SourceDir: spec.SourceDir, MemoryMB: spec.MemoryMB, EphemeralMB: spec.EphemeralMB, TimeoutS: spec.TimeoutS,
	})
	if errors.Is(err, localcloud.ErrExists) {
		return nameTaken(spec, "another function")
	}
	return err
}

func (p *localPlatform) StartReplica(ctx context.Context, spec nodeSpec, slot string) (launch.Want, error) {
	want := launch.Want{Slot: slot, Token: launch.Token(), Function: spec.Name}
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return want, err
	}
	defer client.Close()
	node, err := spec.node(want)
	if err != nil {
		return want, err
	}
	if err := slotFree(ctx, client, spec, slot); err != nil {
		return want, err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	return want, launcher(ctx, client).Function(ctx, spec.Name, node)
}

func (p *localPlatform) StopReplica(ctx context.Context, network, name, slot string) error {
	return p.remove(ctx, network, func(c *localcloud.Client) error { return c.StopInvocation(ctx, name, slot) })
}

// RunningReplicas fails with errGone when the function is not there. A function
// survives the daemon; its replicas do not.
func (p *localPlatform) RunningReplicas(ctx context.Context, network, name string) ([]string, error) {
	client, err := p.look(ctx, network)
	if err != nil || client == nil {
		return nil, err
	}
	defer client.Close()
	if _, err := client.Function(ctx, name); err != nil {
		if errors.Is(err, localcloud.ErrNotFound) {
			err = errGone
		}
		return nil, err
	}
	invocations, err := client.Invocations(ctx, name)
	if err != nil {
		return nil, err
	}
	var slots []string
	for _, invocation := range invocations {
		if invocation.State == localcloud.InvocationRunning {
			slots = append(slots, invocation.Slot)
		}
	}
	return slots, nil
}

func (p *localPlatform) DeleteFunction(ctx context.Context, network, name string) error {
	return p.remove(ctx, network, func(c *localcloud.Client) error { return c.DeleteFunction(ctx, name) })
}

func (p *localPlatform) Await(ctx context.Context, network string, launches []launch.Want) ([]cluster.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, p.ready)
	defer cancel()
	client, err := p.connect(ctx, network)
	if err == nil {
		defer client.Close()
		var members []cluster.Member
		if members, err = launcher(ctx, client).Wait(ctx, launches); err == nil {
			return members, nil
		}
	}
	var failure *launch.Failure
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, fmt.Errorf("interrupted before the guest ran: %w", ctx.Err())
	case errors.As(err, &failure):
		if ctx.Err() != nil { // the log that launch points to goes with the node
			failure.Remedy = fmt.Sprintf("A node has %s to run: check its command and what it waits for, then apply again", p.ready)
		}
		return nil, err
	}
	return nil, seedProblem(network, err)
}

func launcher(ctx context.Context, client *localcloud.Client) *launch.Launcher {
	return &launch.Launcher{
		Network: client.Info(), Client: client,
		Progress: func(waited time.Duration, missing []string) {
			tflog.Info(ctx, "waiting for guests to run", map[string]any{"waited": waited.String(), "missing": strings.Join(missing, ", ")})
		},
	}
}

// node is the document that configures one slot of the spec.
func (s nodeSpec) node(want launch.Want) (config.Node, error) {
	if len(s.Command) == 0 {
		return config.Node{}, errors.New("no command to run")
	}
	return config.Node{
		Version: config.Version, Network: s.Network, Kind: s.Kind,
		Name: s.Name, Service: s.Service, Slot: want.Slot, LaunchToken: want.Token,
		Argv: s.Command, WaitFor: s.WaitFor, Publish: s.Publish,
		Transports: s.Transports,
	}, nil
}
