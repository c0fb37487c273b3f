// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// faults is a network whose nodes die in every way.
type faults struct {
	*world
	task string
}

// TestFaults kills what can be killed.
func TestFaults(t *testing.T) {
	t.Parallel()
	f := &faults{world: newWorld(t)}
	f.task = filepath.Join(filepath.Dir(f.state), "task")
	if err := os.CopyFS(f.task, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	f.network(t, "faults")
	t.Run("supervisor killed", f.supervisorKilled)
	t.Run("seed killed", f.seedKilled)
	t.Run("supervisor of a server killed", f.serverSupervisorKilled)
	t.Run("supervisor of a client killed", f.clientSupervisorKilled)
	t.Run("guest killed", f.guestKilled)
	t.Run("guest restarted", f.guestRestarted)
	t.Run("vm host killed", f.hostKilled)
	t.Run("sandbox killed", f.sandboxKilled)
	t.Run("nobody listens", f.nobodyListens)
	t.Run("no live node", f.noLiveNode)
	t.Run("daemon killed", f.daemonKilled)
}

// tick starts a server whose argument marker makes it findable.
func (f *faults) tick(t *testing.T, kind, name, marker string, flags ...string) {
	t.Helper()
	args := append([]string{"run", "--kind", kind, "--name", name, "--detach", "--source-dir", f.task}, flags...)
	f.must(t, append(args, "--", "python3", "/var/task/tick.py", "9000", marker)...)
}

// ask connects from a foreground node and returns the server's line.
func (f *faults) ask(t *testing.T, kind, name string) string {
	t.Helper()
	r := f.run(t, "run", "--kind", kind, "--source-dir", f.task, "--", "python3", "/var/task/ask.py", name, "9000")
	if r.code != 0 || !strings.HasPrefix(r.stdout, "pid ") {
		t.Errorf("ask %s from a %s: %s", name, kind, r)
	}
	return r.stdout
}

func (f *faults) supervisorKilled(t *testing.T) {
	f.tick(t, "vm", "rock", "rock-marker")
	before := f.nodes(t)["rock"]
	pid := f.guest(t, "rock-marker")
	answers := map[string]string{"vm": f.ask(t, "vm", "rock"), "function": f.ask(t, "function", "rock")}
	for round := range 2 {
		old := f.supervisor(t, "rock-marker")
		kill(t, old)
		eventually(t, 30*time.Second, "a new supervisor", func() (bool, string) {
			now := f.supervisor(t, "rock-marker")
			return now != 0 && now != old, fmt.Sprint(now)
		})
		f.node(t, "rock", 30*time.Second, "is back as it was", func(n node) bool {
			return n.State == "running" && n.ID == before.ID && n.Overlay == before.Overlay &&
				n.Guest.State == "running" && n.Guest.PID == before.Guest.PID
		})
		if now := f.guest(t, "rock-marker"); now != pid {
			t.Errorf("round %d: the guest was process %d and is %d", round, pid, now)
		}
		// Natively, and through the new supervisor's address book of listeners.
		for kind, want := range answers {
			if got := f.ask(t, kind, "rock"); got != want {
				t.Errorf("round %d: %s: %q, before: %q", round, kind, got, want)
			}
		}
	}
	// What was taken up again is also ended properly.
	f.must(t, "stop", "rock")
	if now := f.guest(t, "rock-marker"); now != 0 {
		t.Errorf("the guest still runs as process %d", now)
	}
}

func (f *faults) guestKilled(t *testing.T) {
	for _, kind := range []string{"vm", "function"} {
		slot := map[string]string{"vm": "frail", "function": "frail-0"}[kind]
		f.tick(t, kind, "frail", "frail-marker")
		kill(t, f.guest(t, "frail-marker"))
		if kind == "function" { // its supervisor ends with its guest
			f.gone(t, slot)
		} else {
			n := f.node(t, slot, 30*time.Second, "has exited", func(n node) bool { return n.State == "exited" && n.Guest.State == "exited" })
			if n.Guest.ExitCode == nil || *n.Guest.ExitCode != 128+9 {
				t.Errorf("exit code of a killed guest: %+v", n)
			}
		}
		f.must(t, "stop", "frail")
	}
	f.vm(t, "brief", "--", "sh", "-c", "sleep 4; exit 3")
	n := f.node(t, "brief", 30*time.Second, "has exited", func(n node) bool { return n.State == "exited" })
	if n.Guest.ExitCode == nil || *n.Guest.ExitCode != 3 {
		t.Errorf("exit code: %+v", n)
	}
	f.must(t, "stop", "brief")
}

func (f *faults) guestRestarted(t *testing.T) {
	for _, kind := range []string{"vm", "function"} {
		slot := map[string]string{"vm": "phoenix", "function": "phoenix-0"}[kind]
		f.tick(t, kind, "phoenix", "phoenix-marker", "--restart", "always")
		before := f.nodes(t)[slot]
		old := f.guest(t, "phoenix-marker")
		kill(t, old)
		after := f.node(t, slot, 30*time.Second, "runs again", func(n node) bool {
			return n.State == "running" && n.Guest.State == "running" && n.Guest.Restarts == 1
		})
		if after.ID != before.ID || after.Overlay != before.Overlay || f.guest(t, "phoenix-marker") == old {
			t.Errorf("%s: before %+v, after %+v", kind, before, after)
		}
		f.ask(t, "vm", slot)
		f.must(t, "stop", "phoenix")
	}
}

// gone waits until the slot has no member that could be taken for alive.
func (f *faults) gone(t *testing.T, slot string) {
	t.Helper()
	eventually(t, 30*time.Second, slot+" shows as gone", func() (bool, string) {
		n, ok := f.nodes(t)[slot]
		return !ok || n.State == "lost", fmt.Sprintf("%+v", n)
	})
}

func (f *faults) hostKilled(t *testing.T) {
	f.tick(t, "vm", "doomed", "doomed-marker")
	before := f.nodes(t)["doomed"]
	kill(t, f.host(t, "doomed-marker"))
	f.gone(t, "doomed")
	if pid := f.guest(t, "doomed-marker"); pid != 0 {
		t.Errorf("its guest survived as process %d", pid)
	}
	f.must(t, "stop", "doomed")
	f.tick(t, "vm", "doomed", "doomed-marker")
	if after := f.nodes(t)["doomed"]; after.Overlay != before.Overlay || after.ID == before.ID {
		t.Errorf("a successor takes the slot's address and a new id: before %+v, after %+v", before, after)
	}
	f.ask(t, "function", "doomed")
	f.must(t, "stop", "doomed")
}

func (f *faults) sandboxKilled(t *testing.T) {
	f.tick(t, "function", "fleeting", "fleeting-marker")
	kill(t, f.host(t, "fleeting-marker"))
	f.gone(t, "fleeting-0")
	f.must(t, "stop", "fleeting")
	f.tick(t, "function", "fleeting", "fleeting-marker")
	f.ask(t, "vm", "fleeting-0")
	f.must(t, "stop", "fleeting")
}

// attempt is a line of connect.py.
var attempt = regexp.MustCompile(`(?m)^(\S+) (blocking|non-blocking) (.+) ([0-9]+)$`)

// attempts connects from a node to the targets and checks every end.
func (f *faults) attempts(t *testing.T, kind string, limit time.Duration, want []string, targets ...string) {
	t.Helper()
	args := []string{"run", "--kind", kind, "--source-dir", f.task, "--", "python3", "/var/task/connect.py"}
	if kind == "client" {
		args = []string{"run", "--", "python3", filepath.Join(f.task, "connect.py")}
	}
	r := f.run(t, append(args, targets...)...)
	found := attempt.FindAllStringSubmatch(r.stdout, -1)
	if r.code != 0 || len(found) != 2*len(targets) {
		t.Errorf("%s: %s", kind, r)
	}
	for _, m := range found {
		ok := false
		for _, w := range want {
			ok = ok || m[3] == w
		}
		if ms, _ := strconv.Atoi(m[4]); !ok || time.Duration(ms)*time.Millisecond > limit {
			t.Errorf("%s: want one of %v within %v: %s", kind, want, limit, m[0])
		}
	}
}

func (f *faults) nobodyListens(t *testing.T) {
	f.tick(t, "vm", "deaf", "deaf-marker")
	f.tick(t, "function", "mute", "mute-marker")
	for _, kind := range []string{"vm", "function", "client"} {
		// vm: native and relay; function: direct and relay; client: relay.
		f.attempts(t, kind, 3*time.Second, []string{"ECONNREFUSED"}, "deaf:9001", "mute:9001")
		f.attempts(t, kind, 3*time.Second, []string{"connected"}, "deaf:9000", "mute:9000")
	}
	f.must(t, "stop", "deaf")
	f.must(t, "stop", "mute")
}

func (f *faults) noLiveNode(t *testing.T) {
	f.tick(t, "vm", "left", "left-marker")
	f.tick(t, "function", "went", "went-marker")
	all := f.nodes(t)
	f.must(t, "stop", "left")
	f.must(t, "stop", "went")
	f.gone(t, "left")
	f.gone(t, "went-0")
	for _, kind := range []string{"vm", "function", "client"} {
		f.attempts(t, kind, 8*time.Second, []string{"EHOSTUNREACH", "ETIMEDOUT"},
			all["left"].Overlay+":9000", all["went-0"].Overlay+":9000", "100.80.200.200:9000")
	}
}

// daemonKilled: with the daemon everything of the network is gone, and the
// next node that is started brings it back with the same names and addresses.
func (f *faults) daemonKilled(t *testing.T) {
	f.tick(t, "vm", "again", "again-marker")
	before := f.nodes(t)["again"]
	kill(t, f.daemon(t))
	f.nothingRuns(t)
	f.tick(t, "vm", "again", "again-marker")
	after := f.nodes(t)["again"]
	if after.Overlay != before.Overlay || after.ID <= before.ID {
		t.Errorf("slots and ids are kept: before %+v, after %+v", before, after)
	}
	f.ask(t, "function", "again")
	f.must(t, "stop", "again")
}

// nothingRuns waits until no process of the network is left.
func (w *world) nothingRuns(t *testing.T) {
	t.Helper()
	eventually(t, 30*time.Second, "no process is left", func() (bool, string) {
		left := w.traces()
		return len(left) == 0, strings.Join(left, "\n")
	})
}
