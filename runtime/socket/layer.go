// SPDX-License-Identifier: Apache-2.0

// Package socket is the guest's sockets as the guest sees them: which kernel
// listeners it has, the connections that arrived for them another way and
// wait in queues, the signal connections that make the kernel wake the guest
// for these, and both addresses of every connection that the kernel shows
// differently.
//
//	Deliver -> queue of a port -> signal connection -> guest's kernel listener
//	guest's accept -> ipc ACCEPT with the signal's source -> head of the queue
package socket

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// Options of a Layer.
type Options struct {
	// Underlay is the address natively arriving connections are addressed to;
	// signal connections go there as well. The zero Addr: loopback.
	Underlay netip.Addr
	// Shared: Underlay is an address of a loopback that other nodes use as well;
	// what is bound elsewhere is theirs or the machine's.
	Shared bool
	// Adopt takes up the listeners that exist already: those of a guest that
	// outlived the supervisor before this one. Listeners of this
	// process are left alone. Off on a machine shared with other programs.
	Adopt bool
	// Exclude are ports that no existing listener is taken up on (the overlay
	// port).
	Exclude []uint16
	// Sweep is the time between looks at the kernel's listeners; default
	// 250 ms.
	Sweep time.Duration
	// QueueWait bounds how long Deliver waits while a queue is full; default
	// 10 s.
	QueueWait time.Duration
	// Budget has the descriptors that connections take while they wait for the
	// guest; nil: there are always some.
	Budget Budget
	Logger zerolog.Logger
}

// Budget is descriptors that may be taken and are given back.
type Budget interface {
	Take(n int) bool
	Give(n int)
}

// ErrRefused says that nobody listens. It wraps ECONNREFUSED.
var ErrRefused = fmt.Errorf("nobody listens: %w", syscall.ECONNREFUSED)

// ErrFull says that a queue stayed full: the guest does not accept.
var ErrFull = fmt.Errorf("the guest does not accept its connections: %w", syscall.EAGAIN)

// ErrShort says that no more connections can wait for the guest. It wraps EMFILE.
var ErrShort = fmt.Errorf("no descriptors are left for another connection that waits for the guest: raise the limit (ulimit -n): %w", syscall.EMFILE)

// Layer is the socket layer of one node. It answers the socket half of
// ipc.Handler: Listen, Accept and Address.
type Layer struct {
	o       Options
	running sync.WaitGroup
	changed chan struct{}
	sources atomic.Uint32 // counts through the reserved addresses of signals
	netns   uint64        // SO_NETNS_COOKIE of this process, or 0

	sweeping sync.Mutex    // one look at the kernel's listeners at a time
	looks    atomic.Uint64 // begun

	mu        sync.Mutex
	underlay  netip.Addr
	closed    bool
	listeners map[uint64]*listener // by cookie
	births    uint64               // numbers the listeners
	ports     []uint16             // as last announced
	queues    map[uint16]*queue    // by port: a node has one overlay address
	signals   map[netip.AddrPort]*signal
	waiting   int    // in Deliver
	made      uint64 // connections that were queued
	blind     bool

	book   book
	listed listing
}

// New makes a Layer, with the existing listeners if asked to: nobody may be
// told that none is there. Run makes it sweep.
func New(o Options) *Layer {
	if o.Sweep == 0 {
		o.Sweep = 250 * time.Millisecond
	}
	if o.QueueWait == 0 {
		o.QueueWait = 10 * time.Second
	}
	l := &Layer{
		o:         o,
		underlay:  o.Underlay.Unmap(),
		changed:   make(chan struct{}, 1),
		listeners: map[uint64]*listener{},
		queues:    map[uint16]*queue{},
		signals:   map[netip.AddrPort]*signal{},
		netns:     ownNetns(),
	}
	l.book.entries = map[uint64]*entry{}
	if o.Adopt {
		l.Adopt()
	}
	return l
}

// Usage is what the layer holds now: addresses remembered for guests' sockets,
// and connections queued for a guest.
func (l *Layer) Usage() (remembered, queued int) {
	l.book.mu.Lock()
	remembered = len(l.book.entries)
	l.book.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.queues {
		queued += len(q.items)
	}
	return remembered, queued
}

// SetUnderlay replaces Options.Underlay (known only after joining).
func (l *Layer) SetUnderlay(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.underlay = a.Unmap()
	l.settle()
}

// Run sweeps until ctx ends; then it resets what is still queued and returns
// nil.
func (l *Layer) Run(ctx context.Context) error {
	defer l.shut()
	tick := time.NewTicker(l.o.Sweep)
	defer tick.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		l.mu.Lock()
		some := len(l.listeners) > 0
		l.mu.Unlock()
		if some {
			l.sweep()
		}
		// Entries of the address book are harmless for a while, and the list of
		// all connections can be long.
		if turn%8 == 7 {
			l.readBook(true)
		}
	}
}

// shut ends every signal and resets what is queued.
func (l *Layer) shut() {
	l.mu.Lock()
	l.closed = true
	for _, q := range l.queues {
		l.reset(q, 0)
	}
	l.mu.Unlock()
	l.running.Wait()
}

// Listening tells whether the guest has a listener on port that Deliver
// reaches. The kernel has the last word: a listener may have been closed since
// the last sweep.
func (l *Layer) Listening(port uint16) bool {
	l.mu.Lock()
	known, target := l.backlog(port) > 0, l.target(port)
	l.mu.Unlock()
	if !known || !target.Addr().Is4() {
		return known
	}
	here, err := kernelListens(target)
	return here || err != nil
}

// Changed receives after Listeners has changed; changes are merged. It has
// one reader.
func (l *Layer) Changed() <-chan struct{} { return l.changed }
