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
)

// follows makes a world in which logic-0 leaves, and is not gone yet, and its
// successor was launched and has not joined.
func follows(t *testing.T, change ...func(*Options)) (w *world, stop func()) {
	t.Helper()
	w = newWorld(t)
	w.lingers = true
	c, stop := w.controller(append(change, func(o *Options) { o.Again = time.Minute })...)
	declare(t, c, declaration(1))
	w.await("logic-0")
	time.Sleep(60 * time.Millisecond) // stable
	w.mu.Lock()
	w.delay = 300 * time.Millisecond
	w.mu.Unlock()
	declare(t, c, declaration(0))
	eventually(t, "it leaves", func() bool { return w.member("logic-0").Leaving })
	declare(t, c, declaration(1))
	eventually(t, "a successor is launched", func() bool { return w.launches("") == 2 })
	return w, stop
}

// member that has a slot.
func (w *world) member(slot string) cluster.Member {
	id := w.id(slot)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.members[id]
}

// another waits until somebody else has logic-0, and checks that nobody was
// launched beside it.
func (w *world) another(than uint32) {
	w.t.Helper()
	eventually(w.t, "another logic-0", func() bool { id := w.id("logic-0"); return id != 0 && id != than })
	if got := w.launches(""); got != 2 {
		w.t.Errorf("%d launches, want 2: %v", got, w.invoked)
	}
}

// TestAHolderEndsBeforeItsSuccessorCame: the successor that was launched is awaited.
func TestAHolderEndsBeforeItsSuccessorCame(t *testing.T) {
	t.Parallel()
	w, _ := follows(t)
	first := w.id("logic-0")
	w.end(first, 0)
	w.another(first)
}

// TestAHolderFallsSilentBeforeItsSuccessorCame: as well.
func TestAHolderFallsSilentBeforeItsSuccessorCame(t *testing.T) {
	t.Parallel()
	w, _ := follows(t)
	first := w.id("logic-0")
	w.becomes(first, cluster.StateLost)
	w.another(first)
}

// TestANewLeaderAwaitsASuccessor that the one before it launched.
func TestANewLeaderAwaitsASuccessor(t *testing.T) {
	t.Parallel()
	w, stop := follows(t)
	first := w.id("logic-0")
	stop()
	w.mu.Lock()
	w.term = 2
	w.mu.Unlock()
	w.controller()
	w.another(first)
}

// TestAReplicaEndsUnderANewLeader: how long it ran counts from its start.
func TestAReplicaEndsUnderANewLeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stable := func(o *Options) { o.Stable = time.Second }
	a, stop := w.controller(stable)
	declare(t, a, declaration(1))
	w.await("logic-0")
	stop()
	w.mu.Lock()
	m := w.members[w.nextID]
	m.Since = m.Since.Add(-time.Minute)
	w.members[m.ID] = m
	w.term = 2
	w.mu.Unlock()
	b, _ := w.controller(stable)
	eventually(t, "it is known", func() bool { all := views(t, b); return len(all) == 1 && all[0].Running == 1 })
	w.end(m.ID, 0)
	w.another(m.ID)
	for _, e := range b.journal.after(t.Context(), 0, 0) {
		if e.Type == EventFailed || e.Type == EventRunning && e.Node == m.ID && e.Text != "" {
			t.Errorf("it is said: %+v", e)
		}
	}
}

// TestALaunchComesAfterItsDeclarationWasRemoved: it leaves again.
func TestALaunchComesAfterItsDeclarationWasRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.delay = 100 * time.Millisecond
	c, _ := w.controller()
	for _, stay := range []bool{false, true} {
		declare(t, c, declaration(2))
		eventually(t, "launched", func() bool { return w.launches("") > 0 })
		if _, err := call[struct{}](t, c, MethodRemove, Order{Name: "logic", Stay: stay}); err != nil {
			t.Fatal(err)
		}
		if stay {
			w.await("logic-0", "logic-1")
			return
		}
		eventually(t, "they came", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.nextID == 12
		})
		w.await()
		w.mu.Lock()
		w.invoked = nil
		w.mu.Unlock()
	}
}

// TestTheClockOfAnotherSeedWasAhead: what it launched is awaited no longer than
// other launches.
func TestTheClockOfAnotherSeedWasAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.swallow = func() bool { return true }
	a, stop := w.controller()
	declare(t, a, declaration(1))
	eventually(t, "launched", func() bool { return w.launches("") == 1 })
	stop()
	w.mu.Lock()
	var k kept
	if err := json.Unmarshal(w.notes["function/logic"], &k); err != nil {
		t.Error(err)
	}
	k.Slots["logic-0"] = launch{Generation: 1, At: time.Now().Add(time.Hour)}
	w.notes["function/logic"] = k.encode()
	w.term, w.swallow = 2, nil
	w.mu.Unlock()
	w.controller(func(o *Options) { o.Patience = 500 * time.Millisecond })
	w.await("logic-0")
}

// TestAPlatformThatIsSlowToTakeALaunch: the node has its time from then on.
func TestAPlatformThatIsSlowToTakeALaunch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.delay = 500 * time.Millisecond
	c, _ := w.controller(func(o *Options) {
		o.Patience = 800 * time.Millisecond
		o.Invoker = invoker(func(ctx context.Context, f string, payload []byte) error {
			time.Sleep(500 * time.Millisecond)
			return w.Invoke(ctx, f, payload)
		})
	})
	declare(t, c, declaration(1))
	w.await("logic-0")
	if got := w.launches(""); got != 1 || c.journal.counts()[EventFailed] != 0 {
		t.Errorf("%d launches, %v", got, c.journal.counts())
	}
}

// TestASeedWithoutAPlatform takes over from one that had one.
func TestASeedWithoutAPlatform(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.swallow = func() bool { return true }
	a, stop := w.controller()
	declare(t, a, declaration(1))
	eventually(t, "launched", func() bool { return w.launches("") == 1 })
	stop()
	w.mu.Lock()
	w.term = 2
	w.mu.Unlock()
	b, _ := w.controller(func(o *Options) { o.Invoker, o.Patience = nil, time.Millisecond })
	eventually(t, "it says so", func() bool {
		return slices.ContainsFunc(b.journal.after(t.Context(), 0, 0), func(e Event) bool {
			return e.Type == EventFailed && strings.Contains(e.Text, "told of no platform")
		})
	})
}

// TestAfterThrottlingPausesAreShortAgain, once a launch came to something.
func TestAfterThrottlingPausesAreShortAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.refuse = ErrThrottled
	c, _ := w.controller()
	declare(t, c, declaration(1))
	eventually(t, "it is throttled", func() bool { return c.journal.counts()[EventThrottled] >= 4 })
	w.mu.Lock()
	w.refuse = nil
	w.mu.Unlock()
	w.await("logic-0")
	eventually(t, "it is forgotten", func() bool { return views(t, c)[0].Slots[0].Reason == "" })
	pause := time.Duration(0)
	_ = c.do(t.Context(), func() { pause = c.nodes["logic"].slots["logic-0"].pauses.NextBackOff() })
	if pause > 2*c.o.Backoff {
		t.Errorf("the next pause is %s", pause)
	}
}

// TestARefusedNumberChangesNothing of a node that was started on use; one that is
// what it is already does, for the next leader too.
func TestARefusedNumberChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, stop := w.controller(func(o *Options) { o.Cooldown = shortCooldown })
	declare(t, c, sleeper())
	if err := wake(t, c); err != nil {
		t.Fatal(err)
	}
	if _, err := call[Resized](t, c, MethodScale, Resize{Name: "logic", Count: 99}); !errors.Is(err, ErrOutOfRange) {
		t.Fatalf("99 replicas: %v", err)
	}
	w.await() // it sleeps

	if err := wake(t, c); err != nil {
		t.Fatal(err)
	}
	if _, err := call[Resized](t, c, MethodScale, Resize{Name: "logic", Count: 1}); err != nil {
		t.Fatal(err)
	}
	stop()
	w.mu.Lock()
	w.term = 2
	w.mu.Unlock()
	next, _ := w.controller(func(o *Options) { o.Cooldown = shortCooldown })
	time.Sleep(shortCooldown * 3 / 2) // longer than the cooldown: there is no event to wait for
	if v := views(t, next)[0]; v.Count != 1 {
		t.Errorf("it sleeps although somebody wants it")
	}
}

// TestWhatIsToldFitsAMessage of the control network, whatever platforms and guests say.
func TestWhatIsToldFitsAMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.refuse = errors.New(strings.Repeat("<é>", 1000))
	c, _ := w.controller(func(o *Options) { o.Backoff = time.Minute })
	const replicas = 20
	declare(t, c, declaration(replicas))
	eventually(t, "all failed", func() bool { return c.journal.counts()[EventFailed] == replicas })
	v := views(t, c)[0]
	for range keepEvents {
		c.journal.add(Event{Type: EventFailed, Text: w.refuse.Error()})
	}
	events := c.journal.after(t.Context(), 0, 0)
	const most = 1 << 20
	if data, err := json.Marshal(events); err != nil || len(data) > most {
		t.Errorf("events: %d bytes, %v", len(data), err)
	}
	if data, err := json.Marshal(v); err != nil || len(data)*MaxCount/replicas > most {
		t.Errorf("a view of %d replicas: %d bytes, %v", replicas, len(data), err)
	}
	if last := events[len(events)-1]; last.Seq != c.journal.last || !strings.Contains(v.Slots[0].Reason, "é") {
		t.Errorf("the last event is %+v, the reason %q", last, v.Slots[0].Reason)
	}
}

// TestEventsOfTheNextLeader: who has those of one gets all of the next one's, and
// none of those that it told of when it led before.
func TestEventsOfTheNextLeader(t *testing.T) {
	t.Parallel()
	var a, b journal
	leads := func(j *journal, events int) {
		time.Sleep(time.Millisecond) // nobody takes over within one
		for range events {
			j.add(Event{Type: EventLaunched})
		}
	}
	seen := uint64(0)
	follow := func(j *journal) int {
		list := j.after(t.Context(), seen, 0)
		if len(list) > 0 {
			seen = list[len(list)-1].Seq
		}
		return len(list)
	}
	leads(&b, 50)
	if got := follow(&b); got != 50 {
		t.Errorf("of the first leader %d events, want 50", got)
	}
	leads(&a, 1)
	if got := follow(&a); got != 1 {
		t.Errorf("of the next one %d, want 1", got)
	}
	if got := follow(&b); got != 0 {
		t.Errorf("%d are told again", got)
	}
	leads(&b, 20)
	if got := follow(&b); got != 20 {
		t.Errorf("of the first one again %d, want 20", got)
	}
	seen = number(time.Now().Add(time.Hour)) // by a clock that is wrong
	if got := follow(&b); got != 70 {
		t.Errorf("of one after it %d, want 70", got)
	}
}

// TestALaunchThatIsWantedNoMore and never comes is no failure of the next one.
func TestALaunchThatIsWantedNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.swallow = func() bool { return len(w.invoked) == 1 }
	c, _ := w.controller(func(o *Options) { o.Patience = 500 * time.Millisecond })
	declare(t, c, declaration(1))
	eventually(t, "a launch", func() bool { return w.launches("") == 1 })
	declare(t, c, declaration(0))
	time.Sleep(600 * time.Millisecond)
	declare(t, c, declaration(1))
	w.await("logic-0")
	if events, _ := c.Counts(t.Context()); events[EventFailed] != 0 || w.launches("") != 2 {
		t.Errorf("events: %v, launched %v", events, w.invoked)
	}
}
