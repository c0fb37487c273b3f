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
)

// relay pairs connections by session: one active and one passive half.
type relay struct {
	wait time.Duration
	most int

	mu     sync.Mutex
	halves map[session]*half
	pairs  int
	closed bool
}

type half struct {
	kind   kind
	conn   *net.TCPConn
	expiry *time.Timer
}

func newRelay() *relay {
	return &relay{wait: relayWait, most: maxHalves, halves: map[session]*half{}}
}

// join takes a half. With the second one it splices, and returns when that is
// over.
func (r *relay) join(ctx context.Context, conn *net.TCPConn, p preface) {
	other := r.pair(conn, p)
	if other == nil {
		return
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pairs--
	}()
	for _, c := range []*net.TCPConn{conn, other} {
		c.SetNoDelay(true)
		c.SetKeepAliveConfig(keepAlive)
		if sendStart(c) != nil {
			reset(conn)
			reset(other)
			return
		}
	}
	splice(ctx, conn, other)
}

// pair returns the other half, or keeps this one until it comes.
func (r *relay) pair(conn *net.TCPConn, p preface) *net.TCPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.halves[p.session]
	switch {
	case r.closed || (first != nil && first.kind == p.kind):
		conn.Close()
	case first != nil && r.pairs < maxRelayed && first.expiry.Stop(): // a stopped expiry must be paired
		delete(r.halves, p.session)
		r.pairs++
		return first.conn
	case first != nil || len(r.halves) >= r.most:
		conn.Close()
	default:
		h := &half{kind: p.kind, conn: conn}
		h.expiry = time.AfterFunc(r.wait, func() { r.expire(p.session, h) })
		r.halves[p.session] = h
	}
	return nil
}

func (r *relay) expire(id session, h *half) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halves[id] == h {
		delete(r.halves, id)
	}
	h.conn.Close()
}

func (r *relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for id, h := range r.halves {
		h.expiry.Stop()
		h.conn.Close()
		delete(r.halves, id)
	}
}
