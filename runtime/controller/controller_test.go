// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

func TestKeepsTheNumber(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	v := declare(t, c, declaration(3))
	if len(v.Slots) != 3 || v.Slots[2].LaunchID == "" || v.Slots[0].State != "launching" {
		t.Errorf("declared: %+v", v)
	}
	w.await("logic-0", "logic-1", "logic-2")
	declare(t, c, declaration(5))
	w.await("logic-0", "logic-1", "logic-2", "logic-3", "logic-4")
	declare(t, c, declaration(1))
	w.await("logic-0")
	declare(t, c, declaration(2))
	w.await("logic-0", "logic-1")
	if got := w.launches("logic-0"); got != 1 {
		t.Errorf("the replica that stayed was launched %d times", got)
	}
	if got := w.launches(""); got != 6 {
		t.Errorf("%d launches, want 6: %v", got, w.invoked)
	}
	if events, nodes := c.Counts(t.Context()); events[EventLaunched] != 6 || events[EventDrained] != 4 || len(nodes) != 1 || nodes[0].Running != 2 || nodes[0].Count != 2 {
		t.Errorf("counted %v, %+v", events, nodes)
	}
	if _, err := call[struct{}](t, c, MethodRemove, Order{Name: "logic"}); err != nil {
		t.Fatal(err)
	}
	w.await()
	if len(w.Notes()) != 0 {
		t.Errorf("kept: %v", w.Notes())
	}
}

func TestReplacesWhatEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	declare(t, c, declaration(2))
	w.await("logic-0", "logic-1")
	first := w.id("logic-1")
	time.Sleep(60 * time.Millisecond) // stable
	w.end(first, 1)
	eventually(t, "another logic-1", func() bool { id := w.id("logic-1"); return id != 0 && id != first })
	w.await("logic-0", "logic-1")

	// One that falls silent has its slot until another comes.
	second := w.id("logic-0")
	w.mu.Lock()
	w.delay = 100 * time.Millisecond // it has its time
	m := w.members[second]
	m.State = cluster.StateLost
	w.tell(cluster.EventUpdate, m)
	w.mu.Unlock()
	eventually(t, "another logic-0", func() bool { id := w.id("logic-0"); return id != 0 && id != second })
	if got := w.launches("logic-0"); got != 2 {
		t.Errorf("logic-0 was launched %d times", got)
	}
}

// TestALostReplicaGoesBeforeAnotherCame: the seed tells of both one after the other,
// and what was launched in its place is not launched twice.
func TestALostReplicaGoesBeforeAnotherCame(t *testing.T) {
	t.Parallel()
	for _, ran := range []time.Duration{0, 60 * time.Millisecond} { // not stable, and stable
		w := newWorld(t)
		c, _ := w.controller()
		declare(t, c, declaration(1))
		w.await("logic-0")
		time.Sleep(ran)
		w.mu.Lock()
		w.delay = 300 * time.Millisecond
		m := w.members[w.nextID]
		m.State = cluster.StateLost
		w.tell(cluster.EventUpdate, m)
		w.mu.Unlock()
		eventually(t, "another launch", func() bool { return w.launches("") == 2 })
		w.mu.Lock()
		w.tell(cluster.EventLeave, m)
		w.mu.Unlock()
		w.await("logic-0")
		if events, _ := c.Counts(t.Context()); w.launches("") != 2 || events[EventFailed] != 0 {
			t.Errorf("after %v: launched %v, said %v", ran, w.invoked, events)
		}
	}
}

// TestAReplicaThatDoesNotLeave is asked again.
func TestAReplicaThatDoesNotLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ignores = true
	c, _ := w.controller(func(o *Options) { o.Again = 50 * time.Millisecond })
	declare(t, c, declaration(2))
	w.await("logic-0", "logic-1")
	declare(t, c, declaration(1))
	// A call would wake the controller up.
	eventually(t, "asked three times", func() bool { return c.journal.counts()[EventDrained] >= 3 })
}

// TestAnOldLaunchIsNoFailure: a leader that takes over finds a slot empty whose
// last launch is long ago.
func TestAnOldLaunchIsNoFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	patience := func(o *Options) { o.Patience = 500 * time.Millisecond }
	a, stop := w.controller(patience)
	declare(t, a, declaration(1))
	w.await("logic-0")
	stop()
	time.Sleep(600 * time.Millisecond)
	w.end(w.id("logic-0"), 0)
	w.mu.Lock()
	w.term = 2
	w.mu.Unlock()
	b, _ := w.controller(patience)
	w.await("logic-0")
	if events, _ := b.Counts(t.Context()); events[EventFailed] != 0 {
		t.Errorf("events: %v", events)
	}
}

// TestALostReplicaThatComesBack is not replaced.
func TestALostReplicaThatComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller(func(o *Options) { o.Grace = time.Second })
	declare(t, c, declaration(1))
	w.await("logic-0")
	id := w.id("logic-0")
	for _, state := range []string{cluster.StateLost, cluster.StateRunning} {
		w.mu.Lock()
		m := w.members[id]
		m.State = state
		w.tell(cluster.EventUpdate, m)
		w.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(1200 * time.Millisecond)
	if w.id("logic-0") != id || w.launches("") != 1 {
		t.Errorf("launched %v", w.invoked)
	}
}

func TestBacksOffFromGuestsThatEndAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.life = time.Millisecond
	c, _ := w.controller()
	declare(t, c, declaration(1))
	time.Sleep(700 * time.Millisecond)
	// 10 ms, 20, 40, ... with a jitter of a half, and 6 ms of life: 12 at most.
	if got := w.launches(""); got < 4 || got > 12 {
		t.Errorf("%d launches in 0.7 s", got)
	}
	if s := views(t, c)[0].Slots[0]; s.Failures < 3 || s.Reason != "its guest ended with exit status 3" {
		t.Errorf("the reason is not to be seen: %+v", s)
	}
	w.mu.Lock()
	w.life = 0
	w.mu.Unlock()
	w.await("logic-0")
	eventually(t, "it is forgiven", func() bool { return views(t, c)[0].Slots[0].Failures == 0 })
}

func TestThrottledAndRefused(t *testing.T) {
	t.Parallel()
	for refusal, want := range map[error]string{ErrThrottled: EventThrottled, errors.New("AccessDenied"): EventFailed} {
		w := newWorld(t)
		w.refuse = refusal
		c, stop := w.controller()
		declare(t, c, declaration(1))
		eventually(t, want, func() bool {
			events, err := call[[]Event](t, c, MethodEvents, Since{})
			return err == nil && slices.ContainsFunc(events, func(e Event) bool { return e.Type == want && strings.Contains(e.Text, refusal.Error()) })
		})
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		w.await("logic-0")
		stop()
	}
}

// TestAnEventThatGetsLost is sent again, with another token.
func TestAnEventThatGetsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lost := 0
	w.swallow = func() bool { lost++; return lost == 1 }
	c, _ := w.controller(func(o *Options) { o.Patience = 500 * time.Millisecond })
	declare(t, c, declaration(1))
	w.await("logic-0")
	if got := w.launches(""); got != 2 {
		t.Errorf("%d launches", got)
	}
}

// TestALateEvent: the launch that was given up comes when another holds the slot.
func TestALateEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var late config.Node
	w.swallow = func() bool { return late.Slot == "" }
	c, _ := w.controller(func(o *Options) {
		o.Patience = 500 * time.Millisecond
		o.Invoker = invoker(func(ctx context.Context, f string, payload []byte) error {
			err := w.Invoke(ctx, f, payload)
			w.mu.Lock()
			defer w.mu.Unlock()
			if late.Slot == "" {
				_ = json.Unmarshal(payload, &late)
			}
			return err
		})
	})
	declare(t, c, declaration(1))
	w.await("logic-0")
	id := w.id("logic-0")
	w.admit(late)
	time.Sleep(50 * time.Millisecond)
	if w.id("logic-0") != id || w.launches("") != 2 {
		t.Errorf("slot of %d, launches %v", w.id("logic-0"), w.invoked)
	}
}

type invoker func(ctx context.Context, function string, payload []byte) error

func (f invoker) Invoke(ctx context.Context, function string, payload []byte) error {
	return f(ctx, function, payload)
}

// TestTheLeaderDiesInAScaleOut: its successor launches what is missing, and
// nothing twice.
func TestTheLeaderDiesInAScaleOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.delay = 200 * time.Millisecond
	asked := 0
	w.swallow = func() bool { asked++; return asked > 4 } // as if the seed had died before they were sent
	a, stop := w.controller()
	declare(t, a, declaration(8))
	eventually(t, "launched", func() bool { return w.launches("") == 8 })
	stop()
	w.mu.Lock()
	w.term, w.swallow = 2, nil
	w.mu.Unlock()
	w.controller()
	w.await("logic-0", "logic-1", "logic-2", "logic-3", "logic-4", "logic-5", "logic-6", "logic-7")
	if got := w.launches(""); got != 12 { // the four that were lost once more
		t.Errorf("%d launches, want 12: %v", got, w.invoked)
	}
}

// TestANewLeaderKnowsWhoIsThere: replicas that others launched are lost to a
// seed that begins again, until they have come back.
func TestANewLeaderKnowsWhoIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, stop := w.controller()
	w.admit(config.Node{Name: "logic", Slot: "logic-0", Kind: config.KindFunction, LaunchToken: "by hand"})
	eventually(t, "it is adopted", func() bool {
		declare(t, a, declaration(1))
		return views(t, a)[0].Running == 1
	})
	stop()
	w.mu.Lock()
	id := uint32(0)
	for _, m := range w.members {
		m.State = cluster.StateLost
		w.members[m.ID], id = m, m.ID
	}
	w.term, w.late = 2, 100*time.Millisecond // events come later than the start
	w.mu.Unlock()
	w.controller(func(o *Options) { o.Settle = 1500 * time.Millisecond })
	time.Sleep(400 * time.Millisecond)
	w.mu.Lock()
	m := w.members[id]
	m.State = cluster.StateRunning
	w.tell(cluster.EventUpdate, m)
	w.mu.Unlock()
	time.Sleep(1300 * time.Millisecond)
	if w.launches("") != 0 || w.id("logic-0") != id {
		t.Errorf("launches: %v", w.invoked)
	}
}

// TestOnlyTheLeaderLaunches, and what it cannot keep it does not launch.
func TestOnlyTheLeaderLaunches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.leads = false
	c, _ := w.controller()
	if _, err := call[View](t, c, MethodDeclare, declaration(1)); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("declared at a seed that follows: %v", err)
	}
	w.mu.Lock()
	w.leads = true
	w.mu.Unlock()
	w.turned <- struct{}{}
	declare(t, c, declaration(1))
	w.await("logic-0")
	w.mu.Lock()
	w.broken = errors.New("no space left")
	w.mu.Unlock()
	w.end(w.id("logic-0"), 0)
	time.Sleep(100 * time.Millisecond)
	if got := w.launches(""); got != 1 {
		t.Errorf("%d launches, though they cannot be kept", got)
	}
	if _, err := call[View](t, c, MethodDeclare, declaration(4)); err == nil {
		t.Error("scaled, though that cannot be kept")
	}
	w.mu.Lock()
	w.broken = nil
	w.mu.Unlock()
	w.await("logic-0")
}

func TestBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	d := declaration(1)
	d.Budget = 0.2 // GB-seconds: a fifth of a second of one replica
	declare(t, c, d)
	w.await("logic-0")
	time.Sleep(300 * time.Millisecond)
	w.end(w.id("logic-0"), 0)
	time.Sleep(300 * time.Millisecond)
	if got := w.launches(""); got != 1 {
		t.Errorf("%d launches, the budget is spent", got)
	}
	events, err := call[[]Event](t, c, MethodEvents, Since{})
	if err != nil || !slices.ContainsFunc(events, func(e Event) bool { return e.Type == EventBudget }) {
		t.Errorf("nothing is said of it: %v %v", events, err)
	}
	d.Budget = 100
	declare(t, c, d)
	w.await("logic-0")
}

// TestRenews: a node's successor has its slot before the platform ends it.
func TestRenews(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.limit = 900 * time.Millisecond
	c, _ := w.controller()
	declare(t, c, declaration(2))
	w.await("logic-0", "logic-1")
	first, changes := w.id("logic-0"), 0
	for end := time.Now().Add(30 * time.Second); changes < 4; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d changes in 30 s", changes)
		}
		if got := w.slots(); !slices.Equal(got, []string{"logic-0", "logic-1"}) {
			t.Fatalf("running: %v", got)
		}
		if id := w.id("logic-0"); id != first {
			first = id
			changes++
		}
	}
	if got := w.launches("logic-0"); got < 5 || got > 6 { // the next one may be under way
		t.Errorf("%d changes, %d launches", changes, got)
	}
}

// TestASuccessorThatFails is launched again with growing pauses, while the holder runs.
func TestASuccessorThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.limit = 3 * time.Second
	c, _ := w.controller()
	declare(t, c, declaration(1))
	w.await("logic-0")
	first := w.id("logic-0")
	w.mu.Lock()
	w.stillborn = true
	w.mu.Unlock()
	eventually(t, "failures", func() bool {
		s := views(t, c)[0].Slots[0]
		return s.Failures >= 3 && strings.HasPrefix(s.Reason, "the successor: ")
	})
	if w.id("logic-0") != first || w.launches("") > 8 {
		t.Errorf("holder %d, then %d; %d launches", first, w.id("logic-0"), w.launches(""))
	}
	w.mu.Lock()
	w.stillborn = false
	w.mu.Unlock()
	eventually(t, "a successor", func() bool { id := w.id("logic-0"); return id != 0 && id != first })
}

// TestDeclaredAgain: tokens of a node that was removed are not used again.
func TestDeclaredAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	for range 3 {
		declare(t, c, declaration(1))
		w.await("logic-0")
		if _, err := call[struct{}](t, c, MethodRemove, Order{Name: "logic"}); err != nil {
			t.Fatal(err)
		}
		w.await()
	}
}

func TestDamagedNote(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.notes["function/broken"] = json.RawMessage(`{"name":"other"}`)
	w.notes["function/worse"] = json.RawMessage(`[]`)
	w.notes["of/another"] = json.RawMessage(`{}`)
	c, _ := w.controller()
	declare(t, c, declaration(1))
	w.await("logic-0")
	if all := views(t, c); len(all) != 1 {
		t.Errorf("%v", all)
	}
}

func TestCheck(t *testing.T) {
	for want, change := range map[string]func(*Declaration){
		"name":           func(d *Declaration) { d.Name = "Logic!" },
		"no function":    func(d *Declaration) { d.Function = "" },
		"1001 replicas":  func(d *Declaration) { d.Count = 1001 },
		"-2 replicas":    func(d *Declaration) { d.Count = -2 },
		"negative":       func(d *Declaration) { d.Budget = -1 },
		"no command":     func(d *Declaration) { d.Node.Argv = nil },
		"only function":  func(d *Declaration) { d.Node.Kind = config.KindVM },
		"63 lower-case":  func(d *Declaration) { d.Name = strings.Repeat("a", 62) },
		"seed_endpoints": func(d *Declaration) { d.Node.SeedEndpoints = nil },
	} {
		d := declaration(3)
		change(&d)
		if err := d.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}
