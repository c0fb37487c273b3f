// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
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
