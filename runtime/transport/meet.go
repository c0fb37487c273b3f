// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// A relay that is gone may answer nothing at all: then another one must have
// its turn soon. A lost SYN is sent again after one second.
const (
	relayDial  = 1500 * time.Millisecond // until a relay is connected
	pairTime   = 1500 * time.Millisecond // for a relay to pair two halves that are there
	avoidTime  = 5 * time.Second         // a relay that failed
	relayTries = 3                       // for one connect
	recentTime = 2 * time.Second         // for a relay to say what it carries
	maxKnown   = 1024                    // relays that something is kept of
)

// kindClient is a laptop's (config.KindClient): it may reach seeds only.
const kindClient = "client"

// reachRelay meets the peer at a third node.
func (l *Layer) reachRelay(ctx context.Context, self, m cluster.Member, src, dst netip.AddrPort) (far, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	err := fmt.Errorf("no node to relay through: %w", syscall.EHOSTUNREACH)
	for _, relay := range l.pick(self, m) {
		var conn *net.TCPConn
		if conn, err = l.meet(ctx, self, m, src, dst, relay); err == nil {
			return far{conn, func() error { return say(conn, start) }, pathRelay}, nil
		}
		if errors.Is(err, syscall.ECONNREFUSED) || ctx.Err() != nil {
			break
		}
		if errors.Is(err, errRelay) {
			l.tried.fail(relay.ID)
		}
	}
	return far{}, err
}

// pick orders the relays that one meeting with m may be tried at: first the one
// that carries less of two drawn at random (the least loaded of all would get all
// that everybody makes until it has said so), and those that failed lately last.
func (l *Layer) pick(self, m cluster.Member) []RelayNode {
	all := slices.DeleteFunc(slices.Clone(l.relays()), func(r RelayNode) bool {
		return r.ID == self.ID || r.ID == m.ID || m.Kind == kindClient && !r.Seed
	})
	mrand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	l.tried.order(all)
	return all[:min(len(all), relayTries)]
}

func (l *Layer) relays() []RelayNode {
	if l.o.Relays == nil {
		return nil
	}
	return l.o.Relays()
}

// meet dials a relay, and asks m to do so at the same time.
func (l *Layer) meet(ctx context.Context, self, m cluster.Member, src, dst netip.AddrPort, relay RelayNode) (*net.TCPConn, error) {
	var id session
	rand.Read(id[:])
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !l.spawn(func() {
		err := l.ask(ctx, m.ID, methodRelay, meetCall{Session: id[:], Port: dst.Port(), From: src, Relay: relay.ID, Version: version})
		if err == nil {
			err = errors.New("both are there and are not paired")
			select {
			case <-time.After(pairTime):
			case <-ctx.Done(): // paired
			}
		} else if !errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, errUnable) { // but for what it cannot reach
			cancel(err)
			return
		}
		err = fmt.Errorf("%w: %w", errRelay, err)
		cancel(err)
	}) {
		return nil, errLeaving
	}
	conn, err := l.dialRelay(ctx, relay, preface{kind: kindRelayActive, id: self.ID, src: src, dst: dst, session: id})
	if err == nil {
		if err = await(ctx, conn, paired); err == nil {
			return conn, nil
		}
		l.sayVersion(conn, err)
		conn.Close()
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else {
		err = fmt.Errorf("%w: %w", errRelay, err)
	}
	return nil, fmt.Errorf("meet node %d at node %d: %w", m.ID, relay.ID, err)
}

// errRelay: it is not the peer that a meeting failed for.
var errRelay = errors.New("the relay failed")

func (l *Layer) dialRelay(ctx context.Context, relay RelayNode, p preface) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, relayDial)
	defer cancel()
	return l.dial(ctx, relay.Endpoint, p)
}

// tried is what this node knows of relays before they say so.
type tried struct {
	mu     sync.Mutex
	failed map[uint32]time.Time
	recent map[uint32]int // meetings that began there
	since  time.Time
}

func newTried() *tried {
	return &tried{failed: map[uint32]time.Time{}, recent: map[uint32]int{}}
}

// order moves those that failed lately behind, and the better of the first two to
// the front, where a meeting begins.
func (t *tried) order(all []RelayNode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.since) > recentTime || len(t.recent) > maxKnown {
		t.since = now
		clear(t.recent)
	}
	avoid := func(r RelayNode) bool { return now.Sub(t.failed[r.ID]) < avoidTime }
	slices.SortStableFunc(all, func(a, b RelayNode) int {
		switch is, other := avoid(a), avoid(b); {
		case other && !is:
			return -1
		case is && !other:
			return 1
		}
		return 0
	})
	if len(all) > 1 && avoid(all[0]) == avoid(all[1]) && t.load(all[1]) < t.load(all[0]) {
		all[0], all[1] = all[1], all[0]
	}
	if len(all) > 0 {
		t.recent[all[0].ID]++
	}
}

func (t *tried) load(r RelayNode) int { return r.Load + t.recent[r.ID] }

// fail makes others come first for some time.
func (t *tried) fail(id uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.failed) >= maxKnown {
		clear(t.failed)
	}
	t.failed[id] = time.Now()
}
