// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"sync"
	"testing"
	"time"
)

// What changes all the time is told now and then, the last word soon.
func TestABurstIsToldInFewDeltas(t *testing.T) {
	o := testOptions(t)
	o.Batch = 5 * time.Millisecond
	seed := startSeed(t, o, "127.0.0.1:0")
	node := join(t, seed.options("busy"))
	watcher, err := Observe(t.Context(), seed.options(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watcher.Close() })
	events, stop := watcher.Subscribe()
	defer stop()
	const changes = 100
	began := time.Now()
	var said sync.WaitGroup
	defer said.Wait() // for the answer to the last one
	said.Go(func() {
		for i := range changes {
			if err := node.SetStatus(t.Context(), Status{State: StateRunning, Listeners: []uint16{uint16(1 + i)}}); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	told := 0
	for last := uint16(0); last != changes; {
		select {
		case e := <-events:
			if told++; len(e.Member.Listeners) == 1 {
				last = e.Member.Listeners[0]
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("of %d changes the last one told is %d", changes, last)
		}
	}
	// One every five batches, those at the beginning, and who was there.
	if most := 2 + 3 + int(time.Since(began)/(5*o.Batch)); told > most {
		t.Errorf("%d changes were told in %d pieces, want %d at most", changes, told, most)
	}
}
