// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"golang.org/x/sys/unix"
)

// A meeting that fails is tried elsewhere, and its relay avoided, if that is what
// failed; what the peer says itself holds everywhere.
func TestWhoIsToBlameForAMeeting(t *testing.T) {
	deaf, _ := listenOn(t, "127.0.0.1") // takes connections and does nothing
	for _, test := range []struct {
		name   string
		relays int
		relay  string // "": the seed
		peer   func(b *node)
		want   error
		blamed bool
		asked  int32
	}{
		{"nobody listens", 2, "", func(*node) {}, syscall.ECONNREFUSED, false, 1},
		{"the peer does not answer", 2, "", func(b *node) { b.listen(80); b.down = cluster.ErrDisconnected }, cluster.ErrDisconnected, false, 0},
		{"the peer cannot reach it", 2, "", func(b *node) { b.listen(80); b.o.Relays = nil }, errRelay, true, 2},
		{"the peer is short of descriptors", 2, "", func(b *node) { b.listen(80); b.descriptors = &budget{} }, errUnable, false, 2},
		{"it does not pair", 1, deaf.Addr().String(), func(b *node) { b.listen(80) }, errRelay, true, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t)
			s := n.node(seed)
			relay := test.relay
			if relay == "" {
				relay = s.Self().UnderlayAddress.String()
			}
			two := func(_ *cluster.Member, o *Options) {
				all := []RelayNode{{ID: 101, Endpoint: relay}, {ID: 102, Endpoint: relay}}
				o.Relays = func() []RelayNode { return all[:test.relays] }
			}
			a, b := n.node(behindNAT, two), n.node(behindNAT, two)
			var asked atomic.Int32
			b.late = func(method string) time.Duration {
				if method == methodRelay {
					asked.Add(1)
				}
				return 0
			}
			test.peer(b)
			ctx, cancel := context.WithTimeout(t.Context(), 3*pairTime)
			defer cancel()
			_, err := a.reachRelay(ctx, a.Self(), b.Self(), a.port(4321), b.port(80))
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			a.tried.mu.Lock()
			blamed := len(a.tried.failed) > 0
			a.tried.mu.Unlock()
			if got := asked.Load(); got != test.asked || blamed != test.blamed {
				t.Errorf("the peer was asked %d times, want %d; a relay is avoided: %v, want %v", got, test.asked, blamed, test.blamed)
			}
		})
	}
}

// A relay that failed has another chance later.
func TestRelayIsAvoidedForSomeTime(t *testing.T) {
	for ago, want := range map[time.Duration]uint32{0: 2, avoidTime / 2: 2, avoidTime + time.Second: 1} {
		for range 20 {
			tried := newTried()
			tried.failed[1] = time.Now().Add(-ago)
			all := []RelayNode{{ID: 1}, {ID: 2, Load: 10}}
			if tried.order(all); all[0].ID != want {
				t.Errorf("failed %v ago: a meeting begins at %d, want %d", ago, all[0].ID, want)
			}
		}
	}
}

// What a guest may be reading from when this process dies ends with a reset.
func TestADialledConnectionDoesNotEndInOrder(t *testing.T) {
	n := newNetwork(t)
	v, peer := n.node(), n.node()
	conn, err := v.dialOnly(t.Context(), peer.Self().UnderlayAddress.String())
	must(t, err)
	defer conn.Close()
	lingers := func() bool {
		raw, err := conn.SyscallConn()
		must(t, err)
		var linger *unix.Linger
		must(t, raw.Control(func(fd uintptr) { linger, err = unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER) }))
		must(t, err)
		return linger.Onoff != 0 && linger.Linger == 0
	}
	if !lingers() {
		t.Error("while the other side waits it would end in order")
	}
	must(t, conn.SetLinger(-1)) // as one that was accepted has it
	begun := false
	must(t, far{conn, func() error { begun = lingers(); return nil }, pathRelay}.begin())
	if !begun {
		t.Error("when the other side's guest gets it, it would end in order")
	}
}
