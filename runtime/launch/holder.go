// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"fmt"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// takenTime is how long another node may hold a slot that is waited for: a
// predecessor that is just leaving is no failure.
const takenTime = 3 * time.Second

// Holder notices another launch that holds a slot and keeps it: the seed admits
// nobody else to it.
type Holder struct {
	member cluster.Member
	since  time.Time // the zero time: nobody
}

// Note takes in an event of another launch of the slot.
func (h *Holder) Note(ev cluster.Event) {
	switch {
	case ev.Type == cluster.EventLeave || ev.Member.State == cluster.StateLost || !ev.Member.Holds() || ev.Member.Standby:
		if h.member.ID == ev.Member.ID {
			h.since = time.Time{}
		}
	case h.since.IsZero() || h.member.ID != ev.Member.ID:
		h.member, h.since = ev.Member, time.Now()
	}
}

// Taken is an error once the slot has been held for longer than a predecessor
// takes to leave.
func (h *Holder) Taken(slot string) error {
	if h.since.IsZero() || time.Since(h.since) < takenTime {
		return nil
	}
	m := h.member
	return &Failure{
		Slot:   slot,
		Cause:  fmt.Sprintf("the name is taken by node %d (%s, since %s)", m.ID, m.Kind, m.Since.UTC().Format("2006-01-02 15:04:05")),
		Remedy: "Choose another name, or stop that node first.",
	}
}

// claimTime is how long the controller may take to say whose a slot is.
const claimTime = 2 * time.Second

// Unclaimed is an error if a slot is kept for the replica of a function node: no other
// node can join by that name. When nobody can say so the seeds will, at the join.
func Unclaimed(ctx context.Context, session *cluster.Session, slot string) error {
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	var by controller.Order
	if CallLeader(ctx, session, controller.MethodClaimed, controller.Slot{Slot: slot}, &by) != nil || by.Name == "" {
		return nil
	}
	return &Failure{Slot: slot, Cause: fmt.Sprintf("the name is that of a replica of function node %q", by.Name), Remedy: "Choose another name."}
}

// Unclaimed is the same, of the launcher's network.
func (l *Launcher) Unclaimed(ctx context.Context, slot string) error {
	observing, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	session, err := Observe(observing, l.Network)
	if err != nil {
		return nil
	}
	defer session.Close()
	return Unclaimed(ctx, session, slot)
}
