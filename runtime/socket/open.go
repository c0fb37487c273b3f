// SPDX-License-Identifier: Apache-2.0

package socket

import "net/netip"

// maskOpen are the states in which somebody still waits for bytes.
const maskOpen = 1<<1 | 1<<4 | 1<<8 | 1<<9 | 1<<11 // established; closing, with something to send

// Open counts the connections into the guest that are open: those to its
// listeners and those that came another way, accepted or not. Connections that
// the kernel does not list here (published ports) are not counted.
func (l *Layer) Open() (int, error) {
	open, _, err := l.busy(true)
	return open, err
}

// Busy is what the guest has to do: the connections that Open counts, but for
// those that the node makes to itself, and how many of them it has not accepted.
func (l *Layer) Busy() (open, queued int, err error) { return l.busy(false) }

func (l *Layer) busy(own bool) (open, queued int, err error) {
	found, err := kernelSockets(maskOpen | maskListen)
	if err != nil {
		return 0, 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.queues {
		open += len(q.items) + q.inHand + len(q.outside)
		queued += len(q.outside) // the others have signals in the kernel's queue
	}
	listens := map[uint16]bool{}
	for _, ls := range l.listeners {
		listens[ls.local.Port()] = true
	}
	for _, s := range found {
		switch {
		case s.state == stateListen:
			if l.listeners[s.cookie] != nil {
				queued += int(s.queued)
			}
		case l.book.accepted(s.cookie):
			open++
		case l.o.Shared && s.local.Addr() != l.underlay:
		case signalNet.Contains(s.peer.Addr()):
		case !own && l.isOwn(s.peer.Addr()):
		case listens[l.shown(s.local).Port()]:
			open++
		}
	}
	return open, queued, nil
}

// isOwn: connections from there are the node's own. Call with l.mu held.
func (l *Layer) isOwn(peer netip.Addr) bool {
	return peer == l.underlay || peer.IsLoopback() && l.underlay.IsValid() && !l.underlay.IsLoopback()
}

func (b *book) accepted(cookie uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[cookie]
	return e != nil && e.accepted
}

// Made counts the connections that were ever queued for the guest.
func (l *Layer) Made() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made
}
