// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

const server = `
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(b"hello from " + self.path.encode())
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), H).serve_forever()
`

const fetch = `
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
`

// slowFetch keeps its connection open until a file says that it was seen:
// native connections are counted in samples.
const slowFetch = `
import os, socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
end = time.monotonic() + 15
while not os.path.exists(sys.argv[3]) and time.monotonic() < end: time.sleep(0.02)
s.sendall(b"GET /vm HTTP/1.0\r\n\r\n")
data = b""
while chunk := s.recv(4096): data += chunk
print(data.split(b"\r\n\r\n")[1].decode(), s.getpeername()[0])
`

func TestGuestsTalkByName(t *testing.T) {
	w := newWorld(t)
	w.start(config.Node{Kind: config.KindVM, Slot: "store", Argv: []string{"python3", "-c", server, "18101"}})
	// A guest that listens late is running before, after two seconds.
	m := w.member("store", func(m cluster.Member) bool { return m.State == cluster.StateRunning && len(m.Listeners) > 0 })
	if len(m.Listeners) != 1 || m.Listeners[0] != 18101 || m.NAT != cluster.NATNone || m.Guest.PID == 0 {
		t.Errorf("the server is %+v", m)
	}
	seen := filepath.Join(t.TempDir(), "seen")
	vm := w.start(config.Node{Kind: config.KindVM, Slot: "vm", Argv: []string{"python3", "-c", slowFetch, "store", "18101", seen}})
	w.counted(m.ID, "native")
	if err := os.WriteFile(seen, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.member("vm", in(cluster.StateExited))
	if got := vm.output(); got != "hello from /vm "+m.OverlayAddress.String() {
		t.Errorf("from a VM of the site: %q", got)
	}
	client := w.start(config.Node{Kind: config.KindClient, Slot: "laptop", Argv: []string{"python3", "-c", fetch, "http://store:18101/laptop"}})
	if code := client.wait(); code != 0 || client.output() != "hello from /laptop" {
		t.Errorf("from a laptop: status %d, %q", code, client.output())
	}
	w.counted(m.ID, "relay")
}

// counted waits until a connection to a node over a transport is counted.
func (w *world) counted(to uint32, transport string) {
	w.t.Helper()
	w.eventually(transport+" connections are counted", func() bool {
		paths, err := w.watch.Paths(w.t.Context())
		return err == nil && slices.ContainsFunc(paths, func(p cluster.Path) bool { return p.To == to && p.Transport == transport })
	})
}

func TestExitStatusOfAClient(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		argv []string
		want int
		says string
	}{
		{[]string{"sh", "-c", "exit 42"}, 42, ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137, ""},
		{[]string{"no-such-command"}, 127, `error: command "no-such-command" not found`},
		{[]string{"/etc/hostname"}, 126, `error: command "/etc/hostname" cannot be run`},
	} {
		s := w.start(config.Node{Kind: config.KindClient, Slot: "run", Argv: tt.argv})
		if code := s.wait(); code != tt.want || !strings.Contains(s.log(), tt.says) {
			t.Errorf("%q: status %d, want %d, %q:\n%s", tt.argv, code, tt.want, tt.says, s.log())
		}
	}
}

func TestGuestEnvironmentAndFiles(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "store", Service: "db", Env: map[string]string{"COLOUR": "blue"},
		Argv: []string{"sh", "-c", `echo "$BOXER_NETWORK $BOXER_NODE_ID $BOXER_NODE_NAME $BOXER_NODE_ADDRESS $COLOUR"; cat $BOXER_DIR/hosts $BOXER_DIR/members.txt; echo $BOXER_DIR; exec sleep 60`}})
	w.member("store", in(cluster.StateRunning))
	var lines []string
	w.eventually("the guest has said all", func() bool {
		lines = strings.Split(s.output(), "\n")
		return strings.HasPrefix(lines[len(lines)-1], "/")
	})
	if lines[0] != "shop 2 store 100.80.0.2 blue" {
		t.Errorf("environment: %q", lines[0])
	}
	for _, want := range []string{"100.80.0.2 store db node-2", "2 100.80.0.2 store db vm starting", "1 100.80.0.1 seed-0 seed-0 seed running"} {
		if !strings.Contains(s.output(), want) {
			t.Errorf("no %q in\n%s", want, s.output())
		}
	}
	dir := lines[len(lines)-1]
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("run directory: %v, %v", info, err)
	}
	conn, err := net.Dial("unix", dir+"/members.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	r := bufio.NewScanner(conn)
	for _, slot := range []string{"seed-0", "store"} {
		var e cluster.Event
		if !r.Scan() || json.Unmarshal(r.Bytes(), &e) != nil || e.Type != cluster.EventJoin || e.Member.Slot != slot {
			t.Errorf("stream: %q, want the join of %s", r.Text(), slot)
		}
	}
	if code := s.stop(); code != 0 {
		t.Errorf("stopped with status %d", code)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the run directory is left")
	}
}

// stop sends SIGTERM and returns the exit status.
func (s *supervisor) stop() int {
	s.w.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.w.t.Fatal(err)
	}
	return s.wait()
}

func TestBarrier(t *testing.T) {
	w := newWorld(t)
	front := w.start(config.Node{Kind: config.KindVM, Slot: "front", WaitFor: map[string]int{"logic": 2}, Argv: []string{"sleep", "60"}})
	w.member("front", in(cluster.StateStarting))
	logic := func(slot string) {
		w.start(config.Node{Kind: config.KindVM, Name: "logic", Slot: slot, Argv: []string{"sh", "-c", "exec sleep 60"}})
		w.member(slot, in(cluster.StateRunning))
	}
	logic("logic-0")
	if m := w.member("front", in(cluster.StateStarting)); m.Guest.State != cluster.GuestWaiting {
		t.Errorf("with one of two: %+v\n%s", m.Guest, front.log())
	}
	logic("logic-1")
	w.member("front", in(cluster.StateRunning))
}

func TestNodesThatWaitForEachOtherStart(t *testing.T) {
	w := newWorld(t)
	for _, slot := range []string{"a", "b"} {
		w.start(config.Node{Kind: config.KindVM, Slot: slot, WaitFor: map[string]int{config.WaitNodes: 2}, Argv: []string{"sleep", "60"}})
	}
	w.member("a", in(cluster.StateRunning))
	w.member("b", in(cluster.StateRunning))
}

func TestStopTerminatesTheGuestAndLeaves(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "store", Argv: []string{"sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"}})
	m := w.member("store", in(cluster.StateRunning))
	if code := s.stop(); code != 0 || !strings.HasPrefix(s.output(), "up\n") || !strings.HasSuffix(s.output(), "bye") {
		t.Errorf("status %d, output %q", code, s.output())
	}
	w.eventually("it has left", func() bool { _, ok := w.watch.Member(m.ID); return !ok })
	if alive(m.Guest.PID) {
		t.Error("the guest is left")
	}
}

func TestAVMStaysWhenItsGuestEnds(t *testing.T) {
	w := newWorld(t)
	w.start(config.Node{Kind: config.KindVM, Slot: "job", Argv: []string{"sh", "-c", "exit 3"}})
	if m := w.member("job", in(cluster.StateExited)); m.Guest.ExitCode == nil || *m.Guest.ExitCode != 3 {
		t.Errorf("guest %+v", m.Guest)
	}
	w.start(config.Node{Kind: config.KindVM, Slot: "typo", Argv: []string{"no-such-command"}})
	if m := w.member("typo", in(cluster.StateFailed)); m.Guest.State != cluster.GuestFailed || !strings.Contains(m.Guest.Error, "not found") || *m.Guest.ExitCode != 127 {
		t.Errorf("guest %+v", m.Guest)
	}
	// Why a guest fails is told in any case, as far as it fits.
	w.start(config.Node{Kind: config.KindVM, Slot: "lost", Argv: []string{"no-such-command"}, Env: map[string]string{"PATH": strings.Repeat("/nowhere:", 1000)}})
	if m := w.member("lost", in(cluster.StateFailed)); !strings.Contains(m.Guest.Error, `"no-such-command" not found`) {
		t.Errorf("guest %+v", m.Guest)
	}
	w.start(config.Node{Kind: config.KindVM, Slot: "flaky", Restart: config.RestartAlways, Argv: []string{"sh", "-c", "sleep 0.05"}})
	w.member("flaky", func(m cluster.Member) bool { return m.Guest.Restarts >= 2 })
}

func TestAKilledSupervisorsGuestIsTakenUpAgain(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "store", StateDir: w.path("store-state"), Argv: []string{"python3", "-c", server, "18102"}})
	before := w.member("store", in(cluster.StateRunning))
	_ = s.cmd.Process.Kill()
	s.wait()
	if !alive(before.Guest.PID) {
		t.Fatal("the guest died with its supervisor")
	}
	s.launch()
	after := w.member("store", func(m cluster.Member) bool { return m.State == cluster.StateRunning && m.Since.Equal(before.Since) })
	w.eventually("the new supervisor says so", func() bool { return strings.Contains(s.log(), `"adopted":true`) })
	if after.ID != before.ID || after.Guest.PID != before.Guest.PID || after.OverlayAddress != before.OverlayAddress {
		t.Errorf("before %+v, after %+v", before, after)
	}
	client := w.start(config.Node{Kind: config.KindClient, Slot: "laptop", Argv: []string{"python3", "-c", fetch, "http://store:18102/again"}})
	if code := client.wait(); code != 0 || client.output() != "hello from /again" {
		t.Errorf("status %d, %q", code, client.output())
	}
	_ = syscall.Kill(before.Guest.PID, syscall.SIGKILL)
	if m := w.member("store", in(cluster.StateExited)); m.Guest.ExitCode != nil {
		t.Errorf("the adopted guest's status is known: %+v", m.Guest)
	}
}

func TestAFunctionDrainsBeforeItsDeadline(t *testing.T) {
	w := newWorld(t)
	start := time.Now()
	s := w.start(config.Node{Kind: config.KindFunction, Slot: "logic-0", DeadlineMarginMS: 3000, Argv: []string{"sh", "-c", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done"}},
		func(task *nodeTask) { task.Life = 6 * time.Second })
	if code := s.wait(); code != 0 || !strings.HasSuffix(s.output(), "bye") || !strings.Contains(s.log(), "ended: deadline") {
		t.Errorf("status %d, output %q\n%s", code, s.output(), s.log())
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("ended after %v, past its deadline", took)
	}
	failed := w.start(config.Node{Kind: config.KindFunction, Slot: "logic-1", Argv: []string{"sh", "-c", "exit 5"}})
	if code := failed.wait(); code != 5 {
		t.Errorf("a function ended with %d", code)
	}
}

// accept takes connections and keeps them until their peers end them.
const accept = `
import socket, sys, threading
ln = socket.create_server(("", int(sys.argv[1])))
def keep(c):
    while c.recv(4096): pass
    c.close()
while True: threading.Thread(target=keep, args=(ln.accept()[0],)).start()
`

// launch of a function's slot with a guest that listens on port.
func launch(token, succeeds, port string) config.Node {
	n := config.Node{Kind: config.KindFunction, Slot: "web-0", LaunchToken: token, Argv: []string{"python3", "-c", accept, port}}
	if succeeds != "" {
		n.Succeeds = cluster.LaunchID(succeeds)
	}
	return n
}

func TestARetiredNodeLeavesWhenItsConnectionsHaveEnded(t *testing.T) {
	w := newWorld(t)
	part := func(token string, is func(cluster.Member) bool) cluster.Member {
		t.Helper()
		var last cluster.Member
		w.eventually(token+" is as wanted", func() bool {
			for _, m := range w.watch.Members() {
				if m.LaunchID == cluster.LaunchID(token) {
					last = m
					return is(m)
				}
			}
			return false
		})
		return last
	}
	long := func(task *nodeTask) { task.Life = time.Minute }
	began := time.Now()
	holder := w.start(launch("one", "", "18121"), long)
	m := part("one", func(m cluster.Member) bool { return len(m.Listeners) > 0 })
	if ends := m.Ends.Sub(began); ends < 50*time.Second || ends > 60*time.Second {
		t.Errorf("it says that it ends after %v, want 5 s before its minute is over", ends)
	}
	conn, err := net.Dial("tcp", netip.AddrPortFrom(m.UnderlayAddress.Addr(), 18121).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	next := w.start(launch("two", "one", "18122"), long)
	part("two", func(m cluster.Member) bool { return m.Holds() && len(m.Listeners) > 0 })
	part("one", func(m cluster.Member) bool { return m.Retired })
	retired := time.Now()
	for time.Since(retired) < retireLeast+5*retireTick {
		select {
		case <-holder.done:
			t.Fatal("it left with a connection open")
		case <-time.After(retireTick):
		}
	}
	conn.Close()
	if code := holder.wait(); code != 0 || !strings.Contains(holder.log(), "ended: retired") {
		t.Errorf("status %d\n%s", code, holder.log())
	}
	third := w.start(launch("three", "two", "18123"), long)
	part("three", func(m cluster.Member) bool { return m.Holds() })
	retired = time.Now()
	if next.wait(); time.Since(retired) < retireLeast-500*time.Millisecond { // it was told before we were
		t.Errorf("without connections it left after %v", time.Since(retired))
	}
	third.stop()
}

func TestASeedsRestartDisturbsNobody(t *testing.T) {
	w := newWorld(t)
	w.start(config.Node{Kind: config.KindVM, Slot: "store", Argv: []string{"sleep", "60"}})
	before := w.member("store", in(cluster.StateRunning))
	_ = w.seed.cmd.Process.Kill()
	w.seed.wait()
	w.seed.launch()
	w.member("seed-0", in(cluster.StateRunning))
	after := w.member("store", func(m cluster.Member) bool {
		return m.State == cluster.StateRunning && w.watch.Connected()
	})
	if after.ID != before.ID || after.Guest.PID != before.Guest.PID {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
