// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// MethodWake starts a node that has no replica, because somebody connects to it,
// and answers when it runs. What cannot be helped by waiting is CodeAsleep.
const MethodWake = cluster.WakeMethod // Wake

// CodeAsleep is the answer when a slot is not started, and why.
const CodeAsleep = "asleep"

// MethodUse asks a node how much its guest is used: -> Use.
const MethodUse = "use"

// Wake names the slot that somebody connects to.
type Wake struct {
	Slot string `json:"slot"`
}

// Use is what a node knows of the connections into its guest.
type Use struct {
	Open int    `json:"open"` // now
	Made uint64 `json:"made"` // so far, of those that the supervisor sees
}

const (
	askUse       = 5 * time.Second // between questions, at most
	reserveAgain = 10 * time.Second
)

func asleep(format string, args ...any) error {
	return &cluster.RemoteError{Code: CodeAsleep, Message: fmt.Sprintf(format, args...)}
}

// onUse tells whether n is started by who connects to it: there may be no replica.
func (n *node) onUse() bool { return n.Max > 0 && n.Min == 0 && n.StandbyFor == "" }

// cooldown is how long what was started on use stays without connections.
func (c *Controller) cooldown(n *node) time.Duration {
	if n.Scale != nil && n.Scale.CooldownS > 0 {
		return time.Duration(n.Scale.CooldownS) * time.Second
	}
	return c.o.Cooldown
}

// tires tells whether n's last replica goes when nobody uses it: not if somebody
// has asked for it by number, unless a metric overrules that.
func (n *node) tires() bool { return n.onUse() && n.Count == 1 && (n.Woken || n.Scale != nil) }

// reserve keeps the addresses of all nodes that are started on use.
func (c *Controller) reserve(now time.Time) (again time.Time) {
	all := []cluster.Reserved{}
	for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
		if n := c.nodes[name]; n.onUse() {
			service := n.Node.Service
			if service == "" {
				service = n.Name
			}
			all = append(all, cluster.Reserved{Slot: n.slot(0), Name: n.Name, Service: service})
		}
	}
	if c.reserved != nil && slices.Equal(all, c.reserved) {
		return time.Time{}
	}
	if now.Before(c.reserveAt) {
		return c.reserveAt
	}
	if err := c.o.Store.Reserve(c.term, all); err != nil {
		c.reserveAt = now.Add(reserveAgain)
		if !errors.Is(err, cluster.ErrNotLeading) {
			c.say(Event{Type: EventFailed, Text: fmt.Sprintf("no address is reserved for what is to be started on use: %s", err)})
		}
		return c.reserveAt
	}
	c.reserved, c.reserveAt = all, time.Time{}
	return time.Time{}
}

// wake starts the node of a slot, once for all who ask, and waits until it runs.
func (c *Controller) wake(from uint32, w Wake) (func(context.Context) (any, error), error) {
	var n *node
	for _, one := range c.nodes {
		if one.onUse() && one.slot(0) == w.Slot {
			n = one
		}
	}
	if n == nil {
		return nil, asleep("%q is no node that is started on use", w.Slot)
	}
	now := time.Now()
	n.used = now
	s := c.slot(n, w.Slot)
	if m, held := c.holder(w.Slot); held && m.State == cluster.StateRunning {
		return nil, nil
	}
	if n.Count == 0 {
		c.count(n, now)
		if c.overBudget(n) {
			return nil, n.poor()
		}
		before := n.Woken
		n.Woken = true
		if err := c.setCount(n, 1, fmt.Sprintf("node-%d connects to %s", from, w.Slot)); err != nil {
			n.Woken = before
			return nil, err
		}
	}
	if s.notBefore.After(now.Add(c.o.Patience)) {
		return nil, asleep("%s is launched again at %s only: %s", w.Slot, s.notBefore.UTC().Format(time.TimeOnly), s.reason)
	}
	done := make(chan error, 1)
	s.asked = append(s.asked, done)
	return func(ctx context.Context) (any, error) {
		patience := time.NewTimer(c.o.Patience)
		defer patience.Stop()
		var err error
		select {
		case err = <-done:
			return struct{}{}, err
		case <-patience.C:
			err = &cluster.RemoteError{Code: cluster.CodeUnavailable, Message: fmt.Sprintf("%s does not run within %s", w.Slot, c.o.Patience)}
		case <-ctx.Done():
			err = ctx.Err()
		}
		_ = c.do(ctx, func() {
			s.asked = slices.DeleteFunc(s.asked, func(other chan error) bool { return other == done })
		})
		return nil, err
	}, nil
}

func (n *node) poor() error {
	return asleep("the budget of %s is spent: %.0f of %.0f GB-seconds of %s (UTC)", n.Name, n.Spent.GBSeconds, n.Budget, n.Spent.Day)
}

// tell those who wait for a slot how it went.
func (s *slot) tell(err error) {
	for _, done := range s.asked {
		done <- err // one place, one answer
	}
	s.asked = nil
}

// tellAll tells those who wait for any slot of n.
func (n *node) tellAll(err error) {
	for _, s := range n.slots {
		s.tell(err)
	}
}

// rest lets go what was started on use and is not used any more.
func (c *Controller) rest(ctx context.Context, n *node, now time.Time) (again time.Time) {
	s := c.slot(n, n.slot(0))
	if n.Count == 0 && len(s.asked) > 0 {
		s.tell(asleep("%s was scaled to 0 meanwhile", n.Name))
	}
	if !n.tires() {
		return time.Time{}
	}
	if n.used.IsZero() || len(s.asked) > 0 { // by another seed's controller; somebody waits
		n.used = now
	}
	m, held := c.holder(n.slot(0))
	tired := n.used.Add(c.cooldown(n))
	if !held || m.State != cluster.StateRunning {
		if now.Before(tired) {
			return tired
		}
		return c.sleep(n, now, "nobody has asked for it for %s, and it does not run")
	}
	at := n.asked.Add(min(c.cooldown(n)/4, askUse))
	switch {
	case n.asking:
		return time.Time{}
	case now.Before(at):
		return at
	}
	n.asking, n.asked = true, now
	c.tasks.Go(func() {
		asking, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		var use Use
		err := c.o.Network.Call(asking, m.ID, MethodUse, struct{}{}, &use)
		_ = c.do(ctx, func() { c.saw(n, m, use, err) })
	})
	return time.Time{}
}

// saw takes in how much a replica is used. Who cannot say is taken to be used.
func (c *Controller) saw(n *node, m cluster.Member, use Use, err error) {
	n.asking = false
	now := time.Now()
	if err != nil || use.Open > 0 || use.Made != n.made {
		n.made, n.used = use.Made, now
		return
	}
	if holder, held := c.holder(m.Slot); c.leads && c.nodes[n.Name] == n && n.tires() && held && holder.ID == m.ID && now.Sub(n.used) >= c.cooldown(n) {
		c.sleep(n, now, "no connection for %s")
	}
}

func (c *Controller) sleep(n *node, now time.Time, why string) (again time.Time) {
	if err := c.setCount(n, 0, fmt.Sprintf(why, now.Sub(n.used).Round(time.Second/10))); err != nil {
		return now.Add(time.Second)
	}
	n.Woken, n.made = false, 0
	return time.Time{}
}

// letGo takes aside a replica that is one too many, if who connects to it then
// starts the next one: it leaves when the connections that it has have ended.
func (c *Controller) letGo(n *node, s *slot, m cluster.Member) (done bool) {
	if !n.onUse() || n.index(m.Slot) != 0 || m.State != cluster.StateRunning {
		return false
	}
	if err := c.o.Store.LetGo(c.term, m.Slot, m.ID); err != nil {
		c.o.Logger.Warn().Err(err).Str("replica", m.Slot).Msg("a replica was not let go")
		return false
	}
	m.Retired = true // as everybody is told
	c.members[m.ID] = m
	s.running, s.lost, s.drained, s.renewal, s.holder = time.Time{}, time.Time{}, time.Time{}, time.Time{}, 0
	c.say(Event{Type: EventDrained, Name: n.Name, Slot: m.Slot, Node: m.ID, Text: "it leaves when its connections have ended; the next connect starts another"})
	return true
}
