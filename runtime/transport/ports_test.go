// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// One port serves all peers, each of them once, and few are kept.
func TestPortsAreShared(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	here := n.node(behindNAT)
	p := &here.Layer.ports
	take := func(peer uint32) *port {
		t.Helper()
		o, err := p.take(t.Context(), peer)
		must(t, err)
		return o
	}
	settled := func() {
		t.Helper()
		eventually(t, "spare ports are mapped", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.mapping == 0
		})
	}
	first := take(1)
	settled()
	second := take(1)
	settled()
	if second == first {
		t.Error("a peer is dialled again from the same port")
	}
	used := map[*port]bool{}
	for peer := range uint32(50) {
		o := take(peer + 2)
		used[o] = true
		p.give(o)
	}
	if len(used) > sparePorts {
		t.Errorf("%d ports for 50 peers", len(used))
	}
	dialled := map[*port]bool{first: true, second: true}
	for range 3 * keptPorts {
		o := take(1)
		if dialled[o] {
			t.Error("a peer is dialled again from the same port")
		}
		dialled[o] = true
		p.give(o)
		settled()
	}
	p.mu.Lock()
	kept := len(p.all)
	p.mu.Unlock()
	if kept > keptPorts {
		t.Errorf("%d ports are kept, want %d at most", kept, keptPorts)
	}
	for _, o := range []*port{first, second} {
		select {
		case <-o.Gone():
			t.Error("a port went while it was used")
		default:
		}
		p.give(o)
		<-o.Gone()
	}
}

// Those who wait for a port are told that there is none, or stop waiting.
func TestPortsEndTheWait(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	here := n.node(behindNAT, func(_ *cluster.Member, o *Options) { o.Relays = func() []RelayNode { return nil } })
	came := make(chan error)
	for peer := range uint32(2 * mapAtOnce) {
		go func() {
			_, err := here.Layer.ports.take(t.Context(), peer+1)
			came <- err
		}()
	}
	for range 2 * mapAtOnce {
		if <-came == nil {
			t.Error("a port, with nobody to ask for its place")
		}
	}
	// A witness that does not answer.
	silent, _ := listenOn(t, "127.0.0.1")
	deaf := n.node(behindNAT, func(_ *cluster.Member, o *Options) {
		o.Relays = func() []RelayNode { return []RelayNode{{ID: 1, Endpoint: silent.Addr().String()}} }
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := deaf.Layer.ports.take(ctx, 1)
		came <- err
	}()
	eventually(t, "it waits", func() bool {
		deaf.Layer.ports.mu.Lock()
		defer deaf.Layer.ports.mu.Unlock()
		return deaf.Layer.ports.waiting == 1
	})
	cancel()
	if err := <-came; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	deaf.Layer.ports.mu.Lock()
	defer deaf.Layer.ports.mu.Unlock()
	if deaf.Layer.ports.waiting != 0 {
		t.Errorf("%d wait", deaf.Layer.ports.waiting)
	}
}

// A port is one only while it is mapped, by the NAT that is there.
func TestPortsAreMapped(t *testing.T) {
	s := newStocking(t)
	gone, good := made(t, 0), made(t, 0)
	gone.Close()
	p := &s.Layer.ports
	p.mu.Lock()
	for _, k := range []ticket{good, gone} { // the newest is taken first
		p.all = append(p.all, &port{Mapping: k.Mapping, behind: p.behind(), dialled: map[uint32]bool{}})
	}
	p.mu.Unlock()
	o, err := p.take(t.Context(), 1)
	if err != nil || o.Mapping != good.Mapping {
		t.Fatalf("%+v, %v", o, err)
	}
	p.give(o)
	s.movesTo("127.69.0.9")
	if o, err = p.take(t.Context(), 2); err != nil || o.Mapping == good.Mapping {
		t.Fatalf("behind another NAT: %+v, %v", o, err)
	}
	p.give(o)
}
