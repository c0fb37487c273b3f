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
	// itemNeeds is the descriptors of a connection that waits, and of its signal.
	itemNeeds = 2
)

// queue holds the connections that wait for one port's listeners.
type queue struct {
	port    uint16
	items   []*item // oldest first; each has a signal, or a timer to it
	inHand  int     // being handed over
	outside []*item // for which there is no room yet, in the order they came
}

// item is one connection that waits to be accepted.
type item struct {
	fd          int
	local, peer netip.AddrPort
	births      uint64 // of listeners, when it was queued: those born later are not for it
	sig         *signal
	lost        int
	decided     chan struct{} // closed when it need not wait outside any more
	refused     bool          // and that is why
}

// Deliver queues a connection for the guest's listener at local (an overlay
// address) and returns. With a nil error the Layer owns fd; else it stays
// the caller's (to reset): ErrRefused when nobody listens on the port, ErrFull
// when the queue stayed full, ErrShort when too many wait.
func (l *Layer) Deliver(ctx context.Context, fd int, local, peer netip.AddrPort) error {
	it := &item{fd: fd, local: unmapped(local), peer: unmapped(peer)}
	abortive(fd)
	decided, err := l.enqueue(it)
	if decided == nil {
		return l.explain(err, it)
	}
	full := time.NewTimer(l.o.QueueWait)
	defer full.Stop()
	select {
	case <-decided:
	case <-full.C:
		err = ErrFull
	case <-ctx.Done():
		err = ctx.Err()
	}
	return l.explain(l.conclude(it, err), it)
}

func (l *Layer) explain(err error, it *item) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("deliver a connection from %s to %s: %w", it.peer, it.local, err)
}

// enqueue queues an item, or lets it wait outside and returns what says that it
// need not any more.
func (l *Layer) enqueue(it *item) (decided <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	port := it.local.Port()
	if l.closed || l.backlog(port) == 0 {
		return nil, ErrRefused
	}
	if l.o.Budget != nil && !l.o.Budget.Take(itemNeeds) {
		return nil, ErrShort
	}
	q := l.queues[port]
	if q == nil {
		q = &queue{port: port}
		l.queues[port] = q
	}
	l.made++
	if len(q.outside) == 0 && l.room(q) {
		l.place(q, it)
		return nil, nil
	}
	if l.waiting >= maxWaiting {
		l.giveBack()
		return nil, ErrFull
	}
	l.waiting++
	it.decided = make(chan struct{})
	q.outside = append(q.outside, it)
	return it.decided, nil
}

// giveBack is called for each item that waits no more.
func (l *Layer) giveBack() {
	if l.o.Budget != nil {
		l.o.Budget.Give(itemNeeds)
	}
}

// room: never more signals are outstanding than the backlog, the next one would
// hang in SYN_SENT. Call with l.mu held.
func (l *Layer) room(q *queue) bool { return len(q.items)+q.inHand < l.backlog(q.port) }

func (l *Layer) place(q *queue, it *item) {
	it.births = l.births
	q.items = append(q.items, it)
	l.raise(q, it, 0)
}

// admit queues what waits outside, as there may be room, or refuses it, as
// nobody may be left. Call with l.mu held.
func (l *Layer) admit(q *queue) {
	for len(q.outside) > 0 {
		refused := l.closed || l.backlog(q.port) == 0
		if !refused && !l.room(q) {
			return
		}
		it := q.outside[0]
		q.outside = q.outside[1:]
		it.refused = refused
		if !refused {
			l.place(q, it)
		}
		close(it.decided)
	}
}

// conclude is what became of an item, unless it still waits outside: then it is
// given up for this reason.
func (l *Layer) conclude(it *item, reason error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	if q := l.queues[it.local.Port()]; q != nil {
		if at := slices.Index(q.outside, it); at >= 0 {
			q.outside = slices.Delete(q.outside, at, at+1)
			l.giveBack()
			return reason
		}
	}
	if it.refused {
		l.giveBack()
		return ErrRefused
	}
	return nil
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
		l.giveBack()
	}
	if oldest == 0 && l.queues[q.port] == q {
		delete(l.queues, q.port)
	}
	if oldest == 0 || len(left) < len(q.items) {
		q.items = left
	}
	l.admit(q)
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
	abortive(fd)
	raw.Close(fd)
}

// abortive makes the kernel reset a connection that is closed, also by the death
// of this process: what waits in a queue then ends as it does in the kernel's.
func abortive(fd int) { raw.Linger(fd, true) }
