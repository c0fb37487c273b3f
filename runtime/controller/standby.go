// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// A standby is a function node with one replica, or none, whose slot is that of a
// VM node: its home. It runs while its home is gone, which is when that was lost
// for a moment, and not when it left in order. What comes back joins as the
// standby's successor (cluster.Hello.Standby), so that the slot has one holder.

// home is what is known of a standby's VM node.
type home struct {
	Service string `json:"service,omitempty"` // its last one, which the standby has too

	gone time.Time // since when it is lost; zero: it is there, never was, or left
	seen bool      // by this controller
}

// isHome: m is the node that n stands by for.
func (n *node) isHome(m cluster.Member) bool {
	return n.StandbyFor != "" && m.Slot == n.StandbyFor && m.Kind != config.KindFunction
}

// seeHome takes in what became of a home, which was before until now.
func (c *Controller) seeHome(n *node, e cluster.Event, before cluster.Member) {
	switch h := &n.Home; {
	case e.Type == cluster.EventLeave && before.State == cluster.StateLost, e.Member.State == cluster.StateLost:
		if h.gone.IsZero() {
			h.gone = time.Now()
		}
	case e.Type == cluster.EventLeave:
		h.gone = time.Time{}
	case e.Member.Holds():
		h.gone, h.seen = time.Time{}, true
		h.Service = e.Member.Service // kept with the next note
	}
}

// standBy sets the number of a standby's replicas: one while its home is gone.
func (c *Controller) standBy(n *node, holder cluster.Member, held bool, now time.Time) (again time.Time) {
	if n.StandbyFor == "" {
		return time.Time{}
	}
	count, why := n.Count, ""
	due := n.Home.gone.Add(c.o.Grace)
	if settled := c.since.Add(c.o.Settle); due.Before(settled) && !n.Home.seen {
		due = settled // a new leader does not know yet who is there
	}
	switch {
	case held && n.isHome(holder) && holder.State != cluster.StateLost:
		count, why = 0, "it is there"
	case n.Home.gone.IsZero():
	case now.Before(due):
		again = due
	default:
		count, why = 1, "it is gone"
	}
	if count == n.Count {
		return again
	}
	if err := c.setCount(n, count, n.StandbyFor+": "+why); err != nil {
		if !errors.Is(err, cluster.ErrNotLeading) {
			c.o.Logger.Error().Err(err).Msg("a standby waits")
		}
		return now.Add(time.Second)
	}
	if s := c.slot(n, n.StandbyFor); count == 0 {
		s.pending, s.renewal, s.lost = time.Time{}, time.Time{}, time.Time{}
	} else {
		n.forgive()
	}
	return again
}

// standIn makes a launch event that of its home's slot.
func (n *node) standIn(doc *config.Node) {
	if n.StandbyFor == "" {
		return
	}
	doc.Standby, doc.Name = true, n.StandbyFor
	if doc.Service == "" || doc.Service == n.Name {
		if doc.Service = n.Home.Service; doc.Service == "" {
			doc.Service = n.StandbyFor
		}
	}
}

// checkStandby: a slot is one node's.
func (c *Controller) checkStandby(d Declaration) error {
	for name, n := range c.nodes {
		both := d.StandbyFor != "" && n.index(d.StandbyFor) >= 0 || n.StandbyFor != "" && d.index(n.StandbyFor) >= 0
		if name != d.Name && both {
			return fmt.Errorf("function node %q: slot %q is that of %q: choose another name, or another node to stand by for", d.Name, cmp.Or(d.StandbyFor, n.StandbyFor), name)
		}
	}
	return nil
}

// rehome is called when a node stands by for another than before: what is not its
// own any more is asked to leave.
func (c *Controller) rehome(ctx context.Context, n *node, before Declaration) {
	was := node{kept: kept{Declaration: before}}
	n.Home = home{}
	for _, m := range c.members {
		if was.owns(m) && !n.owns(m) {
			c.callNode(context.WithoutCancel(ctx), m, DrainMethod)
		}
		if n.isHome(m) {
			c.seeHome(n, cluster.Event{Type: cluster.EventJoin, Member: m}, m)
		}
	}
}
