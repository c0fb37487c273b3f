// SPDX-License-Identifier: Apache-2.0

package events

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newNear is for a test's own thread, which ends with the test.
func newNear(t *testing.T) (n *near, cpu, other int) {
	t.Helper()
	runtime.LockOSThread()
	n = &near{stat: -1}
	n.begin()
	if n.stat < 0 {
		t.Skip("needs two CPUs and /proc/.../schedstat")
	}
	t.Cleanup(func() { unix.Close(n.stat) })
	for cpu = 0; !n.allowed.IsSet(cpu); cpu++ {
	}
	for other = cpu + 1; !n.allowed.IsSet(other); other++ {
	}
	return n, cpu, other
}

func askOften(n *near, cpu, times int) {
	for range times {
		n.ask(cpu)
	}
}

// runsOn fails unless this thread may run on cpu alone, or anywhere if that is -1.
func runsOn(t *testing.T, n *near, cpu int) {
	t.Helper()
	want := n.allowed
	if cpu >= 0 {
		want.Zero()
		want.Set(cpu)
	}
	var now unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &now))
	if now != want || n.kept != (cpu >= 0) {
		t.Fatalf("kept %t; the thread may run on %d CPUs, on the wanted one: %t", n.kept, now.Count(), cpu >= 0 && now.IsSet(cpu))
	}
}

func TestWhoIsAskedStaysNear(t *testing.T) {
	n, cpu, other := newNear(t)
	askOften(n, other, nearAfter-1)
	runsOn(t, n, -1)
	askOften(n, other, 1)
	runsOn(t, n, other)
	askOften(n, cpu, 1) // a stray one
	runsOn(t, n, other)
	askOften(n, cpu, nearAfter+2)
	runsOn(t, n, cpu)
	n.leave()
	runsOn(t, n, -1)
	for range 100 { // from everywhere
		askOften(n, cpu, 2)
		askOften(n, other, 2)
		runsOn(t, n, -1)
	}
	askOften(n, 1<<16, 2*nearAfter) // no such CPU
	runsOn(t, n, -1)
}

// A CPU that lets the thread wait is left, for longer each time.
func TestABusyCPUIsLeft(t *testing.T) {
	n, cpu, _ := newNear(t)
	for _, barred := range []time.Duration{nearBarred, 2 * nearBarred} {
		n.until = time.Time{}
		askOften(n, cpu, nearAfter)
		runsOn(t, n, cpu)
		n.waited.time -= 1000 * time.Hour
		askOften(n, cpu, nearChecked)
		runsOn(t, n, -1)
		askOften(n, cpu, nearAfter)
		runsOn(t, n, -1)
		if n.barred != barred {
			t.Errorf("barred for %v, want %v", n.barred, barred)
		}
	}
	n.until = time.Time{}
	askOften(n, cpu, nearAfter)
	n.waited, _ = n.read()
	n.waited.runs -= 1000000
	askOften(n, cpu, nearChecked)
	runsOn(t, n, cpu)
	if n.barred != nearBarred {
		t.Errorf("barred for %v next, want %v", 2*n.barred, 2*nearBarred)
	}
}
