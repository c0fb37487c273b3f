// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// reconcile does what is to be done now, and says when to look again.
func (c *Controller) reconcile(ctx context.Context) (next time.Time) {
	if !c.leads {
		return time.Time{}
	}
	now := time.Now()
	later := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	holders := c.holders()
	later(c.reserve(now))
	var launches []func()
	notes := map[string]json.RawMessage{}
	for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
		n := c.nodes[name]
		c.count(n, now)
		later(c.rest(ctx, n, now))
		if n.Budget > 0 {
			later(now.Add(time.Second))
		}
		holder, held := holders[n.StandbyFor]
		later(c.standBy(n, holder, held, now))
		later(c.scale(ctx, n, holders, now))
		var due []string
		for i := range n.Count {
			slot := n.slot(i)
			m, held := holders[slot]
			launch, at := c.decide(n, slot, m, held, now)
			if launch {
				due = append(due, slot)
			} else {
				later(at)
			}
		}
		for slot, m := range holders { // more than are wanted
			if n.owns(m) && n.index(slot) >= n.Count && !c.letGo(n, c.slot(n, slot), m) {
				later(c.drain(ctx, n, c.slot(n, slot), m, now))
			}
		}
		for name, s := range n.slots { // whether what is not wanted comes is nothing to a later launch
			if n.index(name) < n.Count {
				continue
			}
			if later(s.pending); !now.Before(s.pending) {
				s.pending = time.Time{}
			}
		}
		if len(due) > 0 && c.overBudget(n) {
			due = nil
			n.tellAll(n.poor())
		}
		if len(due) == 0 && (n.Budget == 0 || now.Sub(n.saved) < keepSpent) {
			continue
		}
		for _, slot := range due {
			n.Slots[slot] = launch{Generation: n.Slots[slot].Generation + 1, At: now}
			launches = append(launches, func() { c.launch(ctx, n, slot) })
		}
		n.saved = now
		notes[n.key()] = n.encode()
	}
	if len(notes) == 0 {
		return next
	}
	// What is launched must be known to the next leader first.
	if err := c.o.Store.Note(c.term, notes); err != nil {
		if !errors.Is(err, cluster.ErrNotLeading) {
			c.o.Logger.Error().Err(err).Msg("nothing is launched while that cannot be kept")
		}
		later(now.Add(time.Second))
		return next
	}
	for _, launch := range launches {
		launch()
	}
	return next
}

func (k *kept) encode() json.RawMessage {
	data, err := json.Marshal(k)
	if err != nil {
		panic(err) // it came as JSON
	}
	return data
}

// decide whether a slot is to be launched now, or when to look again.
func (c *Controller) decide(n *node, name string, m cluster.Member, held bool, now time.Time) (launch bool, again time.Time) {
	s := c.slot(n, name)
	settled := c.since.Add(c.o.Settle) // members come back to a new leader
	until := s.notBefore
	switch {
	case s.invoking:
		return false, time.Time{}
	case held && m.State == cluster.StateLost:
		until = s.lost.Add(c.o.Grace)
		for _, at := range []time.Time{settled, s.pending, s.renewal, s.notBefore} {
			if until.Before(at) {
				until = at
			}
		}
	case held:
		due := ends(m) && !now.Before(renewAt(m)) // the failures are its successors'
		paused := s.failures > 0 || !s.notBefore.IsZero()
		if stable := s.running.Add(c.o.Stable); paused && !s.running.IsZero() && !due {
			if now.Before(stable) {
				return false, stable
			}
			s.failures, s.reason, s.notBefore = 0, "", time.Time{}
			s.pauses.Reset()
		}
		return c.renew(n, s, m, now)
	case !s.pending.IsZero():
		if now.Before(s.pending) {
			return false, s.pending
		}
		s.pending = time.Time{}
		c.fail(n, s, name, fmt.Sprintf("launch %s did not join the network within %s", c.launchID(n, name), c.o.Patience))
		return false, s.notBefore
	case n.Slots[name].Generation > 0 && !s.known && until.Before(settled):
		until = settled
	}
	return !now.Before(until), until
}

// ends tells whether a member's end is known.
func ends(m cluster.Member) bool { return !m.Ends.IsZero() || m.Leaving }

// renew tells whether a holder's successor is to be launched now: its platform
// ends it soon, or it was asked to leave when it was not needed.
func (c *Controller) renew(n *node, s *slot, m cluster.Member, now time.Time) (launch bool, again time.Time) {
	if !ends(m) || !n.owns(m) || s.running.IsZero() {
		return false, time.Time{}
	}
	at := renewAt(m)
	switch {
	case now.Before(at):
		return false, at
	case now.Before(s.renewal):
		return false, s.renewal
	case s.renewal.After(at): // it was launched to follow m
		s.renewal = time.Time{}
		c.fail(n, s, m.Slot, fmt.Sprintf("the successor did not run within %s", c.o.Patience))
	}
	return !now.Before(s.notBefore), s.notBefore
}

// renewAt leaves a third of a member's life, a minute at most, to its successor.
// Those that began together do not end together.
func renewAt(m cluster.Member) time.Time {
	if m.Leaving {
		return m.Since
	}
	lead := min(m.Ends.Sub(m.Since)/3, longestLead)
	spread := time.Duration(m.ID%16) * lead / 32
	return m.Ends.Add(-lead - spread)
}

// count what the day's replicas have used.
func (c *Controller) count(n *node, now time.Time) {
	if day := now.UTC().Format(time.DateOnly); n.Spent.Day != day {
		n.Spent, n.broke = spent{Day: day}, false
	}
	replicas := 0
	for _, m := range c.members {
		if n.owns(m) {
			replicas++
		}
	}
	n.Spent.GBSeconds += now.Sub(n.counted).Seconds() * float64(replicas) * float64(n.MemoryMB) / 1024
	n.counted = now
}

func (c *Controller) overBudget(n *node) bool {
	if n.Budget == 0 || n.Spent.GBSeconds < n.Budget {
		return false
	}
	if !n.broke {
		n.broke = true
		c.say(Event{Type: EventBudget, Name: n.Name,
			Text: fmt.Sprintf("%.0f of %.0f GB-seconds of %s (UTC) are spent: nothing more is launched on that day", n.Spent.GBSeconds, n.Budget, n.Spent.Day)})
	}
	return true
}

// launch sends the event of a slot's next life.
func (c *Controller) launch(ctx context.Context, n *node, name string) {
	s := c.slot(n, name)
	doc := n.Node
	doc.Load = doc.Load || n.Scale != nil
	doc.Name, doc.Slot, doc.LaunchToken = n.Name, name, n.token(c.o.Secret, name)
	n.standIn(&doc)
	what := "launch " + cluster.LaunchID(doc.LaunchToken)
	if m, held := c.holder(name); held && m.State != cluster.StateLost {
		s.renewal, doc.Succeeds = time.Now().Add(c.o.Patience), m.LaunchID
		what += fmt.Sprintf(", to follow node-%d, ", m.ID)
		if m.Leaving {
			what += "which leaves"
		} else {
			what += "whose platform ends it at " + m.Ends.UTC().Format(time.TimeOnly)
		}
	} else {
		s.pending = time.Now().Add(c.o.Patience)
	}
	payload, err := json.Marshal(doc)
	if err != nil {
		panic(err) // it came as JSON
	}
	s.invoking, s.known = true, true
	generation, function := n.Slots[name].Generation, n.Function
	c.say(Event{Type: EventLaunched, Name: n.Name, Slot: name, Text: what})
	c.tasks.Go(func() {
		select {
		case c.places <- struct{}{}:
			defer func() { <-c.places }()
		case <-ctx.Done():
			return
		}
		sending, cancel := context.WithTimeout(ctx, invokeTimeout)
		defer cancel()
		err := errNoPlatform
		if c.o.Invoker != nil {
			err = c.o.Invoker.Invoke(sending, function, payload)
		}
		_ = c.do(ctx, func() { c.launched(n, name, generation, err) })
	})
}

// launched: the platform took the event, or not.
func (c *Controller) launched(n *node, name string, generation uint64, err error) {
	s := c.slot(n, name)
	s.invoking = false
	if c.nodes[n.Name] != n || n.Slots[name].Generation != generation {
		return // declared anew, or another term
	}
	switch {
	case err == nil: // the platform may have been slow to take it: it has its time from now on
		for _, until := range []*time.Time{&s.pending, &s.renewal} {
			if !until.IsZero() {
				*until = time.Now().Add(c.o.Patience)
			}
		}
	case errors.Is(err, ErrThrottled):
		s.pending, s.renewal = time.Time{}, time.Time{}
		pause := s.pauses.NextBackOff()
		s.notBefore, s.reason = time.Now().Add(pause), clipped(err.Error())
		c.say(Event{Type: EventThrottled, Name: n.Name, Slot: name, Text: fmt.Sprintf("%s; the next try is in %s", err, pause.Round(time.Millisecond))})
	default:
		s.pending, s.renewal = time.Time{}, time.Time{}
		c.fail(n, s, name, err.Error())
	}
}

// drain asks a replica to leave, and again if it does not.
func (c *Controller) drain(ctx context.Context, n *node, s *slot, m cluster.Member, now time.Time) (again time.Time) {
	if at := s.drained.Add(c.o.Again); now.Before(at) {
		return at
	}
	s.drained = now
	c.say(Event{Type: EventDrained, Name: n.Name, Slot: m.Slot, Node: m.ID})
	c.callNode(ctx, m, DrainMethod)
	return now.Add(c.o.Again)
}

// callNode makes one of the calls that need no answer.
func (c *Controller) callNode(ctx context.Context, m cluster.Member, method string) {
	c.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if err := c.o.Network.Call(ctx, m.ID, method, struct{}{}, nil); err != nil {
			c.o.Logger.Warn().Err(err).Str("replica", m.Slot).Str("call", method).Msg("a replica did not answer")
		}
	})
}
