// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// TestAnotherLaunchInItsPlace: what the controller launched instead, because the
// platform throttled the first one, say, is what is waited for.
func TestAnotherLaunchInItsPlace(t *testing.T) {
	wants := Wants("logic", controller.View{Slots: []controller.SlotView{{Slot: "logic-0", LaunchID: cluster.LaunchID("first")}}})
	launched := func(id uint32, token, state string) cluster.Member {
		return cluster.Member{ID: id, Slot: "logic-0", Kind: config.KindFunction, LaunchID: cluster.LaunchID(token), State: state}
	}
	leaving, aside := launched(7, "before", cluster.StateRunning), launched(8, "next", cluster.StateRunning)
	leaving.Leaving, aside.Succeeds = true, 7
	vm := launched(9, "vm", cluster.StateRunning)
	vm.Kind = config.KindVM
	type step struct {
		m    cluster.Member
		runs uint32
	}
	for name, steps := range map[string][]step{
		"itself":            {{launched(1, "first", cluster.StateStarting), 0}, {launched(1, "first", cluster.StateRunning), 1}},
		"another":           {{launched(2, "second", cluster.StateStarting), 0}, {launched(2, "second", cluster.StateRunning), 2}},
		"another after it":  {{launched(1, "first", cluster.StateLost), 0}, {launched(2, "second", cluster.StateRunning), 2}, {launched(1, "first", cluster.StateLeft), 2}},
		"one that leaves":   {{leaving, 0}, {launched(1, "first", cluster.StateRunning), 1}},
		"one that succeeds": {{aside, 0}},
		"that left":         {{launched(2, "second", cluster.StateRunning), 2}, {launched(2, "second", cluster.StateLeft), 0}},
	} {
		w := &wait{wants: wants, seen: map[string]cluster.Member{}, holders: map[string]*Holder{}}
		for i, s := range steps {
			w.note(cluster.Event{Type: cluster.EventUpdate, Member: s.m})
			found, _, err := w.check(t.Context())
			if err != nil || len(found) != min(int(s.runs), 1) || s.runs != 0 && found[0].ID != s.runs {
				t.Errorf("%s, step %d: found %+v, %v, want node %d", name, i, found, err, s.runs)
			}
		}
		if len(w.holders) != 0 {
			t.Errorf("%s: a replica contends with itself", name)
		}
		if w.note(cluster.Event{Type: cluster.EventJoin, Member: vm}); len(w.holders) != 1 {
			t.Errorf("%s: a VM does not contend", name)
		}
	}
}
