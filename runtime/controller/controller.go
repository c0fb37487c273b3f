// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// Controller is one seed's. All it knows belongs to the goroutine of Run.
type Controller struct {
	o       Options
	journal journal
	jobs    chan func()
	tasks   sync.WaitGroup
	places  chan struct{} // of Invokes under way

	term    uint64
	leads   bool
	since   time.Time // it leads
	nodes   map[string]*node
	members map[uint32]cluster.Member

	unwanted  map[string]time.Time // launches of what was removed, by id: they may come until then
	reserved  []cluster.Reserved   // in this term; nil: not yet
	reserveAt time.Time            // again, after a failure
}

// node is a declared one.
type node struct {
	kept
	slots   map[string]*slot
	counted time.Time // until when Spent is right
	saved   time.Time
	broke   bool // the budget is spent, and that was said

	used    time.Time // when somebody connected last, as far as is known
	made    uint64    // connections into its guest, as it said last
	asking  bool      // it is being asked
	asked   time.Time // it was asked last
	scaling scaling
}

// slot is what is known of one now.
type slot struct {
	invoking  bool
	pending   time.Time // a launch may join until then
	lost      time.Time // since when its holder is
	holder    uint32    // who it is
	running   time.Time // since when it runs
	renewal   time.Time // its successor runs until then, or is given up
	notBefore time.Time // it is launched again
	pauses    *backoff.ExponentialBackOff
	failures  int
	reason    string // of the last failure
	drained   time.Time
	known     bool         // its last launch was seen in this term: nobody else comes back
	asked     []chan error // who waits for it to run
	askedLoad time.Time
}

// New makes the controller of a seed; Run lets it work.
func New(o Options) *Controller {
	for d, value := range map[*time.Duration]time.Duration{
		&o.Patience: defaultPatience, &o.Settle: defaultSettle, &o.Grace: defaultGrace, &o.Stable: defaultStable, &o.Backoff: defaultBackoff, &o.Again: defaultAgain, &o.Cooldown: defaultResting,
	} {
		if *d == 0 {
			*d = value
		}
	}
	return &Controller{
		o: o, jobs: make(chan func()), places: make(chan struct{}, invokesAtOnce),
		nodes: map[string]*node{}, members: map[uint32]cluster.Member{},
	}
}

// Run keeps what is declared until ctx ends, while this seed leads.
func (c *Controller) Run(ctx context.Context) error {
	defer c.tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, stop := c.o.Network.Subscribe()
	defer stop()
	for _, m := range c.o.Network.Members() { // before anything is decided
		c.members[m.ID] = m
	}
	c.turn()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.o.Store.Turned():
			c.turn()
		case e, open := <-events:
			if !open {
				return nil // the membership has ended, and the node with it
			}
			c.see(ctx, e)
		case job := <-c.jobs:
			job()
		case <-timer.C:
		}
		for more := true; more; { // a burst is looked at once
			select {
			case e, open := <-events:
				if more = open; open {
					c.see(ctx, e)
				}
			default:
				more = false
			}
		}
		if next := c.reconcile(ctx); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// do runs job where all is known, and returns when it has.
func (c *Controller) do(ctx context.Context, job func()) error {
	done := make(chan struct{})
	select {
	case c.jobs <- func() { defer close(done); job() }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// turn takes up the work when this seed begins to lead, and drops it when it ends.
func (c *Controller) turn() {
	term, leads := c.o.Store.Leading()
	if leads == c.leads && term == c.term {
		return
	}
	c.term, c.leads, c.since = term, leads, time.Now()
	for _, n := range c.nodes {
		n.tellAll(notLeader())
	}
	c.nodes, c.unwanted, c.reserved, c.reserveAt = map[string]*node{}, map[string]time.Time{}, nil, time.Time{}
	if !leads {
		return
	}
	for key, value := range c.o.Store.Notes() {
		var n node
		if !strings.HasPrefix(key, keyPrefix) {
			continue
		}
		if err := json.Unmarshal(value, &n.kept); err != nil || key != n.key() {
			c.o.Logger.Error().Err(err).Str("note", key).Msg("a declaration is damaged and left alone: declare it again")
			continue
		}
		c.adopt(&n)
	}
	c.say(Event{Type: EventLeading, Text: fmt.Sprintf("%d function nodes are declared", len(c.nodes))})
}

// adopt begins to keep a node. What was launched lately may still come.
func (c *Controller) adopt(n *node) {
	if n.Slots == nil {
		n.Slots = map[string]launch{}
	}
	n.slots, n.counted, n.saved = map[string]*slot{}, time.Now(), time.Now()
	c.nodes[n.Name] = n
	for name := range n.Slots {
		c.slot(n, name).pending = c.expected(n, name)
	}
	for _, m := range c.members {
		if n.owns(m) && m.Holds() {
			s := c.slot(n, m.Slot)
			if c.settle(n, s, m); m.Since.Before(s.running) {
				s.running = m.Since // that it ran is not over with the leader before
			}
		}
		if n.isHome(m) {
			c.seeHome(n, cluster.Event{Type: cluster.EventJoin, Member: m}, m)
		}
	}
}

// expected is until when a slot's last launch may join; zero: not any more. It may
// have been another seed's, whose clock was ahead.
func (c *Controller) expected(n *node, slot string) time.Time {
	left := min(time.Until(n.Slots[slot].At.Add(c.o.Patience)), c.o.Patience)
	if left <= 0 {
		return time.Time{}
	}
	return time.Now().Add(left)
}

func (k *kept) key() string { return keyPrefix + k.Name }

// owns: m is one of n's replicas.
func (n *node) owns(m cluster.Member) bool {
	return m.Kind == config.KindFunction && n.index(m.Slot) >= 0
}

func (c *Controller) slot(n *node, name string) *slot {
	s := n.slots[name]
	if s == nil {
		s = &slot{pauses: backoff.NewExponentialBackOff()}
		s.pauses.InitialInterval, s.pauses.MaxInterval, s.pauses.Multiplier = c.o.Backoff, longestBackoff, 2
		s.pauses.Reset()
		n.slots[name] = s
	}
	return s
}

func (c *Controller) say(e Event) {
	c.journal.add(e)
	c.o.Logger.Info().Str("what", e.Type).Str("name", e.Name).Str("replica", e.Slot).Uint32("node", e.Node).Str("text", e.Text).Msg("controller")
}

// see takes in a change of the member set.
func (c *Controller) see(ctx context.Context, e cluster.Event) {
	m := e.Member
	if _, unwanted := c.unwanted[m.LaunchID]; unwanted && e.Type != cluster.EventLeave && !m.Leaving {
		c.callNode(ctx, m, DrainMethod)
	}
	for _, n := range c.nodes {
		if n.owns(m) {
			c.count(n, time.Now()) // with who was there until now
		}
	}
	before := c.members[m.ID]
	if e.Type == cluster.EventLeave {
		delete(c.members, m.ID)
	} else {
		c.members[m.ID] = m
	}
	for _, n := range c.nodes {
		if n.isHome(m) {
			c.seeHome(n, e, before)
		}
		if !n.owns(m) {
			continue
		}
		s := c.slot(n, m.Slot)
		switch {
		case e.Type == cluster.EventLeave:
			c.ended(n, s, m)
		case m.Holds():
			c.settle(n, s, m)
		}
	}
}

// settle notes how a replica does.
func (c *Controller) settle(n *node, s *slot, m cluster.Member) {
	now := time.Now()
	if m.State == cluster.StateLost {
		if s.lost.IsZero() {
			s.lost = now
		}
		return
	}
	s.pending, s.lost = time.Time{}, time.Time{}
	s.known = s.known || m.LaunchID == c.launchID(n, m.Slot)
	if s.holder != m.ID {
		s.holder, s.running, s.renewal, s.askedLoad, s.drained = m.ID, time.Time{}, time.Time{}, time.Time{}, time.Time{}
		if m.LaunchID != c.launchID(n, m.Slot) { // the last launch may have been made to follow it
			s.renewal = c.expected(n, m.Slot)
		}
	}
	if m.State == cluster.StateRunning {
		s.tell(nil)
	}
	if m.State == cluster.StateRunning && s.running.IsZero() {
		s.running = now
		text := ""
		if l := n.Slots[m.Slot]; m.LaunchID == c.launchID(n, m.Slot) && l.At.After(c.since) {
			text = fmt.Sprintf("%d ms after its launch", now.Sub(l.At).Milliseconds())
		}
		c.say(Event{Type: EventRunning, Name: n.Name, Slot: m.Slot, Node: m.ID, Text: text})
	}
}

func (c *Controller) launchID(n *node, slot string) string {
	return cluster.LaunchID(n.token(c.o.Secret, slot))
}

// ended: a replica left, or is gone for good.
func (c *Controller) ended(n *node, s *slot, m cluster.Member) {
	if holder, held := c.holder(m.Slot); held {
		// A successor that came to nothing, or a holder that has one.
		if why := reasonOf(m); m.Succeeds != 0 && m.Succeeds == holder.ID {
			s.renewal = time.Time{}
			c.fail(n, s, m.Slot, "the successor: "+why)
		} else {
			c.say(Event{Type: EventEnded, Name: n.Name, Slot: m.Slot, Node: m.ID, Text: fmt.Sprintf("node-%d has its slot", holder.ID)})
		}
		return
	}
	if m.Retired { // let go: its end is nothing to the slot's next life
		c.say(Event{Type: EventEnded, Name: n.Name, Slot: m.Slot, Node: m.ID, Text: "as asked"})
		return
	}
	ran := time.Duration(0)
	if !s.running.IsZero() {
		ran = time.Since(s.running)
	}
	asked := !s.drained.IsZero()
	// For who fell silent, or was to be followed, another launch was made: that still comes.
	if s.renewal.After(time.Now()) {
		s.pending = s.renewal
	}
	launched := !s.pending.IsZero() && m.LaunchID != c.launchID(n, m.Slot)
	s.running, s.lost, s.drained, s.renewal = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if !launched {
		s.pending = time.Time{}
	}
	why := reasonOf(m)
	if asked {
		why = "as asked"
	}
	c.say(Event{Type: EventEnded, Name: n.Name, Slot: m.Slot, Node: m.ID, Text: fmt.Sprintf("%s, after %s", why, ran.Round(time.Millisecond))})
	switch {
	case asked, launched:
	case ran >= c.o.Stable:
		s.failures, s.reason, s.notBefore = 0, "", time.Time{}
		s.pauses.Reset()
	default:
		c.fail(n, s, m.Slot, why)
	}
}

// reasonOf a member's end, as it said last.
func reasonOf(m cluster.Member) string {
	switch g := m.Guest; {
	case g.Error != "":
		return g.Error
	case g.ExitCode != nil:
		return fmt.Sprintf("its guest ended with exit status %d", *g.ExitCode)
	case m.State == cluster.StateLost:
		return "it fell silent"
	}
	return "it left"
}

// fail puts the next launch of a slot off.
func (c *Controller) fail(n *node, s *slot, name, why string) {
	s.failures++
	why = clipped(why) // of every slot it is told in one message
	s.reason = why
	pause := s.pauses.NextBackOff()
	s.notBefore = time.Now().Add(pause)
	c.say(Event{Type: EventFailed, Name: n.Name, Slot: name,
		Text: fmt.Sprintf("%s; failure %d in a row, the next launch is in %s", why, s.failures, pause.Round(time.Millisecond))})
	s.tell(asleep("%s did not start: %s", name, why))
}

// holder is the live member that a slot stands for.
func (c *Controller) holder(slot string) (cluster.Member, bool) {
	for _, m := range c.members {
		if m.Slot == slot && c.holds(m) {
			return m, true
		}
	}
	return cluster.Member{}, false
}

// holders are the members that slots stand for.
func (c *Controller) holders() map[string]cluster.Member {
	all := make(map[string]cluster.Member, len(c.members))
	for _, m := range c.members {
		if c.holds(m) {
			all[m.Slot] = m
		}
	}
	return all
}

// holds: m has its slot. A holder is seen to be retired before its successor is seen
// to hold the slot, though both came at once: nobody may be launched in between.
func (c *Controller) holds(m cluster.Member) bool {
	before, known := c.members[m.Succeeds]
	return m.Holds() || known && before.Retired && !m.Retired
}
