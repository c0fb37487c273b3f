// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/boxer-overlay/boxer/runtime/raw"
)

const (
	maxWaiting = 1024 // calls of Deliver that wait for room
	// maxLost is how often a guest may throw the signal of one connection
	// away: a program without a monitor that inherited a listener would do so
	// for ever.
	maxLost = 16
)

// queue holds the connections that wait for one port's listeners.
type queue struct {
	port   uint16
	items  []*item // waiting, oldest first; each has a signal, or a timer to it
	inHand int     // being handed over
	room   chan struct{}
}

// item is one connection that waits to be accepted.
type item struct {
	fd          int
	local, peer netip.AddrPort
	births      uint64 // of listeners, when it was queued: those born later are not for it
	sig         *signal
	lost        int
}

// Deliver queues a connection for the guest's listener at local (an overlay
// address) and returns. With a nil error the Layer owns fd; else it stays
// the caller's (to reset): ErrRefused when nobody listens on the port, ErrFull
// when the queue stayed full.
func (l *Layer) Deliver(ctx context.Context, fd int, local, peer netip.AddrPort) error {
	it := &item{fd: fd, local: unmapped(local), peer: unmapped(peer)}
	abortive(fd, true)
	room, err := l.enqueue(it)
	if room == nil {
		return l.explain(err, it)
	}
	if !l.wait(1) {
		return l.explain(ErrFull, it)
	}
	defer l.wait(-1)
	full := time.NewTimer(l.o.QueueWait)
	defer full.Stop()
	for room != nil {
		select {
		case <-room:
			room, err = l.enqueue(it)
		case <-full.C:
			return l.explain(ErrFull, it)
		case <-ctx.Done():
			return l.explain(ctx.Err(), it)
		}
	}
	return l.explain(err, it)
}

func (l *Layer) explain(err error, it *item) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("deliver a connection from %s to %s: %w", it.peer, it.local, err)
}

// wait counts the calls that wait for room.
func (l *Layer) wait(change int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if change > 0 && l.waiting >= maxWaiting {
		return false
	}
	l.waiting += change
	return true
}

// enqueue queues it, or returns a channel that is closed when there may be
// room.
func (l *Layer) enqueue(it *item) (room <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	port := it.local.Port()
	backlog := l.backlog(port)
	if backlog == 0 || l.closed {
		return nil, ErrRefused
	}
	q := l.queues[port]
	if q == nil {
		q = &queue{port: port, room: make(chan struct{})}
		l.queues[port] = q
	}
	// Never more signals outstanding than the backlog: the next one would hang
	// in SYN_SENT.
	if len(q.items)+q.inHand >= backlog {
		return q.room, nil
	}
	it.births = l.births
	q.items = append(q.items, it)
	l.raise(q, it, 0)
	return nil, nil
}

// free tells those who wait that there may be room. Call with l.mu held.
func (q *queue) free() {
	close(q.room)
	q.room = make(chan struct{})
}

// reset drops what was queued before the oldest listener that is left, or the
// whole queue if none is (0). Call with l.mu held.
func (l *Layer) reset(q *queue, oldest uint64) {
	var left []*item
	for _, it := range q.items {
		if it.awaited(oldest) {
			left = append(left, it)
			continue
		}
		l.drop(it.sig)
		it.sig = nil
		reset(it.fd)
	}
	if oldest == 0 && l.queues[q.port] == q {
		delete(l.queues, q.port)
	}
	if oldest == 0 || len(left) < len(q.items) {
		q.items = left
		q.free()
	}
}

// awaited tells whether a listener is left that was there when the connection
// was queued, given the oldest one.
func (it *item) awaited(oldest uint64) bool { return oldest != 0 && oldest <= it.births }

// take removes the oldest item that a listener born then may have, for the
// holder of sig. Items and signals stay paired: the item that sig was made for
// gets the other's. Call with l.mu held.
func (q *queue) take(sig *signal, born uint64) *item {
	at := slices.IndexFunc(q.items, func(it *item) bool { return it == sig.item || born <= it.births })
	head := q.items[at]
	if other := head.sig; other != sig {
		sig.item.sig = other
		if other != nil {
			other.item = sig.item
		}
	}
	head.sig, sig.item = nil, nil
	q.items = slices.Delete(q.items, at, at+1)
	q.inHand++
	return head
}

// reset closes a connection with an RST.
func reset(fd int) {
	abortive(fd, true)
	raw.Close(fd)
}

// abortive makes the kernel reset a connection that is closed, also by the death
// of this process: what waits in a queue then ends as it does in the kernel's.
func abortive(fd int, yes bool) {
	raw.Linger(fd, yes)
}
