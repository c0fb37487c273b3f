// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// sleeper is a node that is started on use.
func sleeper() Declaration {
	d := declaration(-1)
	d.Max = 3
	return d
}

func wake(t *testing.T, c *Controller) error {
	t.Helper()
	_, err := call[struct{}](t, c, MethodWake, Wake{Slot: "logic-0"})
	return err
}

// refuses checks that who asks is told why there is nobody.
func refuses(t *testing.T, err error, why string) {
	t.Helper()
	if !errors.Is(err, &cluster.RemoteError{Code: CodeAsleep}) || !strings.Contains(err.Error(), why) {
		t.Errorf("who asks is told %v, want %s: ... %s", err, CodeAsleep, why)
	}
}

func (w *world) booked(want ...string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprint("reserved: ", want), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Equal(w.reserved, want)
	})
}

func TestManyWhoAskStartOneReplica(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	if v := declare(t, c, sleeper()); v.Count != 0 {
		t.Fatalf("it begins with %d replicas", v.Count)
	}
	w.booked("logic-0")
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if err := wake(t, c); err != nil {
				t.Error(err)
			} else if len(w.slots()) != 1 {
				t.Error("nobody runs when it is said")
			}
		})
	}
	all.Wait()
	w.await("logic-0")
	if n := w.launches(""); n != 1 {
		t.Errorf("%d launches", n)
	}
	if err := wake(t, c); err != nil || w.launches("") != 1 {
		t.Errorf("of a node that runs: %v, %d launches", err, w.launches(""))
	}
	if _, err := call[struct{}](t, c, MethodRemove, Order{Name: "logic"}); err != nil {
		t.Fatal(err)
	}
	w.booked()
	refuses(t, wake(t, c), "no node that is started on use")
}

func TestOnlyEmptyRangesAreStartedOnUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	for _, d := range []Declaration{declaration(0), {}} {
		if d.Name == "" {
			d = sleeper()
			d.Min = 1
		}
		declare(t, c, d)
		w.booked()
		refuses(t, wake(t, c), "no node that is started on use")
	}
}

func TestWhoAsksForAGuestThatCrashesIsToldSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stuck = true // every launch ends before it runs
	c, _ := w.controller(func(o *Options) { o.Patience, o.Backoff = 10*time.Second, 400*time.Millisecond })
	declare(t, c, sleeper())
	refuses(t, wake(t, c), "exit status 3")
	n := w.launches("")
	if n != 1 {
		t.Errorf("%d launches for one who asks", n)
	}
	refuses(t, wake(t, c), "exit status 3") // it waits for the next launch
	w.mu.Lock()
	w.stuck = false
	w.mu.Unlock()
	if err := wake(t, c); err != nil { // and so does this one
		t.Error(err)
	}
	if n := w.launches(""); n != 3 {
		t.Errorf("%d launches, want 3", n)
	}
}

func TestWhoAsksInALongPauseNeedNotWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stuck = true
	c, _ := w.controller(func(o *Options) { o.Patience, o.Backoff = 10*time.Second, time.Minute })
	declare(t, c, sleeper())
	refuses(t, wake(t, c), "exit status 3")
	began := time.Now()
	refuses(t, wake(t, c), "launched again at")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestASpentBudgetStartsNobodyOnUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.life = 200 * time.Millisecond
	c, _ := w.controller()
	d := sleeper()
	d.Budget = 0.01 // 10 ms of 1 GB
	declare(t, c, d)
	if err := wake(t, c); err != nil {
		t.Fatal(err)
	}
	w.await()
	refuses(t, wake(t, c), "budget of logic is spent")
	if n := w.launches(""); n != 1 {
		t.Errorf("%d launches", n)
	}
}

func TestWhoAsksIsSentToTheNextLeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.delay = 500 * time.Millisecond
	c, stop := w.controller()
	declare(t, c, sleeper())
	answer := make(chan error, 1)
	go func() { answer <- wake(t, c) }()
	eventually(t, "a launch", func() bool { return w.launches("") == 1 })
	w.mu.Lock()
	w.term, w.leads = 2, false
	w.mu.Unlock()
	w.turned <- struct{}{}
	if err := <-answer; !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("a leader that is deposed says %v", err)
	}
	stop()
	w.mu.Lock()
	w.leads = true
	w.mu.Unlock()
	second, _ := w.controller()
	if err := wake(t, second); err != nil {
		t.Error(err)
	}
	w.booked("logic-0")
	if n := w.launches(""); n != 1 {
		t.Errorf("%d launches under two leaders", n)
	}
}

func TestWhoWaitsTooLongIsToldSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mute = true // it joins and never runs
	c, _ := w.controller(func(o *Options) { o.Patience = 100 * time.Millisecond })
	declare(t, c, sleeper())
	if err := wake(t, c); !errors.Is(err, cluster.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// shortCooldown is long enough to be told from none.
const shortCooldown = 600 * time.Millisecond

// rests makes a node that was started on use.
func (w *world) rests() *Controller {
	w.t.Helper()
	c, _ := w.controller(func(o *Options) { o.Cooldown = shortCooldown })
	declare(w.t, c, sleeper())
	if err := wake(w.t, c); err != nil {
		w.t.Fatal(err)
	}
	w.await("logic-0")
	return c
}

func (w *world) uses(open int, made uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open, w.made = open, made
}

func TestWhatIsNotUsedSleepsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.uses(1, 1)
	c := w.rests()
	time.Sleep(shortCooldown * 3 / 2) // longer than the cooldown: there is no event to wait for
	if got := w.slots(); len(got) != 1 {
		t.Fatal("it sleeps although a connection is open")
	}
	for made := range uint64(15) { // none is open, and some were in between
		w.uses(0, 2+made)
		time.Sleep(shortCooldown / 10)
	}
	if got := w.slots(); len(got) != 1 {
		t.Fatal("it sleeps although there are connections")
	}
	began := time.Now()
	w.mu.Lock()
	w.drains = 200 * time.Millisecond // it lets its connections end
	w.mu.Unlock()
	w.await()
	if took := time.Since(began); took < shortCooldown*2/3 {
		t.Errorf("it sleeps after %s without a connection", took)
	}
	// While it drains the next life begins, and its end is no failure.
	if err := wake(t, c); err != nil {
		t.Fatal(err)
	}
	w.await("logic-0")
	if n := w.launches(""); n != 2 {
		t.Errorf("%d launches", n)
	}
	eventually(t, "the first one has left", func() bool { return len(w.Members()) == 1 })
	if v := views(t, c)[0]; v.Count != 1 || v.Slots[0].Failures != 0 {
		t.Errorf("afterwards it is %+v", v)
	}
	var why []string
	for _, e := range c.journal.after(context.Background(), 0, 0) {
		if e.Type == EventScaled {
			why = append(why, e.Text)
		}
	}
	if len(why) != 3 || why[0] != "0 -> 1: node-1 connects to logic-0" || !strings.HasPrefix(why[1], "1 -> 0: no connection for ") {
		t.Errorf("why: %q", why)
	}
}

func TestWhatSomebodyScaledStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.rests()
	if _, err := call[Resized](t, c, MethodScale, Resize{Name: "logic", Count: 1, Why: "boxer scale"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(shortCooldown * 3 / 2) // longer than the cooldown: there is no event to wait for
	if got := w.slots(); len(got) != 1 {
		t.Error("it sleeps although somebody wants it")
	}
}

// A metric overrules who asked by number, but for the last replica.
func TestTheLastOneOfAMetricSleepsToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	d := sleeper()
	d.Scale = &Scale{Metric: MetricConnections, Target: 10, CooldownS: 1}
	declare(t, c, d)
	if _, err := call[Resized](t, c, MethodScale, Resize{Name: "logic", Count: 1, Why: "boxer scale"}); err != nil {
		t.Fatal(err)
	}
	w.await("logic-0")
	w.await()
}

func TestWhatCrashesIsLetBeWhenNobodyAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stuck = true
	c, _ := w.controller(func(o *Options) { o.Cooldown = shortCooldown })
	declare(t, c, sleeper())
	refuses(t, wake(t, c), "exit status 3")
	eventually(t, "it is given up", func() bool { return views(t, c)[0].Count == 0 })
	n := w.launches("")
	time.Sleep(100 * time.Millisecond)
	if more := w.launches(""); more != n {
		t.Errorf("%d more launches", more-n)
	}
}

// A leader that is new waits for members to come back, but not for one that it
// has seen, and let go.
func TestANewLeaderStartsAgainWhatItLetGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller(func(o *Options) { o.Settle, o.Cooldown = time.Minute, shortCooldown })
	declare(t, c, sleeper())
	for range 2 {
		if err := wake(t, c); err != nil {
			t.Fatal(err)
		}
		w.await("logic-0")
		w.await()
		eventually(t, "it has left", func() bool { return len(w.Members()) == 0 })
	}
	for _, e := range c.journal.after(t.Context(), 0, 0) {
		if e.Type == EventFailed {
			t.Errorf("to be let go is taken for a failure: %s", e.Text)
		}
	}
}

// Who waits has not gone away, however long it takes.
func TestWhatIsWaitedForIsNotGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.delay = shortCooldown * 3 / 2 // longer than the cooldown
	c, _ := w.controller(func(o *Options) { o.Patience, o.Cooldown = 10*time.Second, shortCooldown })
	declare(t, c, sleeper())
	if err := wake(t, c); err != nil {
		t.Fatal(err)
	}
	if n := views(t, c)[0].Count; n != 1 {
		t.Errorf("%d replicas are wanted", n)
	}
	if n := w.launches(""); n != 1 {
		t.Errorf("%d launches", n)
	}
}
