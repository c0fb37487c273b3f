// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestSilence: a host that does not answer is missed soon; a process that is kept
// from running, on a host that answers, is waited for.
func TestSilence(t *testing.T) {
	t.Parallel()
	f := &faults{world: newWorld(t)}
	f.task = f.world.task(t)
	f.network(t, "silent")
	f.tick(t, "vm", "busy", "busy-marker")
	f.tick(t, "function", "cut", "cut-marker")
	client := f.natClient(t)
	stopped := f.supervisor(t, "busy-marker")
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := time.AfterFunc(3500*time.Millisecond, func() { _ = syscall.Kill(stopped, syscall.SIGCONT) })
	defer func() { resume.Stop(); _ = syscall.Kill(stopped, syscall.SIGCONT) }()
	if err := client.DisturbNAT(t.Context(), "cut", "cut-0", localcloud.NATCut); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, 20*time.Second, "the cut one is missed", func() (bool, string) {
		all := f.nodes(t)
		if n := all["busy"]; n.State != "running" {
			t.Fatalf("the busy one is %s after %v", n.State, time.Since(began))
		}
		n, ok := all["cut-0"]
		return !ok || n.State == "lost", fmt.Sprintf("%+v", n)
	})
	t.Logf("missed after %v", time.Since(began).Round(10*time.Millisecond))
	log, err := client.NodeTail("seed-0", 50)
	if err != nil {
		t.Fatal(err)
	}
	gone := func(line string) bool {
		return strings.Contains(line, `"slot":"cut-0"`) && strings.Contains(line, "the other host does not answer any more")
	}
	if !slices.ContainsFunc(log, gone) { // its process would be missed, too, but later
		t.Errorf("it was not its host that was missed:\n%s", strings.Join(log, "\n"))
	}
	if n := f.nodes(t)["busy"]; n.State != "running" {
		t.Errorf("the busy one: %+v", n)
	}
}

// TestUnderLoad: members of a machine that has ten times as much to do as it can
// are not taken for dead.
func TestUnderLoad(t *testing.T) {
	if os.Getenv("BOXER_LOAD") == "" {
		t.Skip("it keeps the whole machine busy for half a minute: set BOXER_LOAD=1")
	}
	f := &faults{world: newWorld(t)}
	f.task = f.world.task(t)
	f.network(t, "loaded")
	for i := range 3 {
		f.tick(t, "vm", fmt.Sprintf("vm-%d", i), fmt.Sprintf("vm-%d-marker", i))
	}
	f.must(t, "run", "--kind", "function", "--name", "fn", "--count", "3", "--detach", "--source-dir", f.task,
		"--", "python3", "/var/task/tick.py", "9000", "fn-marker")
	before := f.nodes(t)
	f.vm(t, "burner", "--", "sh", "-c", "for i in $(seq 20); do while :; do :; done & done; wait")
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		all := f.nodes(t)
		for slot, was := range before {
			if now := all[slot]; now.ID != was.ID || now.State != "running" {
				t.Fatalf("%s was %+v and is %+v", slot, was, now)
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	t.Logf("load: %s", load)
}
