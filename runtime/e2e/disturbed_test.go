// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestNATDisturbed: when a NAT forgets, or another one takes its place, new
// connections are made again.
func TestNATDisturbed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.task(t)
	w.network(t, "disturbed")
	w.function(t, "to", "--nat", "restricted", "--source-dir", task, "--", "python3", "/var/task/matrix.py", "serve")
	w.function(t, "from", "--nat", "restricted", "--source-dir", task, "--", "python3", "/var/task/matrix.py", "follow", "to-0")
	client := w.natClient(t)
	w.recovers(t, time.Now())
	for _, node := range []string{"to", "from"} {
		for _, what := range []string{localcloud.NATFlush, localcloud.NATReplace} {
			began := time.Now()
			if err := client.DisturbNAT(t.Context(), node, node+"-0", what); err != nil {
				t.Fatal(err)
			}
			after, lost := w.recovers(t, began)
			t.Logf("%s of %s: connections from %v on are made as before; until then failed: %q", what, node, after.Round(10*time.Millisecond), lost)
			if after > 5*time.Second { // two are promised
				t.Errorf("%s of %s: that is late", what, node)
			}
		}
	}
}

// recovers waits until the follower's connections, twenty begun one after
// another, are made within two seconds each, and says how long after began the
// first of them was. One that was begun before the change of an address was known
// waits for it as long as TCP does, natively too.
func (w *world) recovers(t *testing.T, began time.Time) (after time.Duration, lost []string) {
	t.Helper()
	since := float64(began.UnixMilli()) / 1e3
	eventually(t, 20*time.Second, "connections are made", func() (bool, string) {
		good := map[float64]bool{} // by when an attempt began
		lost = nil
		lines := strings.Split(strings.TrimSpace(w.must(t, "logs", "from-0")), "\n")
		for _, line := range lines {
			var at float64
			var ms int
			if _, err := fmt.Sscanf(line, "%g", &at); err != nil || at < since {
				continue
			}
			_, err := fmt.Sscanf(line, "%g %d ms", &at, &ms)
			good[at] = good[at] || err == nil && strings.HasSuffix(line, ": ok") && ms < 2000
			if err == nil && !good[at] {
				lost = append(lost, line)
			}
		}
		begun := slices.Sorted(maps.Keys(good))
		for i := range len(begun) - 19 {
			if !slices.ContainsFunc(begun[i:i+20], func(at float64) bool { return !good[at] }) {
				after = time.Duration((begun[i] - since) * float64(time.Second))
				return true, ""
			}
		}
		return false, strings.Join(lines[max(0, len(lines)-5):], "; ")
	})
	return after, lost
}

// idleTime, in seconds, is longer than NATForgetful remembers (4). What waits at
// the peer for the next connection sends its SYN again, every second at first; after
// the longer time that is forgotten, too.
func idleTime() string {
	if fullNAT() {
		return "26.5"
	}
	return "7"
}

// TestNATForgets: a NAT that forgets what is silent costs what is open there, as
// natively; connections that come later are made as before.
func TestNATForgets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.task(t)
	w.network(t, "forgets")
	kinds := []string{"forgetful", "restricted"}
	var all sync.WaitGroup
	for _, kind := range kinds {
		all.Go(func() {
			w.function(t, "to-"+kind, "--nat", kind, "--source-dir", task, "--", "python3", "/var/task/matrix.py", "serve")
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for _, from := range kinds {
		for _, to := range kinds {
			if from == "restricted" && to == "restricted" {
				continue
			}
			all.Go(func() {
				r := w.run(t, "run", "--kind", "function", "--name", "from-"+from+"-"+to, "--nat", from, "--source-dir", task,
					"--", "python3", "/var/task/matrix.py", "idle", "to-"+to+"-0", idleTime())
				var o struct {
					ID                 int
					Ended, Failed      string
					Cold, Later, After float64
				}
				if err := json.Unmarshal([]byte(r.stdout), &o); r.code != 0 || err != nil {
					t.Error(err, r)
					return
				}
				t.Logf("%s to %s: %+v", from, to, o)
				if o.Failed != "" || max(o.Cold, o.Later) > slowest.Seconds() {
					t.Errorf("%s to %s: new connections: %+v", from, to, o)
				}
				if o.Ended != "ECONNRESET" || o.After > slowest.Seconds() {
					t.Errorf("%s to %s: the open connection: %+v", from, to, o)
				}
				w.wantPath(t, fmt.Sprintf("node-%d", o.ID), "to-"+to+"-0", "punch", 3)
			})
		}
	}
	all.Wait()
}
