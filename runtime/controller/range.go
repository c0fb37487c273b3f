// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// Metrics that a node can be scaled by, each summed over its replicas.
const (
	MetricCPU         = "cpu"          // CPUs that the guests' processes use
	MetricConnections = "connections"  // open ones into the guests' listeners
	MetricAcceptQueue = "accept_queue" // those that no guest has accepted yet
)

const (
	defaultCooldown = 60 // seconds
	longestCooldown = 24 * 60 * 60
)

// Scale keeps a metric at a target for each replica.
type Scale struct {
	Metric string  `json:"metric"`
	Target float64 `json:"target"` // of one replica

	// CooldownS is for how many seconds fewer replicas must do before there are
	// fewer. 0: 60.
	CooldownS int `json:"cooldown_s,omitempty"`
}

// Check reports the first thing wrong.
func (s *Scale) Check() error {
	switch s.Metric {
	case MetricCPU, MetricConnections, MetricAcceptQueue:
	default:
		return fmt.Errorf("metric %q: want %s, %s or %s", s.Metric, MetricCPU, MetricConnections, MetricAcceptQueue)
	}
	if !(s.Target > 0) || math.IsInf(s.Target, 0) {
		return fmt.Errorf("target %g: want how much %s one replica shall have, more than 0", s.Target, s.Metric)
	}
	if s.CooldownS < 0 || s.CooldownS > longestCooldown {
		return fmt.Errorf("cooldown of %d s: want 1 to %d, or 0 for %d", s.CooldownS, longestCooldown, defaultCooldown)
	}
	return nil
}

// ErrOutOfRange says that there may not be so many replicas, or so few.
var ErrOutOfRange = &cluster.RemoteError{Code: "out_of_range"}

// checkRange checks what is said of the number of replicas.
func (d *Declaration) checkRange() error {
	switch {
	case d.StandbyFor != "":
		if err := config.CheckName(d.StandbyFor); err != nil {
			return fmt.Errorf("function node %q: standby for: %w", d.Name, err)
		}
		if d.Min != 0 || d.Max != 0 || d.Scale != nil {
			return fmt.Errorf("function node %q stands by for %q: there is one replica then or none, and no range or scale", d.Name, d.StandbyFor)
		}
	case d.Max == 0 && d.Min != 0:
		return fmt.Errorf("function node %q: at least %d replicas, but no most: min_count needs max_count", d.Name, d.Min)
	case d.Min < 0 || d.Max < d.Min || d.Max > MaxCount:
		return fmt.Errorf("function node %q: from %d to %d replicas: want 0 <= min_count <= max_count <= %d", d.Name, d.Min, d.Max, MaxCount)
	case d.Scale != nil && d.Max == 0:
		return fmt.Errorf("function node %q: scaled by %s, but without a range: min_count, max_count", d.Name, d.Scale.Metric)
	case d.Scale != nil:
		if err := d.Scale.Check(); err != nil {
			return fmt.Errorf("function node %q: scale: %w", d.Name, err)
		}
	}
	if d.Count == -1 {
		return nil
	}
	return d.checkCount(d.Count)
}

// limits are the fewest replicas there may be, and the most.
func (d *Declaration) limits() (low, high int) {
	switch {
	case d.StandbyFor != "":
		return 0, 1
	case d.Max > 0:
		return d.Min, d.Max
	}
	return 0, MaxCount
}

func (d *Declaration) checkCount(count int) error {
	low, high := d.limits()
	if count >= low && count <= high {
		return nil
	}
	by := ""
	if d.Max > 0 {
		by = " (min_count, max_count)"
	}
	return &cluster.RemoteError{Code: ErrOutOfRange.Code, Message: fmt.Sprintf("%s: %d replicas: want %d to %d%s", d.Name, count, low, high, by)}
}

// first is how many replicas a new node has of which no number is declared.
func (d *Declaration) first() int {
	if low, _ := d.limits(); d.StandbyFor != "" || d.Max > 0 {
		return low
	}
	return 1
}

// settle is the number of replicas that d means, where there were some.
func (d *Declaration) settle(were int) int {
	if d.Count != -1 {
		return d.Count
	}
	low, high := d.limits()
	return min(max(were, low), high)
}

// Claimed tells which declared function node, by the seeds' notes, a slot is kept
// for; "": none.
func Claimed(notes map[string]json.RawMessage, slot string) string {
	name := slot[:max(0, strings.LastIndexByte(slot, '-'))]
	var d Declaration
	if json.Unmarshal(notes[keyPrefix+name], &d) != nil || d.Name != name || !d.claims(slot) {
		return ""
	}
	return name
}

// claims tells whether a slot is one of d's own: a standby's is another node's.
func (d *Declaration) claims(slot string) bool {
	i := d.index(slot)
	return d.StandbyFor == "" && i >= 0 && i < max(d.Count, d.Max)
}

// checkSlots: nobody else is where the replicas of d are to be.
func (c *Controller) checkSlots(d Declaration) error {
	for _, m := range c.members {
		if m.Kind != config.KindFunction && m.Holds() && d.claims(m.Slot) {
			return fmt.Errorf("function node %q: %q would be one of its replicas, and is the name of node %d (%s): choose another name for one of them, or stop that node first", d.Name, m.Slot, m.ID, m.Kind)
		}
	}
	return nil
}

func (d *Declaration) sizes() string {
	text := fmt.Sprintf("%d replicas", d.Count)
	if d.Max > 0 {
		text += fmt.Sprintf(", of %d to %d", d.Min, d.Max)
	}
	return text
}

// setCount gives n another number of replicas, from now on and for leaders after
// this one.
func (c *Controller) setCount(n *node, count int, why string) error {
	if err := n.checkCount(count); err != nil {
		return err
	}
	if count == n.Count {
		return nil
	}
	d := n.Declaration
	d.Count = count
	return c.change(n, d, why)
}

// change makes n what d declares: nothing else moves the number.
func (c *Controller) change(n *node, d Declaration, why string) error {
	to := n.kept
	to.Declaration = d
	if err := c.o.Store.Note(c.term, map[string]json.RawMessage{to.key(): to.encode()}); err != nil {
		return fmt.Errorf("%s: %d replicas, which cannot be kept: %w", d.Name, d.Count, err)
	}
	was := n.Count
	n.Declaration = d
	if c.nodes[d.Name] == n && was != d.Count {
		c.say(Event{Type: EventScaled, Name: n.Name, Text: fmt.Sprintf("%d -> %d: %s", was, d.Count, why)})
	}
	return nil
}
