// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// The calls a leading seed answers. All begin with Prefix: who has only a join
// token may not make them.
const (
	Prefix        = cluster.ControlPrefix
	MethodDeclare = Prefix + "declare" // Declaration -> View
	MethodRemove  = Prefix + "remove"  // Order -> View, as it was
	MethodScale   = Prefix + "scale"   // Resize -> Resized
	MethodView    = Prefix + "view"    // Order -> View
	MethodEvents  = Prefix + "events"  // Since -> []Event
	MethodClaimed = Prefix + "claimed" // Slot -> Order: of whose replica the slot is kept for, if any

	// For platforms that cannot do so themselves.
	MethodStop      = Prefix + "stop"      // Slot: who holds it leaves, when its connections have ended
	MethodConfigure = Prefix + "configure" // Slot: the VM node that holds it runs Node from now on
)

// Slot is about who holds it now.
type Slot struct {
	Slot string       `json:"slot"`
	Node *config.Node `json:"node,omitempty"`
}

// Order is about one declared node.
type Order struct {
	Name string `json:"name"`
	Stay bool   `json:"stay,omitempty"` // of remove: the replicas go on, and nobody keeps them
}

// Resize asks for another number of replicas of a declared node, within its range.
type Resize struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	Why   string `json:"why"` // for the events
}

// Resized is the node then.
type Resized struct {
	View
	Was int `json:"was"` // Count before
}

// Since asks for the events after one, and to wait so long for the first.
type Since struct {
	Seq    uint64 `json:"seq"`
	WaitMS int64  `json:"wait_ms"`
}

// View is a declared node as it is now.
type View struct {
	Name      string        `json:"name"`
	Count     int           `json:"count"`
	Running   int           `json:"running"`
	Min       int           `json:"min,omitempty"` // of Count, and Max; none: it is as declared
	Max       int           `json:"max,omitempty"`
	Scale     *Scale        `json:"scale,omitempty"`
	Standby   string        `json:"standby_for,omitempty"`
	Budget    float64       `json:"gb_seconds_per_day,omitempty"`
	GBSeconds float64       `json:"gb_seconds_today"`
	Load      *cluster.Load `json:"load,omitempty"` // of all that say it
	Slots     []SlotView    `json:"slots"`
}

// SlotView is one of its slots.
type SlotView struct {
	Slot     string    `json:"slot"`
	State    string    `json:"state"` // of its member, or launching, waiting
	Node     uint32    `json:"node,omitempty"`
	LaunchID string    `json:"launch_id,omitempty"` // of its last launch
	Failures int       `json:"failures,omitempty"`  // of launches, in a row
	Reason   string    `json:"reason,omitempty"`    // of the last failure
	Next     time.Time `json:"next,omitzero"`       // when it is launched again
}

// ErrNotDeclared says that nobody keeps a node of that name.
var ErrNotDeclared = &cluster.RemoteError{Code: "not_declared"}

func notDeclared(name string) error {
	return &cluster.RemoteError{Code: ErrNotDeclared.Code, Message: fmt.Sprintf("the controller keeps no function node %q: scale it with boxer scale, or declare it", name)}
}

var (
	errRemoved    = errors.New("the function node was removed meanwhile: declare it again")
	errNoPlatform = errors.New("this network's seeds cannot launch functions: they were told of no platform")
)

// Handlers are the calls that this controller answers.
func (c *Controller) Handlers() map[string]cluster.Handler {
	return map[string]cluster.Handler{
		MethodDeclare:   handler(c, c.declare),
		MethodRemove:    handler(c, c.remove),
		MethodScale:     handler(c, c.resize),
		MethodView:      handler(c, c.look),
		MethodClaimed:   handler(c, c.claimed),
		MethodStop:      handler(c, c.stopSlot),
		MethodConfigure: handler(c, c.configure),
		MethodWake: func(ctx context.Context, from uint32, in json.RawMessage) (any, error) {
			return handler(c, func(_ context.Context, w Wake) (func(context.Context) (any, error), error) { return c.wake(from, w) })(ctx, from, in)
		},
		MethodEvents: func(ctx context.Context, _ uint32, in json.RawMessage) (any, error) {
			var since Since
			if err := json.Unmarshal(in, &since); err != nil {
				return nil, err
			}
			return c.journal.after(ctx, since.Seq, time.Duration(min(since.WaitMS, 25_000))*time.Millisecond), nil
		},
	}
}

// handler is a call whose work is done where all is known, by a leader.
func handler[In any](c *Controller, work func(ctx context.Context, in In) (wait func(context.Context) (any, error), err error)) cluster.Handler {
	return func(ctx context.Context, _ uint32, body json.RawMessage) (any, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		var wait func(context.Context) (any, error)
		err := cluster.ErrNotLeading
		if stopped := c.do(ctx, func() {
			if c.turn(); c.leads {
				wait, err = work(ctx, in)
			}
		}); stopped != nil {
			err = stopped
		}
		if errors.Is(err, cluster.ErrNotLeading) {
			err = notLeader()
		}
		if err != nil || wait == nil {
			return struct{}{}, err
		}
		return wait(ctx)
	}
}

func notLeader() error {
	return &cluster.RemoteError{Code: cluster.CodeNotLeader, Message: "another seed decides what is launched now: ask that one"}
}

func (c *Controller) declare(ctx context.Context, d Declaration) (func(context.Context) (any, error), error) {
	if c.o.Invoker == nil {
		return nil, errNoPlatform
	}
	if err := d.Check(); err != nil {
		return nil, err
	}
	if err := c.checkStandby(d); err != nil {
		return nil, err
	}
	d.Node.Slot, d.Node.LaunchToken = "", ""
	if d.StandbyFor != "" {
		d.Count = -1 // its home decides
	}
	n := c.nodes[d.Name]
	var before Declaration
	if n != nil {
		before = n.Declaration
	}
	if n == nil {
		n = &node{kept: kept{Nonce: nonce(), Slots: map[string]launch{}}}
		d.Count = d.settle(d.first())
	} else {
		d.Count = d.settle(n.Count)
	}
	if err := c.checkSlots(d); err != nil {
		return nil, err
	}
	if err := c.change(n, d, "declared"); err != nil {
		return nil, fmt.Errorf("declare %q: %w", d.Name, err)
	}
	if c.nodes[d.Name] == nil {
		c.adopt(n)
	} else if before.StandbyFor != d.StandbyFor {
		c.rehome(ctx, n, before)
	}
	n.forgive() // it may be mended now
	c.say(Event{Type: EventDeclared, Name: n.Name, Text: n.sizes()})
	return c.viewSoon(n.Name), nil
}

func (c *Controller) resize(_ context.Context, r Resize) (func(context.Context) (any, error), error) {
	n := c.nodes[r.Name]
	if n == nil {
		return nil, notDeclared(r.Name)
	}
	if len(r.Why) > 64 || strings.ContainsFunc(r.Why, unicode.IsControl) {
		return nil, errors.New("the reason is for one line: want 64 bytes at most, none of them control characters")
	}
	wanted := n.Declaration
	wanted.Count = r.Count
	if err := c.checkSlots(wanted); err != nil {
		return nil, err
	}
	was, woken := n.Count, n.Woken
	n.Woken = false // whoever asks for so many wants to keep them
	err := c.setCount(n, r.Count, r.Why)
	if err == nil && r.Count == was && woken {
		err = c.change(n, n.Declaration, r.Why) // for the next leader, too
	}
	if err != nil {
		n.Woken = woken
		return nil, err
	}
	n.forgive()
	soon := c.viewSoon(n.Name)
	return func(ctx context.Context) (any, error) {
		view, err := soon(ctx)
		if err != nil {
			return nil, err
		}
		return Resized{View: view.(View), Was: was}, nil
	}, nil
}

func (c *Controller) look(_ context.Context, o Order) (func(context.Context) (any, error), error) {
	if c.nodes[o.Name] == nil {
		return nil, notDeclared(o.Name)
	}
	return c.viewSoon(o.Name), nil
}

func (c *Controller) claimed(_ context.Context, s Slot) (func(context.Context) (any, error), error) {
	name := Claimed(c.o.Store.Notes(), s.Slot)
	return func(context.Context) (any, error) { return Order{Name: name}, nil }, nil
}

// forgive lets slots that wait after failures be launched at once.
func (n *node) forgive() {
	for _, s := range n.slots {
		s.notBefore, s.failures, s.reason = time.Time{}, 0, ""
		s.pauses.Reset()
	}
}

// viewSoon looks once what is to be done has been begun.
func (c *Controller) viewSoon(name string) func(context.Context) (any, error) {
	return func(ctx context.Context) (view any, err error) {
		err = errRemoved
		if stopped := c.do(ctx, func() {
			if n := c.nodes[name]; n != nil {
				view, err = c.view(n), nil
			}
		}); stopped != nil {
			err = stopped
		}
		return view, err
	}
}

func (c *Controller) remove(ctx context.Context, o Order) (func(context.Context) (any, error), error) {
	n := c.nodes[o.Name]
	if n == nil {
		return nil, nil
	}
	view := c.view(n)
	if err := c.o.Store.Note(c.term, map[string]json.RawMessage{n.key(): nil}); err != nil {
		return nil, fmt.Errorf("remove %q: %w", o.Name, err)
	}
	delete(c.nodes, o.Name)
	n.tellAll(asleep("%s was removed meanwhile", o.Name))
	c.say(Event{Type: EventRemoved, Name: o.Name})
	if !o.Stay {
		c.sendAway(context.WithoutCancel(ctx), n)
	}
	return func(context.Context) (any, error) { return view, nil }, nil
}

// sendAway has the replicas of a node that was removed leave: those that are there,
// and those that were launched and are still to come.
func (c *Controller) sendAway(ctx context.Context, n *node) {
	now := time.Now()
	maps.DeleteFunc(c.unwanted, func(_ string, until time.Time) bool { return now.After(until) })
	for slot, l := range n.Slots {
		if until := l.At.Add(latestEvent); now.Before(until) {
			c.unwanted[c.launchID(n, slot)] = until
		}
	}
	for _, m := range c.members {
		if n.owns(m) {
			c.callNode(ctx, m, DrainMethod)
		}
	}
}

func (c *Controller) holderOf(slot string) (cluster.Member, error) {
	m, held := c.holder(slot)
	if !held {
		return m, &cluster.RemoteError{Code: cluster.CodeNoSuchNode, Message: fmt.Sprintf("nobody holds slot %q", slot)}
	}
	return m, nil
}

// stopSlot sends away who holds a slot. Nobody does: it is done.
func (c *Controller) stopSlot(ctx context.Context, s Slot) (func(context.Context) (any, error), error) {
	if m, err := c.holderOf(s.Slot); err == nil {
		c.callNode(context.WithoutCancel(ctx), m, DrainMethod)
	}
	return nil, nil
}

// configure passes another document on to the node that holds a slot.
func (c *Controller) configure(_ context.Context, s Slot) (func(context.Context) (any, error), error) {
	m, err := c.holderOf(s.Slot)
	if err == nil && s.Node == nil {
		err = errors.New("no configuration is given")
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (any, error) {
		return struct{}{}, c.o.Network.Call(ctx, m.ID, ConfigureMethod, s.Node, nil)
	}, nil
}

// Counts are what this controller did so far, by type of event, and the declared
// nodes as they are now: none if this seed does not lead.
func (c *Controller) Counts(ctx context.Context) (events map[string]uint64, nodes []View) {
	_ = c.do(ctx, func() {
		for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
			nodes = append(nodes, c.view(c.nodes[name]))
		}
	})
	return c.journal.counts(), nodes
}

func (c *Controller) view(n *node) View {
	v := View{Name: n.Name, Count: n.Count, Min: n.Min, Max: n.Max, Scale: n.Scale, Standby: n.StandbyFor, Budget: n.Budget, GBSeconds: n.Spent.GBSeconds, Slots: []SlotView{}}
	for i := range n.Count {
		name := n.slot(i)
		s := c.slot(n, name)
		sv := SlotView{Slot: name, State: "waiting", Failures: s.failures, Reason: s.reason}
		if n.Slots[name].Generation > 0 {
			sv.LaunchID = c.launchID(n, name)
		}
		switch m, held := c.holder(name); {
		case held:
			sv.State, sv.Node = m.State, m.ID
			if m.State == cluster.StateRunning && n.owns(m) {
				v.Running++
			}
		case s.invoking || !s.pending.IsZero():
			sv.State = "launching"
		default:
			sv.Next = s.notBefore
		}
		v.Slots = append(v.Slots, sv)
	}
	if w := c.weigh(n, c.holders()); w.told > 0 {
		v.Load = &w.Load
	}
	return v
}
