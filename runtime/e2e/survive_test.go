// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// steady starts an echo server on a VM and guests that use it all the time,
// natively and directly.
func (f *faults) steady(t *testing.T, server string) (stop func()) {
	t.Helper()
	f.must(t, "run", "--kind", "vm", "--name", server, "--detach", "--source-dir", f.task, "--", "python3", "/var/task/echo.py", "9000", server+"-marker")
	f.must(t, "run", "--kind", "vm", "--name", "near", "--detach", "--source-dir", f.task, "--", "python3", "/var/task/steady.py", server, "9000", "near-marker")
	f.must(t, "run", "--kind", "function", "--name", "far", "--detach", "--source-dir", f.task, "--", "python3", "/var/task/steady.py", server, "9000", "far-marker")
	return func() {
		t.Helper()
		for _, name := range []string{"far", "near", server} {
			f.must(t, "stop", name)
		}
	}
}

// beats of a guest that uses its connection, and what went wrong there.
func (f *faults) beats(t *testing.T, slot string) (int, []string) {
	t.Helper()
	out := f.must(t, "logs", slot)
	var errors []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "beat ") {
			errors = append(errors, line)
		}
	}
	return strings.Count(out, "beat "), errors
}

// goesOn checks that both guests make progress; broken says which errors there
// may have been.
func (f *faults) goesOn(t *testing.T, mayFail func(line string) bool) {
	t.Helper()
	for _, slot := range []string{"near", "far-0"} {
		before, _ := f.beats(t, slot)
		eventually(t, 30*time.Second, slot+" makes progress", func() (bool, string) {
			now, errors := f.beats(t, slot)
			return now > before+10, fmt.Sprintf("%d beats, then %d; %q", before, now, errors)
		})
		_, errors := f.beats(t, slot)
		for _, line := range errors {
			if !mayFail(line) {
				t.Errorf("%s: %s", slot, line)
			}
		}
	}
}

func never(string) bool { return false }

// seedKilled: losing the seed breaks no connection and no name, also for new
// connections, and it comes back with all it knew.
func (f *faults) seedKilled(t *testing.T) {
	stop := f.steady(t, "base")
	before := f.nodes(t)
	kill(t, f.seedSupervisor(t))
	f.goesOn(t, never)
	eventually(t, 30*time.Second, "the seed is back with all members", func() (bool, string) {
		r := f.run(t, "nodes", "--json")
		if r.code != 0 {
			return false, r.String()
		}
		after := f.nodes(t)
		for slot, n := range before {
			if m := after[slot]; m.ID != n.ID || m.Overlay != n.Overlay || m.State != n.State {
				return false, fmt.Sprintf("before %+v, after %+v", n, m)
			}
		}
		return len(after) == len(before), fmt.Sprint(after)
	})
	f.goesOn(t, never)
	f.ask2(t, "base")
	stop()
}

// ask2 uses an echo server from a new node.
func (f *faults) ask2(t *testing.T, name string) {
	t.Helper()
	r := f.run(t, "run", "--kind", "function", "--source-dir", f.task, "--", "python3", "/var/task/connect.py", name+":9000")
	if r.code != 0 || strings.Count(r.stdout, " connected ") != 2 {
		t.Errorf("a new node does not reach %s: %s", name, r)
	}
}

// serverSupervisorKilled: open connections of a VM's guest, native and direct,
// outlive its supervisor; new native ones do not need it.
func (f *faults) serverSupervisorKilled(t *testing.T) {
	stop := f.steady(t, "pier")
	kill(t, f.supervisor(t, "pier-marker"))
	f.goesOn(t, func(line string) bool { return strings.HasPrefix(line, "error on a new connection") })
	f.node(t, "pier", 15*time.Second, "is back", func(n node) bool { return n.State == "running" })
	f.goesOn(t, func(line string) bool { return strings.HasPrefix(line, "error on a new connection") })
	if _, errors := f.beats(t, "near"); len(errors) > 0 {
		t.Errorf("native connections need no supervisor: %q", errors)
	}
	if _, errors := f.beats(t, "far-0"); len(errors) > 0 {
		t.Logf("while the supervisor was away: %q", errors)
	}
	f.ask2(t, "pier")
	stop()
}

// clientSupervisorKilled: so do those of a guest that dials.
func (f *faults) clientSupervisorKilled(t *testing.T) {
	stop := f.steady(t, "quay")
	kill(t, f.supervisor(t, "near-marker"))
	f.goesOn(t, never)
	f.node(t, "near", 15*time.Second, "is back", func(n node) bool { return n.State == "running" })
	f.goesOn(t, never)
	stop()
}

// seedSupervisor is the supervisor below the daemon that no host of the test has.
func (f *faults) seedSupervisor(t *testing.T) int {
	t.Helper()
	root, all := f.daemon(t), processes()
	for pid, p := range all {
		if !p.is("node") || !below(all, pid, root) {
			continue
		}
		guests := 0
		for _, q := range all {
			if q.parent == pid {
				guests++
			}
		}
		if guests == 0 { // the seed runs no guest
			return pid
		}
	}
	t.Fatal("the seed has no supervisor")
	return 0
}

// TestDeleteUnderForeground: deleting a network ends the nodes that somebody
// waits for, and tells them.
func TestDeleteUnderForeground(t *testing.T) {
	w := newWorld(t)
	w.network(t, "under")
	var waiting []*background
	for _, kind := range []string{"vm", "function"} {
		b := w.begin(t, "run", "--kind", kind, "--", "sh", "-c", "echo ready; exec sleep 600")
		b.says(t, "ready\n")
		waiting = append(waiting, b)
	}
	w.must(t, "network", "delete", "under")
	for _, b := range waiting {
		if code := b.end(t, 15*time.Second); code == 0 {
			t.Errorf("%v: exit 0 although its program was ended; stderr %q", b.cmd.Args[1:], b.stderr.String())
		}
	}
}
