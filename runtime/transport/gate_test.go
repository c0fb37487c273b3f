// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"testing"
)

// queued waits in the queue: came gets the peer when its turn comes, 0 if it ends.
func queued(ctx context.Context, t *testing.T, gate *gate, peer uint32, came chan<- uint32) {
	t.Helper()
	gate.mu.Lock()
	before := len(gate.queue)
	gate.mu.Unlock()
	go func() {
		if gate.take(ctx, peer) != nil {
			peer = 0
		}
		came <- peer
	}()
	eventually(t, "it waits", func() bool {
		gate.mu.Lock()
		defer gate.mu.Unlock()
		return len(gate.queue) == before+1
	})
}

// However many connects to one peer wait, another one's comes next.
func TestGateIsBoundedAndFair(t *testing.T) {
	all := newGate(2)
	for range 2 {
		must(t, all.take(t.Context(), 1))
	}
	came := make(chan uint32, 16)
	for range 8 {
		queued(t.Context(), t, all, 1, came)
	}
	queued(t.Context(), t, all, 2, came)
	queued(t.Context(), t, all, 3, came)
	if len(came) > 0 {
		t.Fatalf("%d had their turn beyond the bound", len(came))
	}
	for i, want := range []uint32{2, 1, 3, 1} {
		all.give([]uint32{1, 1, 2, 1}[i])
		if got := <-came; got != want {
			t.Errorf("turn %d: peer %d, want %d", i, got, want)
		}
	}
	if len(came) > 0 {
		t.Errorf("%d had their turn beyond the bound", len(came))
	}
	all.give(3)
	for range 6 {
		<-came
		all.give(1)
	}
	all.give(1)
	if all.busy() || all.free != 2 || len(all.active) != 0 {
		t.Errorf("in the end %d of 2 places are free, under way: %v", all.free, all.active)
	}
}

// Who gives up while it waits takes no place.
func TestGateIsLeftWithTheContext(t *testing.T) {
	all := newGate(1)
	must(t, all.take(t.Context(), 1))
	ctx, cancel := context.WithCancel(t.Context())
	came := make(chan uint32, 2)
	queued(ctx, t, all, 2, came)
	queued(t.Context(), t, all, 3, came)
	cancel()
	if got := <-came; got != 0 {
		t.Fatalf("peer %d had its turn", got)
	}
	all.give(1)
	if got := <-came; got != 3 {
		t.Errorf("peer %d had its turn, want 3", got)
	}
	all.give(3)
	if all.free != 1 || len(all.queue) != 0 {
		t.Errorf("%d places free, %d wait", all.free, len(all.queue))
	}
}
