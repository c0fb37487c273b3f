// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

const (
	// stepTimeout is enough to start a dead daemon and its seed again.
	stepTimeout = time.Minute
)

// localPlatform runs everything on this machine. It opens the state directory
// on first use, so that planning new resources makes none.
type localPlatform struct {
	dir       string // "": the default
	isolation string // of new networks; "": the default
	layers    LayerSource
	patience  time.Duration // with what does not answer, or does not end

	mu     sync.Mutex
	opened *localcloud.Store
}

func newLocalPlatform(dir string, source LayerSource) *localPlatform {
	return &localPlatform{dir: dir, layers: source, patience: lookTimeout}
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

// lookTimeout bounds a look at what there is, but in tests.
const lookTimeout = 10 * time.Second

// look returns a client that only looks, nil if the network's daemon does not
// run: looking must not start one. Without a network it fails with errGone.
func (p *localPlatform) look(ctx context.Context, network string) (*localcloud.Client, error) {
	store, err := p.store()
	if err != nil {
		return nil, err
	}
	client, err := store.Reach(ctx, network)
	if errors.Is(err, localcloud.ErrNotFound) {
		return nil, errGone
	}
	return client, lookProblem(err)
}

// lookProblem tells errors that say nothing about what there is from others.
func lookProblem(err error) error {
	if errors.Is(err, localcloud.ErrUnreachable) {
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	return err
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
		made := localcloud.NetworkSpec{
			Name: spec.Name, CIDR: spec.CIDR, Port: spec.Port, Seeds: spec.Seeds, Isolation: p.isolation,
			Version: spec.RuntimeVersion, SecretVersion: spec.SecretVersion, Tags: spec.Tags,
		}
		if spec.Secret != "" {
			made.Secret = []byte(spec.Secret)
		}
		info, err = store.CreateNetwork(ctx, made)
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
	if info.Version == "" && len(info.Runtime) > 12 { // made by the command line, or an earlier version
		info.Version = "sha256-" + info.Runtime[:12]
	}
	return networkStatus{
		CIDR: info.CIDR, Port: info.Port, Tags: info.Tags, SecretVersion: info.SecretVersion, RuntimeVersion: info.Version,
		SeedEndpoints: info.SeedEndpoints,
		SecretRef:     "file:" + info.SecretFile,
		Notice:        info.Notice,
	}
}

func (p *localPlatform) UpdateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error) {
	store, err := p.store()
	if err != nil {
		return networkStatus{}, err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	info, err := store.UpdateNetwork(ctx, spec.Name, func(info *localcloud.NetworkInfo) { info.Tags = spec.Tags })
	return statusOf(info), goneMeanwhile(err)
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
	want := launch.Want{Slot: spec.Name, Token: launch.Token(), JoinOnly: spec.JoinOnly}
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
	if err := p.slotFree(ctx, client, spec, want.Slot); err != nil {
		return want, err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	err = withSource(spec, func(dir string) error {
		_, err := client.CreateHost(ctx, localcloud.HostSpec{Config: node, SourceDir: dir, CodeSHA256: spec.CodeSHA256, Tags: spec.Tags})
		return err
	})
	if errors.Is(err, localcloud.ErrExists) {
		return want, nameTaken(spec, "another host")
	}
	return want, err
}

// withSource shows the directory that goes to /var/task to use, "" if there is
// none or it stays as it is.
func withSource(spec nodeSpec, use func(dir string) error) error {
	switch {
	case spec.KeepSource:
		return use("")
	case spec.Package == "":
		return use(spec.SourceDir)
	}
	dir, err := unpack(spec.Package)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return use(dir)
}

func (p *localPlatform) UpdateVM(ctx context.Context, spec nodeSpec, again bool) error {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return err
	}
	defer client.Close()
	node, err := spec.node(launch.Want{Slot: spec.Name})
	if err != nil {
		return err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	err = withSource(spec, func(dir string) error {
		_, err := client.UpdateHost(ctx, localcloud.HostSpec{
			Config: node, SourceDir: dir, KeepSource: spec.KeepSource, CodeSHA256: spec.CodeSHA256, Tags: spec.Tags, Restart: again,
		})
		return err
	})
	return goneMeanwhile(err)
}

// goneMeanwhile: what the plan found is not there any more.
func goneMeanwhile(err error) error {
	if errors.Is(err, localcloud.ErrNotFound) {
		return &explained{err, "It ended after the plan: run terraform apply again, which makes it anew."}
	}
	return err
}

// VM fails with errGone when the host is not there or dead. A host dies with
// the daemon.
func (p *localPlatform) VM(ctx context.Context, network, name string) (vmStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	client, err := p.look(ctx, network)
	if err == nil && client == nil {
		err = errGone
	}
	if err != nil {
		return vmStatus{}, err
	}
	defer client.Close()
	host, err := client.Host(ctx, name)
	if errors.Is(err, localcloud.ErrNotFound) || err == nil && (host.State == localcloud.HostExited || host.Kind != config.KindVM) {
		return vmStatus{}, errGone
	}
	return vmStatus{LaunchID: host.LaunchID, Spec: specOf(host.Config, host.CodeSHA256, host.Tags)}, lookProblem(err)
}

// specOf is what a recorded configuration was made of. One that the command line
// made may leave the service to its default.
func specOf(n config.Node, code string, tags map[string]string) nodeSpec {
	return nodeSpec{
		Network: n.Network, Name: n.Name, Service: cmp.Or(n.Service, n.Name), Kind: n.Kind, Command: n.Argv,
		Environment: n.Env, Files: n.Files, Remap: n.Remap, WorkingDir: n.WorkingDir, User: n.User, Restart: n.Restart,
		CodeSHA256: code, WaitFor: n.WaitFor, Transports: n.Transports, Publish: n.Publish, Tags: tags,
	}
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
	// Of a function that somebody else has deleted the controller does not know: it
	// would launch the new one for what was declared of the old one.
	if _, err := client.Function(ctx, spec.Name); errors.Is(err, localcloud.ErrNotFound) {
		if err := launch.Control(ctx, client.Info(), controller.MethodRemove, controller.Order{Name: spec.Name}, nil); err != nil {
			return fmt.Errorf("have the network's controller forget what was declared of a function %q before: %w", spec.Name, err)
		}
	}
	err = withFunction(spec, func(f localcloud.FunctionSpec) error {
		_, err := client.CreateFunction(ctx, f)
		return err
	})
	if errors.Is(err, localcloud.ErrExists) {
		return nameTaken(spec, "another function")
	}
	return err
}

// withFunction shows the function of a spec to use.
func withFunction(spec nodeSpec, use func(localcloud.FunctionSpec) error) error {
	node, err := spec.node(launch.Want{Slot: spec.Name})
	if err != nil {
		return err
	}
	return withSource(spec, func(dir string) error {
		return use(localcloud.FunctionSpec{
			Name: spec.Name, SourceDir: dir, KeepSource: spec.KeepSource, CodeSHA256: spec.CodeSHA256, Tags: spec.Tags, Config: &node,
			MemoryMB: spec.MemoryMB, EphemeralMB: spec.EphemeralMB, TimeoutS: spec.TimeoutS,
		})
	})
}

func (p *localPlatform) UpdateFunction(ctx context.Context, spec nodeSpec) error {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := step(ctx)
	defer cancel()
	err = withFunction(spec, func(f localcloud.FunctionSpec) error {
		_, err := client.UpdateFunction(ctx, f)
		return err
	})
	return goneMeanwhile(err)
}

func (p *localPlatform) StartReplica(ctx context.Context, spec nodeSpec, slot string) (launch.Want, error) {
	want := launch.Want{Slot: slot, Token: launch.Token(), Function: spec.Name, JoinOnly: spec.JoinOnly}
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return want, err
	}
	defer client.Close()
	node, err := spec.node(want)
	if err != nil {
		return want, err
	}
	if err := p.slotFree(ctx, client, spec, slot); err != nil {
		return want, err
	}
	node.Load = spec.Policy.Scale != nil
	ctx, cancel := step(ctx)
	defer cancel()
	return want, launcher(ctx, client).Function(ctx, spec.Name, node)
}

func (p *localPlatform) StopReplica(ctx context.Context, network, name, slot string) error {
	return p.remove(ctx, network, func(c *localcloud.Client) error { return c.StopInvocation(ctx, name, slot) })
}

// Function fails with errGone when the function is not there. A function
// survives the daemon; its replicas do not, and then nothing is known of it.
func (p *localPlatform) Function(ctx context.Context, network, name string) (functionStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	client, err := p.look(ctx, network)
	if err != nil || client == nil {
		return functionStatus{}, err
	}
	defer client.Close()
	f, err := client.Function(ctx, name)
	if errors.Is(err, localcloud.ErrNotFound) {
		return functionStatus{}, errGone
	}
	if err != nil {
		return functionStatus{}, lookProblem(err)
	}
	invocations, err := client.Invocations(ctx, name)
	if err != nil {
		return functionStatus{}, lookProblem(err)
	}
	declared, err := launch.Declared(f)
	if err != nil {
		return functionStatus{}, err
	}
	status := functionStatus{Kept: policyOf(declared)}
	if f.Config != nil {
		status.Spec = specOf(*f.Config, f.CodeSHA256, f.Tags)
		if status.Spec.MemoryMB = f.MemoryMB; len(f.CodeSHA256) == 64 { // the platform's own, of a function that was made without
			status.Spec.CodeSHA256 = ""
		}
		status.Spec.EphemeralMB, status.Spec.TimeoutS = f.EphemeralMB, f.TimeoutS
	}
	status.Running, status.Stale = runningSlots(invocations, f.Revision)
	return status, nil
}

// runningSlots are those of a function, and of them those whose launch is of another
// revision. A slot has two launches while one succeeds the other.
func runningSlots(invocations []localcloud.Invocation, revision int) (running, stale []string) {
	last := map[string]localcloud.Invocation{}
	for _, invocation := range invocations {
		if invocation.State != localcloud.InvocationRunning {
			continue
		}
		if _, twice := last[invocation.Slot]; !twice {
			running = append(running, invocation.Slot)
		}
		last[invocation.Slot] = invocation
	}
	for _, slot := range running {
		if last[slot].Revision != revision {
			stale = append(stale, slot)
		}
	}
	return running, stale
}

func (p *localPlatform) Keep(ctx context.Context, spec nodeSpec, count int) ([]launch.Want, error) {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := step(ctx)
	defer cancel()
	node, err := spec.node(launch.Want{})
	if err != nil {
		return nil, err
	}
	d := spec.Policy.declaration()
	d.Name, d.Function, d.Node, d.Count, d.MemoryMB = spec.Name, spec.Name, node, count, spec.MemoryMB
	wants, err := launcher(ctx, client).Declare(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("declare the replicas to the network's controller: %w", err)
	}
	return wants, nil
}

func (p *localPlatform) Release(ctx context.Context, network, name string) (was int, err error) {
	was = -1
	err = p.remove(ctx, network, func(c *localcloud.Client) error {
		f, err := c.Function(ctx, name)
		if err != nil || f.Declared == nil {
			return err
		}
		ctx, cancel := step(ctx)
		defer cancel()
		if was, err = launcher(ctx, c).Remove(ctx, name, true); err != nil {
			return fmt.Errorf("take the replicas of %q from the network's controller: %w", name, err)
		}
		return nil
	})
	return was, err
}

func (p *localPlatform) DeleteFunction(ctx context.Context, network, name string) error {
	// Without its seed a network launches nothing, so it is no reason to stay.
	if _, err := p.Release(ctx, network, name); err != nil {
		tflog.Warn(ctx, "the network's controller was not told", map[string]any{"name": name, "error": err.Error()})
	}
	return p.remove(ctx, network, func(c *localcloud.Client) error { return c.DeleteFunction(ctx, name) })
}

func (p *localPlatform) Await(ctx context.Context, network string, launches []launch.Want) ([]cluster.Member, error) {
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
			failure.Remedy = fmt.Sprintf("A node has %s to run: check its command and what it waits for, or give it more with timeouts, then apply again", limitOf(ctx))
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
		Argv: s.Command, Env: s.Environment, WorkingDir: s.WorkingDir, User: s.User, Files: s.Files, Remap: s.Remap,
		WaitFor: s.WaitFor, Restart: s.Restart, Publish: s.Publish, Transports: s.Transports,
	}, nil
}
