// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func ranged(count, low, high int) Declaration {
	d := declaration(count)
	d.Min, d.Max = low, high
	return d
}

func scaleTo(t *testing.T, c *Controller, count int) (Resized, error) {
	t.Helper()
	return call[Resized](t, c, MethodScale, Resize{Name: "logic", Count: count, Why: "by hand"})
}

// TestScalesWithinTheRange: whoever asks moves the number, and a declaration
// without one leaves it where it is.
func TestScalesWithinTheRange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, stop := w.controller()
	if _, err := scaleTo(t, c, 1); !errors.Is(err, ErrNotDeclared) {
		t.Errorf("scaled what nobody declared: %v", err)
	}
	if v := declare(t, c, ranged(-1, 2, 4)); v.Count != 2 || v.Min != 2 || v.Max != 4 {
		t.Errorf("a new one begins with %d of %d to %d", v.Count, v.Min, v.Max)
	}
	w.await("logic-0", "logic-1")
	r, err := scaleTo(t, c, 4)
	if err != nil || r.Was != 2 || r.Count != 4 || len(r.Slots) != 4 || r.Slots[3].LaunchID == "" {
		t.Errorf("scaled: %+v %v", r, err)
	}
	w.await("logic-0", "logic-1", "logic-2", "logic-3")
	for _, count := range []int{1, 5, -1} {
		if _, err := scaleTo(t, c, count); err == nil || !strings.Contains(err.Error(), "replicas: want 2 to 4 (min_count, max_count)") {
			t.Errorf("scaled to %d: %v", count, err)
		}
	}
	if v := declare(t, c, ranged(-1, 1, 6)); v.Count != 4 {
		t.Errorf("declared again: %d replicas, want the 4 there were", v.Count)
	}
	stop()
	w.mu.Lock()
	w.term = 2
	w.mu.Unlock()
	c, _ = w.controller() // the next leader
	if all := views(t, c); len(all) != 1 || all[0].Count != 4 || all[0].Max != 6 {
		t.Errorf("the next leader keeps %+v", all)
	}
	if v := declare(t, c, ranged(-1, 1, 3)); v.Count != 3 {
		t.Errorf("a narrower range: %d replicas", v.Count)
	}
	w.await("logic-0", "logic-1", "logic-2")
	if v := declare(t, c, ranged(1, 1, 3)); v.Count != 1 {
		t.Errorf("declared with a number: %d replicas", v.Count)
	}
	w.await("logic-0")
	events, err := call[[]Event](t, c, MethodEvents, Since{})
	if err != nil || !slices.ContainsFunc(events, func(e Event) bool { return e.Type == EventScaled && e.Text == "4 -> 3: declared" }) {
		t.Errorf("events: %+v %v", events, err)
	}
	// Without a range the number is what was declared last, but may be scaled.
	declare(t, c, declaration(2))
	if r, err := scaleTo(t, c, 3); err != nil || r.Count != 3 || r.Max != 0 {
		t.Errorf("scaled without a range: %+v %v", r, err)
	}
	if v, err := call[View](t, c, MethodView, Order{Name: "logic"}); err != nil || v.Count != 3 {
		t.Errorf("looked at: %+v %v", v, err)
	}
	if _, err := call[View](t, c, MethodView, Order{Name: "other"}); !errors.Is(err, ErrNotDeclared) {
		t.Errorf("looked at another: %v", err)
	}
}

func TestScaledNumberIsKeptFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	declare(t, c, ranged(-1, 1, 4))
	w.await("logic-0")
	w.mu.Lock()
	w.broken = errors.New("no space left")
	w.mu.Unlock()
	if _, err := scaleTo(t, c, 3); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("scaled, though that cannot be kept: %v", err)
	}
	if v := views(t, c)[0]; v.Count != 1 || w.launches("") != 1 {
		t.Errorf("%d replicas, launches %v", v.Count, w.invoked)
	}
}

func TestCheckRange(t *testing.T) {
	scale := func(d *Declaration) { d.Min, d.Max, d.Scale = 1, 5, &Scale{Metric: MetricCPU, Target: 0.5} }
	for want, change := range map[string]func(*Declaration){
		"want 2 to 3 (min":        func(d *Declaration) { d.Count, d.Min, d.Max = 4, 2, 3 },
		"but no most":             func(d *Declaration) { d.Min = 2 },
		"from 3 to 2":             func(d *Declaration) { d.Min, d.Max = 3, 2 },
		"from -1 to 2":            func(d *Declaration) { d.Min, d.Max = -1, 2 },
		"from 1 to 1001":          func(d *Declaration) { d.Min, d.Max = 1, 1001 },
		"without a range":         func(d *Declaration) { d.Scale = &Scale{Metric: MetricCPU, Target: 1} },
		`metric "mem"`:            func(d *Declaration) { scale(d); d.Scale.Metric = "mem" },
		"target 0":                func(d *Declaration) { scale(d); d.Scale.Target = 0 },
		"target NaN":              func(d *Declaration) { scale(d); d.Scale.Target = math.NaN() },
		"cooldown of -1 s":        func(d *Declaration) { scale(d); d.Scale.CooldownS = -1 },
		"standby for":             func(d *Declaration) { d.Count, d.StandbyFor = 1, "Store!" },
		"stands by for \"store\"": func(d *Declaration) { scale(d); d.StandbyFor = "store" },
		"2 replicas: want 0 to 1": func(d *Declaration) { d.Count, d.StandbyFor = 2, "store" },
		"63 lower-case":           func(d *Declaration) { d.Name, d.Min, d.Max = strings.Repeat("a", 61), 1, 101 },
	} {
		d := declaration(3)
		change(&d)
		if err := d.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	d := declaration(-1)
	if err := d.Check(); err != nil || d.settle(d.first()) != 1 {
		t.Errorf("no number: %v", err)
	}
	scale(&d)
	if err := d.Check(); err != nil {
		t.Error(err)
	}
	d = declaration(-1)
	d.StandbyFor = "store"
	if err := d.Check(); err != nil || d.settle(d.first()) != 0 {
		t.Errorf("standby: %v", err)
	}
}
