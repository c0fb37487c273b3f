// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/raw"
)

// To wake a thread up on a CPU that sleeps takes some 40 us on a virtual machine,
// on the CPU of whoever wakes it 2 us. The kernel prefers the CPU that sleeps, so
// that both run at a time; but here one waits for the other.
const (
	nearAfter      = 4                      // askers on one CPU
	nearPause      = 1000                   // ms without anybody asking
	nearPatience   = 200 * time.Microsecond // to wait for that CPU, on average of
	nearChecked    = 16                     // askers
	nearBarred     = 500 * time.Millisecond // when it took longer, at first
	nearBarredMost = 10 * time.Second
)

// near keeps the loop's thread on the CPU of those that ask, for as long as they
// ask one after the other from one CPU that has time for it.
type near struct {
	allowed unix.CPUSet
	stat    int // schedstat of the thread, -1: not known

	cpu    int // of the last askers
	same   int // how many of them, at most nearAfter
	kept   bool
	asked  int // since the last check
	waited waited
	barred time.Duration // for how long the last time
	until  time.Time
}

// waited is how often a thread was run, and how long it waited for that in all.
type waited struct {
	runs int64
	time time.Duration
}

var nearby = near{stat: -1}

// begin is called on the thread.
func (n *near) begin() {
	if unix.SchedGetaffinity(0, &n.allowed) != nil || n.allowed.Count() < 2 {
		return
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/task/%d/schedstat", os.Getpid(), unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		n.stat = fd
	}
}

// Near tells that who asks runs on this CPU. Only for a function that the loop calls.
func Near(cpu int) { nearby.ask(cpu) }

func (n *near) ask(cpu int) {
	switch {
	case n.stat < 0 || !n.allowed.IsSet(cpu):
		return
	case cpu == n.cpu:
		n.same = min(n.same+1, nearAfter)
	default:
		if n.same -= nearAfter / 2; n.same <= 0 {
			n.leave()
			n.cpu, n.same = cpu, 1
		}
	}
	n.asked++
	if n.kept && n.asked >= nearChecked {
		n.check()
	}
	if !n.kept && n.same == nearAfter && time.Now().After(n.until) {
		n.keep()
	}
}

func (n *near) keep() {
	var only unix.CPUSet
	only.Set(n.cpu)
	before, ok := n.read()
	if !ok || raw.Affinity(&only) != nil {
		n.stat = -1 // not allowed here
		return
	}
	n.kept, n.asked, n.waited = true, 0, before
}

// leave lets the thread run anywhere.
func (n *near) leave() {
	n.same = 0
	if n.kept {
		n.kept = false
		_ = raw.Affinity(&n.allowed)
	}
}

// pause is how long the loop may wait before it must leave, in ms.
func (n *near) pause() int {
	if n.kept {
		return nearPause
	}
	return -1
}

// check leaves a CPU that is too busy.
func (n *near) check() {
	now, ok := n.read()
	each := (now.time - n.waited.time) / time.Duration(max(now.runs-n.waited.runs, 1))
	n.asked, n.waited = 0, now
	if ok && each <= nearPatience {
		n.barred /= 2
		return
	}
	n.leave()
	n.barred = min(max(2*n.barred, nearBarred), nearBarredMost)
	n.until = time.Now().Add(n.barred)
}

func (n *near) read() (waited, bool) {
	var b [96]byte
	got, _ := raw.ReadAt(n.stat, b[:])
	field := bytes.Fields(b[:max(got, 0)])
	if len(field) < 3 {
		return waited{}, false
	}
	wait, err := strconv.ParseInt(string(field[1]), 10, 64)
	runs, failed := strconv.ParseInt(string(field[2]), 10, 64)
	return waited{runs, time.Duration(wait)}, err == nil && failed == nil
}
