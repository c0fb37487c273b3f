// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/transport"
)

const (
	// loadInterval is how often a relay may say what it carries; everybody is told.
	loadInterval = 2 * time.Second
	// drainTime is how long open connections may go on when a relay leaves.
	drainTime = 5 * time.Second
)

// relaying: others may meet at this node's overlay port.
func (n *node) relaying() bool {
	return n.seed != nil || n.cfg.Kind == config.KindVM && !n.hidden()
}

// relays are the nodes where this one may meet others, dialled as it can: seeds,
// at their own addresses or at the endpoints a laptop was given, and VMs that
// can be dialled.
func (n *node) relays() []transport.RelayNode {
	s := n.view.current()
	if s == nil {
		return nil
	}
	var all []transport.RelayNode
	for _, m := range s.Members() {
		if one, ok := n.relayOf(m); ok {
			all = append(all, one)
		}
	}
	return all
}

// relayOf is a member where this node may meet others, if it is one.
func (n *node) relayOf(m cluster.Member) (transport.RelayNode, bool) {
	one := transport.RelayNode{ID: m.ID, Endpoint: n.relayEndpoint(m), Seed: m.Kind == config.KindSeed}
	if m.Relay != nil {
		one.Load = m.Relay.Pairs
	}
	return one, one.Endpoint != "" && m.State != cluster.StateLost && (m.Relay == nil || !m.Relay.Draining)
}

// relayEndpoint is where this node dials a relay; "" if it cannot.
func (n *node) relayEndpoint(m cluster.Member) string {
	seed := m.Kind == config.KindSeed // one of an older version does not say that it relays
	switch {
	case seed && n.cfg.Reach == config.ReachSeeds:
		return n.endpointOf(m)
	case n.cfg.Reach == config.ReachSeeds:
	case seed, m.Relay != nil && m.NAT == cluster.NATNone: // all others can dial it, too
		at, ok := transport.Place(n.view.Self(), m)
		if ok || seed && at.IsValid() {
			return at.String()
		}
	}
	return ""
}

// announceLoad says what this relay carries when that has changed much.
func (n *node) announceLoad(ctx context.Context) error {
	if !n.relaying() {
		return nil
	}
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	for said := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if now := n.transport.Usage().Pairs; differs(said, now) {
			said = now
			n.sayRelay(func(r *cluster.Relay) { r.Pairs = now })
		}
	}
}

// differs: by more than an eighth, or from none.
func differs(said, now int) bool {
	d := max(said-now, now-said)
	return 8*d > max(said, now)
}

// sayRelay changes a copy: the status that was said before is compared with it.
func (n *node) sayRelay(change func(*cluster.Relay)) {
	n.say(func(st *cluster.Status) {
		if st.Relay == nil {
			return
		}
		r := *st.Relay
		change(&r)
		st.Relay = &r
	})
}

// drain sends those who want to meet here elsewhere: this node is about to leave.
func (n *node) drain() {
	n.draining.Do(func() {
		n.drainEnd = time.Now().Add(drainTime)
		n.transport.Drain()
		n.sayRelay(func(r *cluster.Relay) { r.Draining = true })
	})
}

// awaitDrained lets the connections that others have met for here go on for what
// is left of the time since drain.
func (n *node) awaitDrained() {
	n.drain()
	select {
	case <-n.transport.Drain():
	case <-time.After(time.Until(n.drainEnd)):
		n.log.Info().Int("connections", n.transport.Usage().Pairs).Msg("relayed connections are reset")
	}
}
