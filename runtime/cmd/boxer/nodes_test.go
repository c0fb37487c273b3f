// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// TestStateWhileASlotChangesHands: the part in that says more than the state.
func TestStateWhileASlotChangesHands(t *testing.T) {
	members := []cluster.Member{
		{ID: 1, Slot: "web-0", State: cluster.StateRunning, Retired: true},
		{ID: 2, Slot: "web-0", State: cluster.StateRunning},
		{ID: 3, Slot: "web-0", State: cluster.StateStarting, Succeeds: 2},
		{ID: 4, Slot: "web-1", State: cluster.StateLost, Retired: true},
	}
	want := []string{"draining", "running", "successor", "lost"}
	for i, row := range viewNodes(members, time.Now()).table.rows {
		if row[3] != want[i] {
			t.Errorf("%+v is shown as %q, want %q", members[i], row[3], want[i])
		}
	}
}

// TestDormantNodes: there is nobody who could have an id, an age or a NAT.
func TestDormantNodes(t *testing.T) {
	reserved := []cluster.Reserved{{Slot: "job-0", Name: "job", Service: "jobs", Address: netip.MustParseAddr("100.80.0.9")}}
	got := viewNodes(cluster.Dormant(nil, reserved), time.Now()).table.rows
	want := [][]string{{"-", "job-0", "function", "dormant", "100.80.0.9", "-", "-", "jobs", "-", "-", "-"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
