// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/launch"
)

// ranged is logic without a fixed number.
func ranged(lines string) string {
	return shop + function("logic", `["python3"]`, lines)
}

// TestFunctionRange: the number is the controller's within the range, and what
// changes of the range touches no replica that stays.
func TestFunctionRange(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(ranged("min_count = 2\nmax_count = 6"))
	w.apply()
	w.emptyPlan()
	wantCalls(t, f, "create network shop", "create function logic", "start logic-0", "start logic-1", "keep 2 of logic")

	// The controller moves the number.
	f.change(func() { f.move("logic", 5) })
	w.emptyPlan()
	w.must("refresh", "-no-color")
	if got := w.values(logicAddress); got["running_count"] != 5.0 || len(got["slots"].([]any)) != 5 || got["desired_count"] != nil || got["max_count"] != 6.0 {
		t.Errorf("5 replicas run: %v", got)
	}
	wantCalls(t, f)
	for _, step := range []struct {
		lines   string
		running float64
		calls   []string
	}{
		{"min_count = 2\nmax_count = 4", 4, []string{"keep -1 of logic"}},
		{"min_count = 2\nmax_count = 4\nscale = { metric = \"cpu\", target = 0.5 }\nbudget = { gb_seconds_per_day = 10 }", 4, []string{"keep -1 of logic"}},
		{"min_count = 5", 5, []string{"keep -1 of logic"}},
		// What replicas run is replaced, as many as there are.
		{"min_count = 1\nenvironment = { A = \"1\" }", 5, []string{"release logic", "update function logic",
			"stop logic-0", "start logic-0", "stop logic-1", "start logic-1", "stop logic-2", "start logic-2",
			"stop logic-3", "start logic-3", "stop logic-4", "start logic-4", "keep 5 of logic"}},
		{"desired_count = 1\nenvironment = { A = \"1\" }", 1, []string{"release logic", "keep 1 of logic", "stop logic-1", "stop logic-2", "stop logic-3", "stop logic-4"}},
		{"environment = { A = \"1\" }", 1, []string{"keep -1 of logic"}},
	} {
		w.configure(ranged(step.lines))
		w.apply()
		w.emptyPlan()
		wantCalls(t, f, step.calls...)
		got := w.values(logicAddress)
		if ids := got["node_ids"].([]any); got["running_count"] != step.running || len(ids) != int(step.running) || slices.Contains(ids, any(0.0)) {
			t.Errorf("%s: %v", step.lines, got)
		}
	}
	if got := w.values(logicAddress); got["min_count"] != 1.0 || got["max_count"] != 1000.0 {
		t.Errorf("the default range: %v to %v", got["min_count"], got["max_count"])
	}
}

// TestImportedFunctionIsKept: of one that nobody keeps the plan says so, and the
// apply of the import has it kept, without touching its replicas.
func TestImportedFunctionIsKept(t *testing.T) {
	for lines, keep := range map[string]string{"desired_count = 2": "keep 2 of logic", "max_count = 3": "keep 2 of logic"} {
		f := newFakePlatform()
		w := newWorkspace(t, withPlatform(f))
		config := ranged(lines)
		w.configure(config)
		w.apply()
		f.change(func() {
			f.move("logic", 2)
			f.functions["logic"].kept = nil // as boxer run leaves it
		})
		f.called()
		w = newWorkspace(t, withPlatform(f))
		w.configure(config + "import {\n  to = boxer_network.shop\n  id = \"shop\"\n}\nimport {\n  to = boxer_function_node.logic\n  id = \"shop,logic\"\n}\n")
		if got := w.planned()[logicAddress]; got != "update" {
			t.Errorf("%s: planned %q", lines, got)
		}
		wantCalls(t, f) // planning does nothing
		w.apply()
		w.emptyPlan()
		wantCalls(t, f, "release logic", keep)
	}
}

// TestAccRange: the plan stays empty while the controller changes the number of
// replicas within the range, and a number outside is refused.
func TestAccRange(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	// Others that have none: one to be started on use, one that stands by.
	others := function("nap", idle, "min_count = 0\nmax_count = 2") + function("spare", idle, "standby_for = \"store\"")
	w.configure(c.block() + shop + others + function("logic", idle, "min_count = 1\nmax_count = 3\nmemory_size = 128"))
	w.apply()
	w.emptyPlan()
	for _, other := range []string{"nap", "spare"} {
		if got := w.values("boxer_function_node." + other); got["running_count"] != 0.0 || len(got["slots"].([]any)) != 0 {
			t.Errorf("%s: %v", other, got)
		}
	}
	client := c.client("shop")
	l := &launch.Launcher{Network: client.Info(), Client: client}
	scale := func(count int) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := l.Scale(ctx, "logic", count, "boxer scale")
		return err
	}
	running := func(want float64) {
		t.Helper()
		c.eventually("the number", func() bool {
			w.must("refresh", "-no-color")
			got := w.values(logicAddress)
			return got["running_count"] == want && len(got["node_ids"].([]any)) == int(want)
		})
		w.emptyPlan()
	}
	if err := scale(3); err != nil {
		t.Fatal(err)
	}
	w.emptyPlan() // while they start
	running(3)
	if err := scale(4); err == nil || err.Error() != "logic: 4 replicas: want 1 to 3 (min_count, max_count)" {
		t.Errorf("4 of at most 3: %v", err)
	}
	first := c.members("shop")["logic-0"]
	w.configure(c.block() + shop + others + function("logic", idle, "min_count = 1\nmax_count = 2\nmemory_size = 128\nscale = { metric = \"connections\", target = 5 }"))
	w.apply()
	w.emptyPlan()
	running(2)
	if now := c.members("shop")["logic-0"]; now.ID != first.ID {
		t.Errorf("a replica that stays was replaced: %+v, now %+v", first, now)
	}
	if got := w.values(logicAddress)["slots"].([]any); len(got) != 2 || !strings.HasSuffix(got[1].(string), "-1") {
		t.Errorf("slots %v", got)
	}
	noted := c.processes()
	w.destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}
