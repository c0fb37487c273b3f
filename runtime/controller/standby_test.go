// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

func standby() Declaration {
	d := declaration(0)
	d.Name, d.StandbyFor = "spare", "zk-3"
	return d
}

// vm joins as a VM node does: beside a standby that holds the slot, which then retires.
func (w *world) vm(slot string) (id uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nextID++
	m := cluster.Member{ID: w.nextID, Name: slot, Slot: slot, Service: "zk", Kind: config.KindVM, LaunchID: fmt.Sprint("vm-", w.nextID), State: cluster.StateStarting, Since: time.Now()}
	for _, other := range w.members {
		switch {
		case other.Slot != slot || !other.Holds():
		case other.State == cluster.StateLost:
			w.tell(cluster.EventLeave, other)
		case !other.Standby:
			w.t.Errorf("a VM joins beside %+v", other)
		default:
			m.Succeeds = other.ID
			w.tell(cluster.EventJoin, m)
			other.Retired = true
			w.tell(cluster.EventUpdate, other)
			w.mu.Unlock()
			time.Sleep(5 * time.Millisecond) // who sees this looks at once
			w.mu.Lock()
			time.AfterFunc(5*time.Millisecond, func() { w.end(other.ID, 0) })
		}
		if m.Succeeds != 0 {
			break
		}
	}
	m.Succeeds, m.State = 0, cluster.StateRunning
	w.tell(cluster.EventUpdate, m)
	return m.ID
}

// becomes lets a member fall silent, come back, or leave; what is said together
// everybody hears together.
func (w *world) becomes(id uint32, states ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, state := range states {
		m := w.members[id]
		if state == cluster.StateLeft {
			w.tell(cluster.EventLeave, m)
			continue
		}
		m.State = state
		w.tell(cluster.EventUpdate, m)
	}
}

// held tells what kind of node has the slot and runs.
func (w *world) held(slot string) cluster.Member {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.members {
		if m.Slot == slot && m.Holds() && m.State == cluster.StateRunning {
			return m
		}
	}
	return cluster.Member{}
}

func (w *world) awaitKind(what, slot, kind string) cluster.Member {
	w.t.Helper()
	eventually(w.t, what, func() bool { return w.held(slot).Kind == kind })
	return w.held(slot)
}

// quiet: nothing is launched for a while.
func (w *world) quiet(what string) {
	w.t.Helper()
	before := w.launches("")
	time.Sleep(100 * time.Millisecond)
	if now := w.launches(""); now != before {
		w.t.Errorf("%s: launched %v", what, w.invoked[before:])
	}
}

func TestStandbyTakesTheSlotAndGivesItBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	declare(t, c, standby())
	w.quiet("its node never was there")
	id := w.vm("zk-3")
	w.quiet("its node runs")

	// Gone for less than the grace: back, the same.
	w.becomes(id, cluster.StateLost, cluster.StateRunning)
	w.quiet("its node was away for a moment")

	w.becomes(id, cluster.StateLost)
	if m := w.awaitKind("a standby", "zk-3", config.KindFunction); m.Name != "zk-3" || m.Service != "zk" || !m.Standby {
		t.Errorf("the standby is %+v", m)
	}
	w.quiet("it runs")
	if v := views(t, c)[0]; v.Count != 1 || v.Running != 1 || v.Slots[0].Slot != "zk-3" {
		t.Errorf("seen: %+v", v)
	}
	w.vm("zk-3")
	eventually(t, "no standby", func() bool { return views(t, c)[0].Count == 0 && len(w.Members()) == 1 })
	w.quiet("its node is back")
	if w.launches("zk-3") != 1 || w.launches("") != 1 {
		t.Errorf("launched: %v", w.invoked)
	}
}

func TestStandbyOfANodeThatLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	declare(t, c, standby())
	id := w.vm("zk-3")
	w.becomes(id, cluster.StateLeft)
	w.quiet("its node left in order")

	// Lost, and then gone: that is no order.
	id = w.vm("zk-3")
	w.becomes(id, cluster.StateLost, cluster.StateLeft)
	w.awaitKind("a standby", "zk-3", config.KindFunction)
}

func TestStandbyDiesAndIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	declare(t, c, standby())
	w.becomes(w.vm("zk-3"), cluster.StateLost)
	first := w.awaitKind("a standby", "zk-3", config.KindFunction).ID
	w.end(first, 1)
	eventually(t, "another standby", func() bool { m := w.held("zk-3"); return m.ID != first && m.Standby })
	if _, err := call[struct{}](t, c, MethodRemove, Order{Name: "spare"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "none", func() bool { return len(w.Members()) == 0 })
	w.quiet("nobody stands by")
}

// TestNodeIsBackBeforeItsStandby: the launch comes late, or never.
func TestNodeIsBackBeforeItsStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.delay = 600 * time.Millisecond
	c, _ := w.controller()
	declare(t, c, standby())
	id := w.vm("zk-3")
	w.becomes(id, cluster.StateLost)
	eventually(t, "a launch", func() bool { return w.launches("zk-3") == 1 })
	w.becomes(id, cluster.StateRunning)
	eventually(t, "no standby", func() bool { return views(t, c)[0].Count == 0 })
	time.Sleep(700 * time.Millisecond) // its launch comes now, and is refused
	if m := w.held("zk-3"); m.ID != id || len(w.Members()) != 1 {
		t.Errorf("the slot is %+v's, of %+v", m, w.Members())
	}
	// The next death is no later noticed for that.
	w.mu.Lock()
	w.delay = time.Millisecond
	w.mu.Unlock()
	w.becomes(id, cluster.StateLost)
	began := time.Now()
	w.awaitKind("a standby", "zk-3", config.KindFunction)
	if took := time.Since(began); took > 500*time.Millisecond { // of a patience of a second
		t.Errorf("after %v", took)
	}
}

// TestSeedDiesWithTheNode: the next leader finishes what the one before began, and
// sees who did not come back to it.
func TestSeedDiesWithTheNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, stop := w.controller()
	declare(t, a, standby())
	id := w.vm("zk-3")
	eventually(t, "the node is known", func() bool { return len(views(t, a)) == 1 })
	stop()
	w.becomes(id, cluster.StateLost)
	w.mu.Lock()
	w.term = 2
	w.mu.Unlock()
	_, stop = w.controller()
	first := w.awaitKind("a standby", "zk-3", config.KindFunction)
	stop()

	// With the standby in place.
	w.mu.Lock()
	w.term = 3
	w.mu.Unlock()
	c, _ := w.controller()
	w.quiet("the standby is known")
	if m := w.held("zk-3"); m.ID != first.ID {
		t.Errorf("the slot is %+v's", m)
	}
	w.end(first.ID, 1)
	eventually(t, "another standby", func() bool { m := w.held("zk-3"); return m.ID != first.ID && m.Standby })
	w.vm("zk-3")
	eventually(t, "no standby", func() bool { return views(t, c)[0].Count == 0 && len(w.Members()) == 1 })
}

// TestANewLeaderWaitsForTheNode: it may have lost its seed only.
func TestANewLeaderWaitsForTheNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, stop := w.controller()
	declare(t, a, standby())
	id := w.vm("zk-3")
	stop()
	w.becomes(id, cluster.StateLost)
	c, _ := w.controller(func(o *Options) { o.Settle = time.Second })
	w.quiet("it may come back") // for five times the grace
	w.becomes(id, cluster.StateRunning)
	eventually(t, "it is known", func() bool { return len(views(t, c)) == 1 })
	time.Sleep(time.Second)
	if events, _ := c.Counts(t.Context()); w.launches("") != 0 || events[EventScaled] != 0 {
		t.Errorf("launched %v: %v", w.invoked, events)
	}
}

func TestASlotHasOneStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	declare(t, c, standby())
	d := standby()
	d.Name = "other"
	if _, err := call[View](t, c, MethodDeclare, d); err == nil || !strings.Contains(err.Error(), `slot "zk-3" is that of "spare"`) {
		t.Errorf("a second one: %v", err)
	}
	d = declaration(1)
	d.Name = "zk"
	if _, err := call[View](t, c, MethodDeclare, d); err == nil {
		t.Error("replicas may be named as a standby's slot")
	}

	// It stands by for another: what it had is asked to leave.
	w.becomes(w.vm("zk-3"), cluster.StateLost)
	w.awaitKind("a standby", "zk-3", config.KindFunction)
	d = standby()
	d.StandbyFor = "zk-2"
	declare(t, c, d)
	eventually(t, "none", func() bool { return len(w.Members()) == 0 })
	w.becomes(w.vm("zk-2"), cluster.StateLost)
	w.awaitKind("a standby", "zk-2", config.KindFunction)
}
