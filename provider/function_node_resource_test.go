// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func logic(count int) string {
	return shop + fmt.Sprintf(`resource "boxer_function_node" "logic" {
  network_id    = boxer_network.shop.id
  name          = "logic"
  command       = ["python3"]
  desired_count = %d
}
`, count)
}

const logicAddress = "boxer_function_node.logic"

func TestFunctionScalesInPlace(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(logic(1))
	w.apply()
	w.emptyPlan()
	wantCalls(t, f, "create network shop", "create function logic", "start logic-0", "keep 1 of logic")
	first := w.values(logicAddress)

	w.configure(logic(3))
	if got := w.planned()[logicAddress]; got != "update" {
		t.Errorf("1 -> 3: planned %q, want update", got)
	}
	w.apply()
	w.emptyPlan()
	wantCalls(t, f, "release logic", "start logic-1", "start logic-2", "keep 3 of logic")
	three := w.values(logicAddress)
	if diff := cmp.Diff([]any{"logic-0", "logic-1", "logic-2"}, three["slots"]); diff != "" {
		t.Error(diff)
	}
	if ids := three["node_ids"].([]any); len(ids) != 3 || ids[0] != first["node_ids"].([]any)[0] {
		t.Errorf("node_ids = %v: the first should have stayed %v", ids, first["node_ids"])
	}

	w.configure(logic(1))
	w.apply()
	w.emptyPlan()
	wantCalls(t, f, "release logic", "stop logic-1", "stop logic-2", "keep 1 of logic")
	if diff := cmp.Diff(first, w.values(logicAddress)); diff != "" {
		t.Errorf("1 -> 3 -> 1 is not what it was:\n%s", diff)
	}

	w.configure(logic(0))
	w.apply()
	w.emptyPlan()
	wantCalls(t, f, "release logic", "stop logic-0", "keep 0 of logic")
	w.destroy()
	wantCalls(t, f, "delete function logic", "delete network shop")
}

// TestFunctionReplicaGone: the controller launches it again, so it is no change;
// but for one that keeps another number, or none.
func TestFunctionReplicaGone(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(logic(2))
	w.apply()
	f.called()
	f.change(func() { delete(f.functions["logic"].running, "logic-1") })
	w.emptyPlan()
	f.change(func() { f.functions["logic"].kept = &policy{Count: 5} })
	if got := w.planned()[logicAddress]; got != "update" {
		t.Errorf("scaled by hand: planned %q, want update", got)
	}
	f.change(func() { f.functions["logic"].kept = nil })
	if got := w.planned()[logicAddress]; got != "update" {
		t.Errorf("kept by nobody: planned %q, want update", got)
	}
	w.apply()
	w.emptyPlan()
	wantCalls(t, f, "release logic", "start logic-1", "keep 2 of logic")

	f.change(func() { delete(f.functions, "logic") })
	if got := w.planned()[logicAddress]; got != "create" {
		t.Errorf("function gone: planned %q, want create", got)
	}
}

func TestFunctionFailedScaleUpIsTakenBack(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(logic(1))
	w.apply()
	before := w.values(logicAddress)
	f.called()
	f.change(func() { f.await = errGuest })
	w.configure(logic(2))
	w.golden("scale up failed", w.errors("apply", "-auto-approve", "-input=false"), nil)
	wantCalls(t, f, "release logic", "start logic-1", "stop logic-1", "keep 1 of logic")
	if diff := cmp.Diff(before, w.values(logicAddress)); diff != "" {
		t.Errorf("state after a failed update:\n%s", diff)
	}
	f.change(func() { f.await = nil })
	w.apply()
	w.emptyPlan()
}

func TestFunctionFailureIsUndone(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(logic(2))
	f.change(func() { f.await = errGuest })
	w.errors("apply", "-auto-approve", "-input=false")
	wantCalls(t, f, "create network shop", "create function logic", "start logic-0", "start logic-1", "delete function logic")
	if w.values(logicAddress) != nil {
		t.Error("the node that does not exist is in the state")
	}

	f.change(func() { f.deletion = errDisk })
	w.errors("apply", "-auto-approve", "-input=false")
	if w.values(logicAddress) == nil {
		t.Error("the node that is left was forgotten")
	}
	f.change(func() { f.await, f.deletion = nil, nil })
	w.destroy()
	if len(f.functions)+len(f.networks) != 0 {
		t.Errorf("left: %v %v", f.functions, f.networks)
	}
}
