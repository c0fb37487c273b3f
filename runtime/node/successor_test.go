// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// murder kills a supervisor, and nobody else.
func (s *supervisor) murder() {
	_ = s.cmd.Process.Kill()
	s.wait()
}

// twoPorts listens on one port, and on another one when a file is there.
const twoPorts = `
import os, socket, sys, time
one = socket.create_server(("", int(sys.argv[1])))
while not os.path.exists(sys.argv[3]): time.sleep(0.01)
two = socket.create_server(("", int(sys.argv[2])))
time.sleep(60)
`

// A supervisor that cannot join yet is told of no listener; what listens meanwhile it
// must find all the same.
func TestAListenerThatNobodyCouldBeToldOf(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "store", StateDir: w.path("store-state"),
		Argv: []string{"python3", "-c", twoPorts, "18141", "18142", w.path("now")}})
	m := w.member("store", func(m cluster.Member) bool { return slices.Contains(m.Listeners, 18141) })
	s.murder()
	_ = w.seed.cmd.Process.Signal(syscall.SIGSTOP)
	defer w.seed.cmd.Process.Signal(syscall.SIGCONT)
	s.launch()
	listens := func(address string) func() bool {
		return func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
			}
			return err == nil
		}
	}
	w.eventually("it looked for listeners", listens(m.UnderlayAddress.String()))
	if err := os.WriteFile(w.path("now"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.eventually("the second port is open", listens(net.JoinHostPort(m.UnderlayAddress.Addr().String(), "18142")))
	_ = w.seed.cmd.Process.Signal(syscall.SIGCONT)
	w.member("store", func(m cluster.Member) bool {
		return m.State == cluster.StateRunning && slices.Contains(m.Listeners, 18141) && slices.Contains(m.Listeners, 18142)
	})
}

// A guest that has ended for good is not started again because its supervisor could not
// start at first.
func TestAGuestThatEndedStaysEnded(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "job", StateDir: w.path("job-state"), Argv: []string{"sh", "-c", "echo ran"}})
	before := w.member("job", in(cluster.StateExited))
	s.murder()
	other, err := net.Listen("tcp", before.UnderlayAddress.String())
	if err != nil {
		t.Fatal(err)
	}
	s.launch()
	if code := s.wait(); code != ExitFailed {
		t.Errorf("with its port taken it ended with %d", code)
	}
	other.Close()
	w.member("job", in(cluster.StateLost))
	s.launch()
	after := w.member("job", in(cluster.StateExited))
	if s.output() != "ran" || after.ID != before.ID || after.Guest.ExitCode == nil {
		t.Errorf("the guest said %q; %+v before, %+v now", s.output(), before, after)
	}
}

// A supervisor that was killed in the moment it started its guest leaves one guest, not
// two.
func TestAGuestThatNobodyNotedIsFound(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "store", StateDir: w.path("store-state"), Argv: []string{"sh", "-c", "echo started; sleep 60 & wait"}})
	before := w.member("store", in(cluster.StateRunning))
	s.murder()
	path := filepath.Join(w.path("store-state"), "run", runFileName)
	var noted map[string]any
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &noted)
	}
	if err != nil {
		t.Fatal(err)
	}
	noted["phase"] = "starting" // as it was before the guest's number was known
	delete(noted, "pid")
	delete(noted, "start_time")
	if data, err = json.Marshal(noted); err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.member("store", in(cluster.StateLost))
	s.launch()
	after := w.member("store", in(cluster.StateRunning))
	if s.output() != "started" || after.Guest.PID != before.Guest.PID {
		t.Errorf("the guest said %q; %+v before, %+v now", s.output(), before.Guest, after.Guest)
	}
	s.murder()
	_ = syscall.Kill(-before.Guest.PID, syscall.SIGKILL)
	w.member("store", in(cluster.StateLost))
	s.launch() // there is none to be found
	w.eventually("another guest", func() bool { return strings.Count(s.output(), "started") == 2 })
}

// The guest of an earlier launch, whose supervisor was killed, is not left beside the new
// one's.
func TestAGuestOfAnotherLaunchIsEnded(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "store", LaunchToken: "first", StateDir: w.path("store-state"), Argv: []string{"sleep", "60"}})
	before := w.member("store", in(cluster.StateRunning))
	s.murder()
	s.task.Config.LaunchToken = "second"
	s.launch()
	after := w.member("store", func(m cluster.Member) bool {
		return m.State == cluster.StateRunning && m.LaunchID == cluster.LaunchID("second")
	})
	if after.Guest.PID == before.Guest.PID || alive(before.Guest.PID) {
		t.Errorf("%+v before, %+v now, the first one runs: %t", before.Guest, after.Guest, alive(before.Guest.PID))
		_ = syscall.Kill(before.Guest.PID, syscall.SIGKILL)
	}
}

// A supervisor that was killed when it was about to begin with another document leaves
// the guest of the first one.
func TestAGuestOfAnotherDocumentIsReplaced(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "store", StateDir: w.path("store-state"), Argv: []string{"sh", "-c", "echo one; exec sleep 60"}})
	before := w.member("store", in(cluster.StateRunning))
	s.murder()
	w.member("store", in(cluster.StateLost))
	s.task.Config.Argv = []string{"sh", "-c", "echo two; exec sleep 60"}
	s.launch()
	after := w.member("store", in(cluster.StateRunning))
	if s.output() != "one\ntwo" || after.ID != before.ID || alive(before.Guest.PID) {
		t.Errorf("the guests said %q; %+v before, %+v now, the first one runs: %t", s.output(), before, after, alive(before.Guest.PID))
	}
}
