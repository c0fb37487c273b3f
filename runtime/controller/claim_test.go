// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

func TestWhoseSlotItIs(t *testing.T) {
	note := func(change func(*Declaration)) json.RawMessage {
		k := kept{Declaration: declaration(2)}
		change(&k.Declaration)
		return k.encode()
	}
	notes := map[string]json.RawMessage{
		"function/logic":   note(func(*Declaration) {}),
		"function/cart-eu": note(func(d *Declaration) { d.Name, d.Count, d.Max = "cart-eu", 0, 3 }),
		"function/spare":   note(func(d *Declaration) { d.Name, d.StandbyFor = "spare", "zk-1" }),
		"function/zk":      json.RawMessage(`[]`),
		"logic/other":      json.RawMessage(`{}`),
	}
	for slot, want := range map[string]string{
		"logic-0": "logic", "logic-1": "logic", "logic-2": "", "logic": "", "logic-x": "", "logic-01": "", "logic--1": "",
		"cart-eu-2": "cart-eu", "cart-eu-3": "", "cart-0": "", "eu-0": "",
		"spare-0": "", "zk-1": "", "-0": "", "": "",
	} {
		if got := Claimed(notes, slot); got != want {
			t.Errorf("%q is kept for %q, want %q", slot, got, want)
		}
	}
}

// TestANodeHasTheNameOfAReplica: what would contend for it is refused.
func TestANodeHasTheNameOfAReplica(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.controller()
	w.vm("logic-2")
	declare(t, c, declaration(2))
	refused := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), `"logic-2" would be one of its replicas, and is the name of node 11 (vm)`) {
			t.Errorf("got %v", err)
		}
	}
	_, err := call[Resized](t, c, MethodScale, Resize{Name: "logic", Count: 3})
	refused(err)
	_, err = call[View](t, c, MethodDeclare, ranged(-1, 1, 3))
	refused(err)
	if v := views(t, c)[0]; v.Count != 2 || v.Max != 0 {
		t.Errorf("it is %+v", v)
	}
	w.becomes(11, cluster.StateLeft)
	declare(t, c, declaration(3))
	for slot, want := range map[string]string{"logic-2": "logic", "logic-3": ""} {
		if by, err := call[Order](t, c, MethodClaimed, Slot{Slot: slot}); err != nil || by.Name != want {
			t.Errorf("%s is kept for %+v, %v", slot, by, err)
		}
	}
	w.await("logic-0", "logic-1", "logic-2")
}
