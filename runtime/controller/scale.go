// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// slack keeps what was scaled in from being scaled out at once: fewer replicas
// are enough only if each would have this part of its target at most.
const slack = 0.9

// scaling is what is remembered of a node that a metric scales.
type scaling struct {
	grown time.Time // when there were more last
	since time.Time // fewer would do since then
	most  int       // but not fewer than these
}

// weight is what the replicas of a node have to do.
type weight struct {
	cluster.Load
	told   int // replicas that said so
	silent int // replicas that did not, or do not run
}

// of the metric that scales a node.
func (w *weight) of(metric string) float64 {
	switch metric {
	case MetricConnections:
		return float64(w.Connections)
	case MetricAcceptQueue:
		return float64(w.AcceptQueue)
	}
	return w.CPU
}

// weigh adds up what the replicas say they have to do.
func (c *Controller) weigh(n *node, holders map[string]cluster.Member) (w weight) {
	for i := range n.Count {
		m, held := holders[n.slot(i)]
		if !held || m.State != cluster.StateRunning || m.Load == nil {
			w.silent++
			continue
		}
		w.told++
		w.CPU += m.Load.CPU
		w.Connections += m.Load.Connections
		w.AcceptQueue += m.Load.AcceptQueue
	}
	return w
}

// scale moves the number of replicas so that each has its target of the metric,
// and says when to look again: up at once, but not before those that were
// launched last had their time to join, for they change what is measured; down
// when fewer would have done for the whole cooldown.
func (c *Controller) scale(ctx context.Context, n *node, holders map[string]cluster.Member, now time.Time) (again time.Time) {
	if n.Scale == nil || n.Count == 0 {
		return time.Time{}
	}
	again = c.askForLoads(ctx, n, holders, now)
	w := c.weigh(n, holders)
	load := w.of(n.Scale.Metric)
	s := &n.scaling
	switch need := n.replicasFor(load, 1); {
	case need > n.Count && c.overBudget(n):
		s.since = time.Time{}
		return again
	case need > n.Count && w.silent > 0 && now.Before(s.grown.Add(c.o.Patience)):
		s.since = time.Time{}
		return earlier(again, s.grown.Add(c.o.Patience))
	case need > n.Count:
		s.since, s.grown = time.Time{}, now
		return earlier(again, c.scaleTo(n, need, load, now))
	}
	need := n.replicasFor(load, slack)
	if need >= n.Count {
		s.since = time.Time{}
		return again
	}
	if s.since.IsZero() {
		s.since, s.most = now, need
	}
	s.most = max(s.most, need)
	if w.silent > 0 { // nobody knows what they have to do
		return again
	}
	if at := s.since.Add(c.cooldown(n)); now.Before(at) {
		return earlier(again, at)
	}
	s.since = time.Time{}
	return earlier(again, c.scaleTo(n, s.most, load, now))
}

// replicasFor a load, if each shall have this part of its target. The last one
// goes when nobody uses it (wake.go), whatever the metric.
func (n *node) replicasFor(load, part float64) int {
	need := math.Ceil(load/(n.Scale.Target*part) - 1e-9)
	return int(min(max(need, float64(n.Min), 1), float64(n.Max)))
}

func (c *Controller) scaleTo(n *node, count int, load float64, now time.Time) (again time.Time) {
	why := fmt.Sprintf("%s %s, target %s each", n.Scale.Metric, plain(load), plain(n.Scale.Target))
	if err := c.setCount(n, count, why); err != nil {
		if !errors.Is(err, cluster.ErrNotLeading) {
			c.o.Logger.Error().Err(err).Str("name", n.Name).Msg("not scaled")
		}
		return now.Add(time.Second)
	}
	return time.Time{}
}

// askForLoads asks the replicas that were launched without being asked.
func (c *Controller) askForLoads(ctx context.Context, n *node, holders map[string]cluster.Member, now time.Time) (again time.Time) {
	for i := range n.Count {
		m, held := holders[n.slot(i)]
		if !held || m.State != cluster.StateRunning || m.Load != nil {
			continue
		}
		s := c.slot(n, m.Slot)
		at := s.askedLoad.Add(c.o.Again)
		if !now.Before(at) {
			s.askedLoad, at = now, now.Add(c.o.Again)
			c.callNode(ctx, m, LoadMethod)
		}
		again = earlier(again, at)
	}
	return again
}

// earlier of two times, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func plain(x float64) string { return strconv.FormatFloat(math.Round(x*100)/100, 'g', -1, 64) }
