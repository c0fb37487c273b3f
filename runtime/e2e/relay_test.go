// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// keptOpen connections meet at a seed or at a VM: it would take great luck for
// all of them to meet at one of the two.
const keptOpen = "16"

// keptRound is what kept.py says of a round.
type keptRound struct {
	Ended   []string `json:"ended"`
	Open    int      `json:"open"`
	Made    int      `json:"made"`
	Failed  []string `json:"failed"`
	Slowest float64  `json:"slowest"` // seconds
}

// TestRelayGone: VMs relay the connections of two functions. One that leaves in
// order says so first, and resets only what is left after some time; when one is
// killed those that met there are reset. New connections go on elsewhere.
func TestRelayGone(t *testing.T) {
	f := &faults{world: newWorld(t)}
	f.task = filepath.Join(filepath.Dir(f.state), "task")
	if err := os.CopyFS(f.task, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	f.network(t, "mill")
	for _, vm := range []string{"wheel", "stone"} {
		f.vm(t, vm, "--", "python3", "-c", "import time; time.sleep(600)", vm+"-marker")
	}
	f.function(t, "sink", "--source-dir", f.task, "--", "python3", "/var/task/echo.py", "9000", "sink-marker")
	f.function(t, "source", "--source-dir", f.task, "--transports", "relay", "--",
		"python3", "/var/task/kept.py", "sink-0", "9000", keptOpen, "source-marker")
	f.opened(t, 1)
	carried := f.node(t, "wheel", 15*time.Second, "says that it relays", func(n node) bool { return n.Relay != nil && n.Relay.Pairs > 0 }).Relay.Pairs
	began := time.Now()
	f.must(t, "stop", "wheel")
	took := time.Since(began)
	left := f.round(t, 1)
	t.Logf("a relay stopped in order after %v, with about %d connections: %+v", took, carried, left)
	f.judge(t, left)
	if len(left.Failed) > 0 || took < 4*time.Second {
		t.Errorf("it left after %v, new connections failed: %q", took, left.Failed)
	}

	f.opened(t, 2)
	kill(t, f.supervisor(t, "stone-marker"))
	killed := f.round(t, 2)
	t.Logf("a relay killed: %+v", killed)
	f.judge(t, killed)
	if len(killed.Failed) > 1 { // one may have been open just then
		t.Errorf("new connections failed: %q", killed.Failed)
	}
}

// judge: some were reset, the others are open, and new ones did not wait long.
func (f *faults) judge(t *testing.T, r keptRound) {
	t.Helper()
	other := slices.ContainsFunc(r.Ended, func(how string) bool { return how != "ECONNRESET" })
	if other || len(r.Ended) == 0 || r.Open == 0 || r.Made == 0 || r.Slowest > 2 {
		t.Errorf("%+v: want resets, open connections, and new ones within 2 s", r)
	}
}

// opened waits for the connections of a round to be open.
func (f *faults) opened(t *testing.T, round int) {
	t.Helper()
	eventually(t, 30*time.Second, "the connections are open", func() (bool, string) {
		out := f.must(t, "logs", "source-0")
		return strings.Count(out, "open "+keptOpen+"\n") >= round, clip(out)
	})
}

// round waits for the end of a round.
func (f *faults) round(t *testing.T, number int) (r keptRound) {
	t.Helper()
	eventually(t, 20*time.Second, "the end of a round", func() (bool, string) {
		out, seen := f.must(t, "logs", "source-0"), 0
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "{") {
				if seen++; seen == number {
					return json.Unmarshal([]byte(line), &r) == nil, clip(out)
				}
			}
		}
		return false, clip(out)
	})
	return r
}
