// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

func scaledBy(metric string, target float64, low, high int) Declaration {
	d := ranged(-1, low, high)
	d.Scale = &Scale{Metric: metric, Target: target, CooldownS: 1}
	return d
}

// serve has the replicas share so many connections until the test ends.
func (w *world) serve(connections *atomic.Int64) {
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	go func() {
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			w.share(int(connections.Load()))
		}
	}()
}

func (w *world) share(left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var running []cluster.Member
	for _, m := range w.members {
		if m.State == cluster.StateRunning && m.Holds() && m.Load != nil {
			running = append(running, m)
		}
	}
	// Always to the same ones: on the way to another order there would be less in all.
	slices.SortFunc(running, func(a, b cluster.Member) int { return strings.Compare(a.Slot, b.Slot) })
	for i, m := range running {
		has := left / (len(running) - i)
		left -= has
		if m.Load.Connections != has {
			m.Load = &cluster.Load{Connections: has}
			w.tell(cluster.EventUpdate, m)
		}
	}
}

// scaled are the texts of the events that moved the number.
func scaled(t *testing.T, c *Controller) (all []Event) {
	t.Helper()
	events, err := call[[]Event](t, c, MethodEvents, Since{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Type == EventScaled {
			all = append(all, e)
		}
	}
	return all
}

func awaitScaled(t *testing.T, c *Controller, text string) {
	t.Helper()
	eventually(t, text, func() bool {
		all := scaled(t, c)
		return len(all) > 0 && all[len(all)-1].Text == text
	})
}

// TestScalesByConnections: out at once and in one step, in after the cooldown,
// and not to and fro.
func TestScalesByConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	var connections atomic.Int64
	w.serve(&connections)
	declare(t, c, scaledBy(MetricConnections, 2, 1, 6))
	w.await("logic-0")
	connections.Store(11)
	awaitScaled(t, c, "1 -> 6: connections 11, target 2 each")
	eventually(t, "6 replicas", func() bool { return len(w.slots()) == 6 })
	connections.Store(40) // the most is the most
	time.Sleep(50 * time.Millisecond)
	connections.Store(10) // 5 would do, but only just
	time.Sleep(1300 * time.Millisecond)
	if all := scaled(t, c); len(all) != 1 {
		t.Errorf("scaled: %+v", all)
	}
	low := time.Now()
	connections.Store(3)
	// In two steps if it was seen while the load fell.
	eventually(t, "2 replicas are enough", func() bool {
		all := scaled(t, c)
		return strings.HasSuffix(all[len(all)-1].Text, " -> 2: connections 3, target 2 each")
	})
	in := scaled(t, c)[1]
	if took := in.Time.Sub(low); took < 900*time.Millisecond {
		t.Errorf("scaled in after %s, the cooldown is 1 s", took)
	}
	w.await("logic-0", "logic-1")
	eventually(t, "the load in the view", func() bool { l := views(t, c)[0].Load; return l != nil && l.Connections == 3 })
	connections.Store(0)
	awaitScaled(t, c, "2 -> 1: connections 0, target 2 each") // the least
	if w.asked != 0 {
		t.Errorf("asked %d times, though the launches asked", w.asked)
	}
}

// TestScalesInToWhatWasNeeded: of the whole cooldown the worst moment counts.
func TestScalesInToWhatWasNeeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	var connections atomic.Int64
	w.serve(&connections)
	connections.Store(12)
	declare(t, c, scaledBy(MetricConnections, 2, 1, 6))
	awaitScaled(t, c, "1 -> 6: connections 12, target 2 each")
	var in []Event
	for end := time.Now().Add(30 * time.Second); len(in) == 0 && time.Now().Before(end); in = scaled(t, c)[1:] {
		connections.Store(1)
		time.Sleep(100 * time.Millisecond)
		connections.Store(7)
		time.Sleep(100 * time.Millisecond)
	}
	if len(in) != 1 || !strings.HasPrefix(in[0].Text, "6 -> 4: ") {
		t.Errorf("scaled in: %+v", in)
	}
}

// TestGrowsNoFasterThanLaunchesJoin: replicas that use all they get say nothing of
// how many there should be until those launched last take their part.
func TestGrowsNoFasterThanLaunchesJoin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.delayOf = func(slot string) time.Duration {
		if n := slot[len(slot)-1]; n%2 == 1 {
			return 300 * time.Millisecond
		}
		return 50 * time.Millisecond
	}
	c, _ := w.controller()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			w.mu.Lock()
			for _, m := range w.members {
				if m.State == cluster.StateRunning && m.Load.CPU == 0 {
					m.Load = &cluster.Load{CPU: 0.97}
					w.tell(cluster.EventUpdate, m)
				}
			}
			w.mu.Unlock()
		}
	}()
	declare(t, c, scaledBy(MetricCPU, 0.5, 1, 8))
	eventually(t, "8 replicas", func() bool { return len(w.slots()) == 8 })
	all := scaled(t, c)
	if all[0].Text != "1 -> 2: cpu 0.97, target 0.5 each" {
		t.Errorf("scaled: %+v", all)
	}
	for i := range all[1:] { // in each step there is a slow one
		if gap := all[i+1].Time.Sub(all[i].Time); gap < 290*time.Millisecond {
			t.Errorf("%q came %s after %q", all[i+1].Text, gap, all[i].Text)
		}
	}
}

// TestAsksForLoads of replicas that others launched, and takes silence for no sign
// of idleness.
func TestAsksForLoads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	declare(t, c, ranged(-1, 1, 4))
	if _, err := scaleTo(t, c, 2); err != nil {
		t.Fatal(err)
	}
	w.await("logic-0", "logic-1")
	w.mu.Lock()
	asked := w.asked
	w.mu.Unlock()
	declare(t, c, scaledBy(MetricConnections, 1, 1, 4))
	awaitScaled(t, c, "2 -> 1: connections 0, target 1 each")
	w.mu.Lock()
	defer w.mu.Unlock()
	if asked != 0 || w.asked != 2 {
		t.Errorf("asked %d, then %d times", asked, w.asked)
	}
}

// TestTheLastReplicaIsNotForTheMetric: whether one that may have none sleeps is for
// who connects to it.
func TestTheLastReplicaIsNotForTheMetric(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.uses(1, 1) // who is connected keeps it
	c, _ := w.controller()
	declare(t, c, scaledBy(MetricCPU, 1, 0, 4))
	if _, err := scaleTo(t, c, 2); err != nil {
		t.Fatal(err)
	}
	awaitScaled(t, c, "2 -> 1: cpu 0, target 1 each")
	time.Sleep(1200 * time.Millisecond)
	w.await("logic-0")
}

// TestOneThatLeavesIsFollowed when it is needed again.
func TestOneThatLeavesIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lingers = true
	c, _ := w.controller()
	declare(t, c, ranged(-1, 1, 2))
	if _, err := scaleTo(t, c, 2); err != nil {
		t.Fatal(err)
	}
	w.await("logic-0", "logic-1")
	first := w.id("logic-1")
	if _, err := scaleTo(t, c, 1); err != nil {
		t.Fatal(err)
	}
	leaves := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.members[first].Leaving
	}
	eventually(t, "it leaves", leaves)
	if _, err := scaleTo(t, c, 2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its successor", func() bool { id := w.id("logic-1"); return id != 0 && id != first })
	if got := w.launches("logic-1"); got != 2 {
		t.Errorf("launched %d times", got)
	}
}

// TestScalingKeepsTheBudget: nothing is added that would not be launched.
func TestScalingKeepsTheBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	var connections atomic.Int64
	w.serve(&connections)
	d := scaledBy(MetricConnections, 1, 1, 4)
	d.Budget = 0.1
	declare(t, c, d)
	w.await("logic-0")
	time.Sleep(150 * time.Millisecond)
	connections.Store(4)
	eventually(t, "it says so", func() bool { return c.journal.counts()[EventBudget] > 0 })
	if all := scaled(t, c); len(all) != 0 {
		t.Errorf("scaled: %+v", all)
	}
	d.Budget = 100
	declare(t, c, d)
	awaitScaled(t, c, "1 -> 4: connections 4, target 1 each")
}

// TestLoadsAreAskedForWithTheLaunch where somebody wants to know.
func TestLoadsAreAskedForWithTheLaunch(t *testing.T) {
	t.Parallel()
	for _, of := range []struct {
		d    Declaration
		want bool
	}{{declaration(1), false}, {ranged(-1, 1, 2), false}, {scaledBy(MetricCPU, 1, 1, 2), true}} {
		w := newWorld(t)
		events := make(chan config.Node, 10)
		c, stop := w.controller(func(o *Options) {
			o.Invoker = invoker(func(_ context.Context, _ string, payload []byte) error {
				n, err := config.Parse(payload)
				events <- n
				return err
			})
		})
		declare(t, c, of.d)
		if n := <-events; n.Load != of.want {
			t.Errorf("%+v: %+v", of.d, n)
		}
		stop()
	}
}
