// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net"
	"sync"
	"time"
)

// Bounds of a relay.
const (
	relayWait  = 10 * time.Second // for the other half
	maxHalves  = 1024
	maxRelayed = 4096
	relayShare = 4 // of this node's descriptors: one in so many for halves, two for pairs
)

// relay pairs connections by session: one active and one passive half. No member
// gets more places than it leaves free, so that whoever comes next finds some:
// one alone has half of all, n that want more have an n+1st each.
type relay struct {
	wait      time.Duration
	most      int // halves
	mostPairs int

	mu       sync.Mutex
	halves   map[session]*half
	waiting  map[uint32]int // halves by member
	pairs    int
	carried  map[uint32]int // ends of pairs by member
	refused  uint64         // halves
	draining chan struct{}  // nil; closed when no pair and no half is left
	closed   bool
}

type half struct {
	kind   kind
	member uint32
	conn   *net.TCPConn
	expiry *time.Timer
}

// newRelay makes a relay that may hold so many descriptors in halves, and
// twice as many in pairs.
func newRelay(descriptors int) *relay {
	return &relay{
		wait: relayWait, most: min(maxHalves, descriptors), mostPairs: min(maxRelayed, descriptors),
		halves: map[session]*half{}, waiting: map[uint32]int{}, carried: map[uint32]int{},
	}
}

// join takes a half of a member's connection. With the second one it splices,
// and returns when that is over.
func (r *relay) join(ctx context.Context, conn *net.TCPConn, p preface, member uint32) {
	other := r.pair(conn, p, member)
	if other == nil {
		return
	}
	defer r.part(member, other.member)
	active := conn
	if p.kind == kindRelayPassive {
		active = other.conn
	}
	for _, c := range []*net.TCPConn{conn, other.conn} {
		c.SetNoDelay(true)
		c.SetKeepAliveConfig(keepAlive)
	}
	if say(active, paired) != nil {
		reset(conn)
		reset(other.conn)
		return
	}
	splice(ctx, conn, other.conn)
}

// pair returns the other half, or keeps this one until it comes.
func (r *relay) pair(conn *net.TCPConn, p preface, member uint32) *half {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.halves[p.session]
	switch {
	case r.closed || (first != nil && first.kind == p.kind):
	case first != nil && r.fits(member, first.member) && first.expiry.Stop(): // a stopped expiry must be paired
		r.drop(p.session, first)
		r.pairs++
		r.carried[member]++
		r.carried[first.member]++
		return first
	case first == nil && r.draining == nil && fair(r.waiting[member], len(r.halves), r.most):
		h := &half{kind: p.kind, member: member, conn: conn}
		h.expiry = time.AfterFunc(r.wait, func() { r.expire(p.session, h) })
		r.halves[p.session] = h
		r.waiting[member]++
		return nil
	}
	r.refused++
	conn.Close()
	return nil
}

// fair tells whether who has taken some of the places may take another one.
func fair(has, taken, most int) bool { return has < most-taken }

// fits tells whether another pair of two members does. Callers hold mu.
func (r *relay) fits(a, b uint32) bool {
	return fair(r.carried[a], r.pairs, r.mostPairs) && fair(r.carried[b], r.pairs, r.mostPairs)
}

// part ends a pair.
func (r *relay) part(members ...uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pairs--
	for _, m := range members {
		less(r.carried, m)
	}
	r.drained()
}

// drop forgets a half. Callers hold mu.
func (r *relay) drop(id session, h *half) {
	delete(r.halves, id)
	less(r.waiting, h.member)
}

func less(counts map[uint32]int, member uint32) {
	if counts[member]--; counts[member] <= 0 {
		delete(counts, member)
	}
}

func (r *relay) expire(id session, h *half) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halves[id] == h {
		r.drop(id, h)
		r.drained()
	}
	h.conn.Close()
}

// drain lets no new meeting begin. What it returns is closed when all are over.
func (r *relay) drain() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining == nil {
		r.draining = make(chan struct{})
		r.drained()
	}
	return r.draining
}

// drained tells who waits for it. Callers hold mu.
func (r *relay) drained() {
	if r.draining == nil || r.pairs > 0 || len(r.halves) > 0 {
		return
	}
	select {
	case <-r.draining:
	default:
		close(r.draining)
	}
}

func (r *relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for id, h := range r.halves {
		h.expiry.Stop()
		h.conn.Close()
		r.drop(id, h)
	}
	r.drained()
}

// Usage is what of this node's bounded places is taken, and who got none.
type Usage struct {
	Held         int // connects of the guest
	Pairs        int // connections it relays
	Halves       int // of connections that others are about to meet for
	RelayRefused uint64
	Strangers    uint64 // connections to the overlay port that proved nothing
}

// Usage is that of now.
func (l *Layer) Usage() Usage {
	l.relay.mu.Lock()
	defer l.relay.mu.Unlock()
	return Usage{
		Held: len(l.holds), Pairs: l.relay.pairs, Halves: len(l.relay.halves),
		RelayRefused: l.relay.refused, Strangers: l.strangers.Load(),
	}
}

// Drain lets no new meeting begin here, and returns a channel that is closed
// when those that have begun are over.
func (l *Layer) Drain() <-chan struct{} { return l.relay.drain() }

// owner is the member that a half counts for: 0 for all that are not known
// (yet), which share what one has.
func (l *Layer) owner(p preface) uint32 {
	if m, ok := l.o.Members.Lookup(p.src.Addr()); ok && m.ID == p.id {
		return p.id
	}
	return 0
}
