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

// Watching is not needed: the daemon knows what has ended.
func (p *localPlatform) Watching(ctx context.Context, _ string) (context.Context, func()) {
	return ctx, func() {}
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
