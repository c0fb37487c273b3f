// SPDX-License-Identifier: Apache-2.0

package socket

// maskOpen are the states in which somebody still waits for bytes.
const maskOpen = 1<<1 | 1<<4 | 1<<8 | 1<<9 | 1<<11 // established; closing, with something to send

// Open counts the connections into the guest that are open: those to its
// listeners and those that came another way, accepted or not. Connections that
// the kernel does not list here (published ports) are not counted.
func (l *Layer) Open() (int, error) {
	found, err := kernelSockets(maskOpen)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	open := 0
	for _, q := range l.queues {
		open += len(q.items) + q.inHand + len(q.outside)
	}
	listens := map[uint16]bool{}
	for _, ls := range l.listeners {
		listens[ls.local.Port()] = true
	}
	for _, s := range found {
		switch {
		case l.book.accepted(s.cookie):
			open++
		case l.o.Shared && s.local.Addr() != l.underlay:
		case signalNet.Contains(s.peer.Addr()):
		case listens[l.shown(s.local).Port()]:
			open++
		}
	}
	return open, nil
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
