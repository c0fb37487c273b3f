// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"slices"
	"sync"
)

// gate bounds how many connections are being punched at once. When all places
// are taken, that peer's turn is next for which the fewest are under way, and
// among those who came first.
type gate struct {
	mu     sync.Mutex
	free   int
	active map[uint32]int
	queue  []*waiter
}

type waiter struct {
	peer  uint32
	begin chan struct{}
}

func newGate(places int) *gate { return &gate{free: places, active: map[uint32]int{}} }

// take waits for a place until ctx ends. A place that was taken must be given back.
func (t *gate) take(ctx context.Context, peer uint32) error {
	t.mu.Lock()
	w := &waiter{peer: peer, begin: make(chan struct{})}
	t.queue = append(t.queue, w)
	t.next()
	t.mu.Unlock()
	select {
	case <-w.begin:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.queue, w); i >= 0 {
		t.queue = slices.Delete(t.queue, i, i+1)
		return ctx.Err()
	}
	return nil // its turn has come at the same time
}

// next begins whose turn it is. Callers hold mu.
func (t *gate) next() {
	for t.free > 0 && len(t.queue) > 0 {
		best := 0
		for i, w := range t.queue {
			if t.active[w.peer] < t.active[t.queue[best].peer] {
				best = i
			}
		}
		w := t.queue[best]
		t.queue = slices.Delete(t.queue, best, best+1)
		t.free--
		t.active[w.peer]++
		close(w.begin)
	}
}

func (t *gate) give(peer uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	less(t.active, peer)
	t.next()
}

// busy: more than one is under way.
func (t *gate) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.active) > 1 || len(t.queue) > 0
}
