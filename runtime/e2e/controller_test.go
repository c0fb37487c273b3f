// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestController: a number of function nodes is kept, whoever dies.
func TestController(t *testing.T) {
	t.Parallel()
	s := &seeds{faults: &faults{world: newWorld(t)}}
	s.faults.task = s.world.task(t)
	s.network(t, "kept")
	store, err := localcloud.Open(s.state, localcloud.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	if s.client, err = store.Connect(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	s.client.Locate = true
	t.Cleanup(s.client.Close)
	s.function(t, "keep", "--source-dir", s.task, "--", "python3", "/var/task/echo.py", "9000", "kept-marker")
	s.must(t, "scale", "keep", "3")

	before := s.nodes(t)["keep-1"]
	kill(t, s.invocations(t, "keep-1")[0].MachinePID)
	began := time.Now()
	s.node(t, "keep-1", 20*time.Second, "is followed by another", func(n node) bool {
		return n.ID != before.ID && n.State == "running" && n.Overlay == before.Overlay
	})
	t.Logf("a killed replica was followed after %v", time.Since(began).Round(time.Millisecond))

	// The seed dies while it scales out.
	scaled := make(chan result, 1)
	go func() { scaled <- s.run(t, "scale", "keep", "9") }()
	eventually(t, 20*time.Second, "the first launches", func() (bool, string) { return len(s.invocations(t, "")) > 5, "" })
	if !s.strike(t, "seed-0") {
		t.Error("the seed did not run")
	}
	began = time.Now()
	<-scaled // it may have lost its seed
	eventually(t, 90*time.Second, "all nine run", func() (bool, string) {
		r := s.run(t, "nodes") // which fails while there is no seed
		running := strings.Count(r.stdout, "function  running")
		return running == 9, r.String()
	})
	t.Logf("all run %v after the seed's end", time.Since(began).Round(time.Millisecond))
	for i := range 9 {
		slot := fmt.Sprintf("keep-%d", i)
		want := 1
		if i == 1 {
			want = 2
		}
		if got := s.invocations(t, slot); len(got) != want {
			t.Errorf("%s was launched %d times, want %d: %+v", slot, len(got), want, got)
		}
	}
	if t.Failed() {
		t.Log(s.must(t, "events"))
	}
	s.must(t, "scale", "keep", "0")
	s.must(t, "stop", "keep")
}

// invocations of a slot, or of all.
func (s *seeds) invocations(t *testing.T, slot string) (found []localcloud.Invocation) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), quick)
	defer cancel()
	all, err := s.client.Invocations(ctx, "keep")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if slot == "" || i.Slot == slot {
			found = append(found, i)
		}
	}
	return found
}
