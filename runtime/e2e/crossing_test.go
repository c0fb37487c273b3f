// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	kills = 10
	// longest a connect may take while a supervisor is away and comes back.
	longest = 10 * time.Second
)

// TestSupervisorKilledAgainAndAgain: under load, a VM's guests go on while its
// supervisor dies ten times; open native and direct connections notice nothing,
// new ones end with a clear answer, and nothing piles up.
func TestSupervisorKilledAgainAndAgain(t *testing.T) {
	f := &faults{world: newWorld(t)}
	f.task = filepath.Join(filepath.Dir(f.state), "task")
	if err := os.CopyFS(f.task, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	f.network(t, "crossing")
	start := func(kind, name string, flags []string, argv ...string) {
		t.Helper()
		args := append([]string{"run", "--kind", kind, "--name", name, "--detach", "--source-dir", f.task}, flags...)
		f.must(t, append(append(args, "--"), argv...)...)
	}
	// A marker is found in one process only; dock.py forks.
	start("vm", "dock", nil, "sh", "-c", "python3 /var/task/dock.py & wait", "dock-marker")
	start("vm", "near", nil, "python3", "/var/task/crossing.py", "dock", "near-marker", "9000", "9001", "9002")
	start("function", "far", nil, "python3", "/var/task/crossing.py", "dock", "far-marker", "9000", "9001", "9002")
	start("vm", "spliced", []string{"--transports", "relay"}, "python3", "/var/task/crossing.py", "dock", "spliced-marker", "9000", "9001", "9002")

	t.Run("of the server", func(t *testing.T) {
		var before usage
		for i := range kills {
			f.restarted(t, "dock", "dock-marker")
			if i == 0 {
				before = f.settledUsage(t, "dock-marker")
			}
		}
		after := f.settledUsage(t, "dock-marker")
		t.Logf("after the first kill %+v, after %d: %+v", before, kills, after)
		if after.processes != before.processes || after.descriptors > before.descriptors+8 || after.memory > before.memory+8<<20 {
			t.Errorf("after the first kill %+v, after %d: %+v", before, kills, after)
		}
		for slot, mayFail := range map[string]bool{"near": false, "far-0": true, "spliced": true} {
			f.advances(t, slot)
			f.checkCrossing(t, slot, false, mayFail)
		}
	})
	t.Run("of a client", func(t *testing.T) {
		f.restarted(t, "spliced", "spliced-marker")
		f.advances(t, "spliced")
		f.checkCrossing(t, "spliced", true, true)
		f.restarted(t, "near", "near-marker")
		f.advances(t, "near")
		f.checkCrossing(t, "near", false, false)
	})
	t.Run("before accept", func(t *testing.T) {
		b := f.begin(t, "run", "--kind", "function", "--source-dir", f.task, "--", "python3", "/var/task/queued.py", "dock", "9003")
		b.says(t, "connected\n")
		kill(t, f.supervisor(t, "dock-marker"))
		began := time.Now()
		b.says(t, "ECONNRESET\n")
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the client saw the reset after %v", took)
		}
		b.end(t, 15*time.Second)
	})
}

// restarted kills the supervisor of a VM's guest and waits for the next one.
func (f *faults) restarted(t *testing.T, slot, marker string) {
	t.Helper()
	old := f.supervisor(t, marker)
	kill(t, old)
	eventually(t, 20*time.Second, "a new supervisor of "+slot, func() (bool, string) {
		now := f.supervisor(t, marker)
		return now != 0 && now != old, fmt.Sprint(now)
	})
	f.node(t, slot, 20*time.Second, "is back", func(n node) bool { return n.State == "running" })
	for _, client := range []string{"near", "far-0"} {
		f.advances(t, client)
	}
}

// advances waits for a crossing guest's next beats.
func (f *faults) advances(t *testing.T, slot string) {
	t.Helper()
	before := strings.Count(f.must(t, "logs", slot), "beat ")
	eventually(t, 20*time.Second, slot+" makes progress", func() (bool, string) {
		out := f.must(t, "logs", slot)
		return strings.Count(out, "beat ") > before+5, clip(out)
	})
}

// checkCrossing checks what went wrong in a crossing guest: with its kept
// connection, and with new ones.
func (f *faults) checkCrossing(t *testing.T, slot string, keptFails, newFails bool) {
	t.Helper()
	counts := map[string]int{}
	for line := range strings.Lines(f.must(t, "logs", slot)) {
		words := strings.Fields(line)
		switch words[0] {
		case "beat":
			continue
		case "kept":
			counts["kept "+words[1]]++
			if !keptFails || words[1] != "ECONNRESET" {
				t.Errorf("%s: the open connection: %s", slot, line)
			}
		case "new":
			counts[words[2]+" "+words[3]]++
			took, err := strconv.Atoi(words[len(words)-1])
			clear := []string{"connect ECONNREFUSED", "connect ENETDOWN", "connect EHOSTUNREACH", "connect ECONNRESET", "echo ECONNRESET"}
			if err != nil || !newFails || !slices.Contains(clear, words[2]+" "+words[3]) || time.Duration(took)*time.Millisecond > longest {
				t.Errorf("%s: a new connection: %s", slot, line)
			}
		default:
			t.Errorf("%s: %s", slot, line)
		}
	}
	t.Logf("%s: %v", slot, counts)
}

// usage is what a host's processes hold.
type usage struct {
	processes, descriptors int
	memory                 int // resident bytes of the supervisor
}

// settledUsage is the least of some looks: connections come and go.
func (f *faults) settledUsage(t *testing.T, marker string) usage {
	t.Helper()
	var least usage
	for i := range 20 {
		now := f.usage(t, marker)
		if i == 0 || now.descriptors < least.descriptors {
			now.memory = max(now.memory, least.memory)
			least = now
		}
		time.Sleep(50 * time.Millisecond)
	}
	return least
}

func (f *faults) usage(t *testing.T, marker string) usage {
	t.Helper()
	host, all := f.host(t, marker), processes()
	var u usage
	for pid, p := range all {
		if !below(all, pid, host) {
			continue
		}
		u.processes++
		if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
			u.descriptors += len(fds)
		}
		if statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil && p.is("node") {
			pages, _ := strconv.Atoi(strings.Fields(string(statm))[1])
			u.memory = pages * os.Getpagesize()
		}
	}
	return u
}
