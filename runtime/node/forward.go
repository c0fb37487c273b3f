// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/transport"
)

// Forwarder is a member without a guest: what programs of this machine connect
// to here, it carries to the guests of other nodes.
type Forwarder struct {
	n    *node
	turn atomic.Uint32 // of a service's holders
}

// noGuest: nobody listens, and nothing is delivered.
type noGuest struct{}

func (noGuest) Deliver(context.Context, int, netip.AddrPort, netip.AddrPort) error {
	return syscall.ECONNREFUSED
}
func (noGuest) Listening(uint16) bool                                   { return false }
func (noGuest) Remember(uint64, netip.AddrPort, netip.AddrPort, uint16) {}
func (noGuest) Connecting(netip.AddrPort, netip.AddrPort) bool          { return false }

// NewForwarder joins the network. The guest's part of Options is not used.
func NewForwarder(ctx context.Context, o Options) (*Forwarder, error) {
	n := &node{o: o, cfg: o.Config, log: o.Logger}
	n.run.LaunchToken = o.Config.LaunchToken
	n.status.now = cluster.Status{State: cluster.StateRunning}
	n.transport = transport.New(transport.Options{
		Secret: o.Secret, Members: &n.view, Control: control{n}, Sockets: noGuest{},
		Reach: o.Config.Reach, Relays: n.relays, Logger: n.log,
		Sleepers: &sleepers{n: n, calls: map[string]*wakeCall{}},
	})
	if err := n.join(ctx); err != nil {
		n.transport.Close()
		return nil, err
	}
	f := &Forwarder{n: n}
	f.index()
	go f.follow()
	return f, nil
}

// follow keeps who is at which address.
func (f *Forwarder) follow() {
	for {
		select {
		case <-f.n.session.Done():
			return
		case <-f.n.session.Changed():
			f.index()
		}
	}
}

func (f *Forwarder) index() {
	members, reserved := f.n.session.Network()
	self := f.n.session.Self()
	f.n.view.index(slices.Concat(holders(self, members), dormant(self, members, reserved)), reserved)
}

// Close leaves the network; what is still carried is reset.
func (f *Forwarder) Close() {
	f.n.transport.Close()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	f.n.reportPaths(nil)
	_ = f.n.session.Leave(ctx) // without the good-bye the seed waits for the lease
}

// Done is closed when the network has given this node up; Err says why.
func (f *Forwarder) Done() <-chan struct{} { return f.n.session.Done() }

// Err is nil until then.
func (f *Forwarder) Err() error { return f.n.session.Err() }

// Check says why nobody would answer at name and port now.
func (f *Forwarder) Check(ctx context.Context, name string, port uint16) error {
	m, err := f.find(name, port)
	if err != nil {
		return err
	}
	return explain(m, port, f.n.transport.Listens(ctx, m, port))
}

// Serve carries every connection that ln accepts to name and port, until ctx or
// the network ends; failed hears of those it could not. It closes ln.
func (f *Forwarder) Serve(ctx context.Context, ln net.Listener, name string, port uint16, failed func(from net.Addr, err error)) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	running.Go(func() { f.report(ctx, cancel) })
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return f.Err()
		case err != nil: // no descriptors; some will be given back
			failed(ln.Addr(), err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		running.Go(func() {
			if err := f.carry(ctx, conn.(*net.TCPConn), name, port); err != nil && ctx.Err() == nil {
				failed(conn.RemoteAddr(), err)
			}
		})
	}
}

func (f *Forwarder) carry(ctx context.Context, conn *net.TCPConn, name string, port uint16) error {
	m, err := f.find(name, port)
	if err != nil {
		_ = conn.SetLinger(0) // a reset: nothing was understood
		_ = conn.Close()
		return err
	}
	return explain(m, port, f.n.transport.Carry(ctx, conn, m, port))
}

// report announces the counts of connections, until ctx or the session ends.
func (f *Forwarder) report(ctx context.Context, cancel func()) {
	defer cancel()
	tick := time.NewTicker(wordInterval)
	defer tick.Stop()
	var reported map[cluster.Path]bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.n.session.Done():
			return
		case <-tick.C:
			reported = f.n.reportPaths(reported)
		}
	}
}

// find picks the member that a name stands for: a slot, node-<id>, or a holder
// of a service, those that are known to listen on port first, in turns.
func (f *Forwarder) find(name string, port uint16) (cluster.Member, error) {
	var holders, listening []cluster.Member
	var names []string
	members, reserved := f.n.session.Network()
	asleep := cluster.Dormant(members, reserved)
	for _, m := range slices.Concat(members, asleep) {
		if m.Kind == config.KindSeed || m.ID == f.n.session.Self().ID || !m.Holds() {
			continue
		}
		if m.Slot == name || name == nodeName(m) {
			return m, nil
		}
		if m.Kind != config.KindClient {
			names = append(names, m.Slot)
		}
		if m.Service != name || m.State == cluster.StateLost {
			continue
		}
		holders = append(holders, m)
		if slices.Contains(m.Listeners, port) {
			listening = append(listening, m)
		}
	}
	if len(listening) > 0 {
		holders = listening
	} else if up := slices.DeleteFunc(slices.Clone(holders), func(m cluster.Member) bool { return m.State == cluster.StateDormant }); len(up) > 0 {
		holders = up
	}
	if len(holders) == 0 {
		slices.Sort(names)
		if len(names) == 0 {
			return cluster.Member{}, fmt.Errorf("network %q has no nodes yet: start one with 'boxer run --kind vm --name %s'", f.n.cfg.Network, name)
		}
		return cluster.Member{}, fmt.Errorf("network %q has no node or service %q; choose one of its nodes: %s", f.n.cfg.Network, name, strings.Join(names, ", "))
	}
	return holders[int(f.turn.Add(1))%len(holders)], nil
}

// explain puts a failure to reach m into words for users.
func explain(m cluster.Member, port uint16, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED) && len(m.Listeners) == 0:
		return fmt.Errorf("nobody listens on port %d of %s, nor on any other: see 'boxer logs %s'", port, m.Slot, m.Slot)
	case errors.Is(err, syscall.ECONNREFUSED):
		known := make([]string, len(m.Listeners))
		for i, p := range m.Listeners {
			known[i] = strconv.FormatUint(uint64(p), 10)
		}
		return fmt.Errorf("nobody listens on port %d of %s; choose a port that it listens on: %s", port, m.Slot, strings.Join(known, ", "))
	}
	return fmt.Errorf("port %d of %s: %w", port, m.Slot, err)
}
