// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestMembersThatSayMuchAreStillTold: what they say may be more than fits one message.
func TestMembersThatSayMuchAreStillTold(t *testing.T) {
	const members = 300
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	early := join(t, seed.options("early"))
	seed.mu.Lock()
	for id := uint32(1000); id < 1000+members; id++ {
		rec := &record{member: Member{ID: id, Slot: "much", State: StateRunning, Guest: Guest{Error: strings.Repeat("x", 4096)}}}
		seed.members[id] = rec
		seed.touch(rec)
	}
	seed.mu.Unlock()
	eventually(t, "who was there is told", func() bool { return len(early.Members()) == members+1 })
	if late := join(t, seed.options("late")); len(late.Members()) != members+2 {
		t.Errorf("who comes later knows %d members", len(late.Members()))
	}
	seed.mu.Lock()
	for id := uint32(1000); id < 1000+members; id++ {
		delete(seed.members, id)
		seed.mark(id)
	}
	seed.mu.Unlock()
	eventually(t, "and that they left", func() bool { return len(early.Members()) == 2 })
}

// TestManyPathsAreToldInParts, and those of nodes that have left are not kept for ever.
func TestManyPathsAreToldInParts(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	first := join(t, seed.options("first"))
	first.ReportPaths([]Path{{To: 7, Transport: "native", Count: 1}})
	eventually(t, "the first one's", func() bool { return len(seed.pathsAfter(0)) == 1 })
	paths := make([]Path, 40)
	for i := range paths {
		paths[i] = Path{To: uint32(i), Transport: "direct", Count: 1 << 40, P50: 1 << 20, P99: 1 << 30}
	}
	body, err := json.Marshal(paths)
	if err != nil {
		t.Fatal(err)
	}
	const left = 2000
	for id := uint32(100); id < 100+left; id++ {
		seed.report(id, body)
	}
	all, err := first.Paths(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 + maxReporters*len(paths); len(all) != want || all[0].From != first.Self().ID || all[1].From != 100+left-maxReporters || all[want-1].From != 100+left-1 {
		t.Errorf("told are %d, want %d; first %+v, last %+v", len(all), want, all[0], all[len(all)-1])
	}
}
