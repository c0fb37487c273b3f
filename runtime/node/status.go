// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

const (
	settleTime  = 2 * time.Second  // a guest that listens on nothing is ready after it
	publishTime = 30 * time.Second // published ports are waited for so long
	readyTick   = 200 * time.Millisecond
	maxSaid     = 4096 // bytes of an error, and listeners: with more a status is not taken at all
)

// statusBoard is what this node says of itself.
type statusBoard struct {
	saying sync.Mutex // held while a change is made and announced

	mu      sync.Mutex
	now     cluster.Status
	started time.Time // of the guest's current run
	ready   bool
}

func (b *statusBoard) get() cluster.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.now
	if st.State == "" {
		st.State, st.Guest.State = cluster.StateStarting, cluster.GuestWaiting
	}
	st.Listeners = slices.Clone(st.Listeners)
	return st
}

// say announces a change of status. Changes are announced in their order.
func (n *node) say(change func(*cluster.Status)) {
	b := &n.status
	b.saying.Lock()
	defer b.saying.Unlock()
	before := b.get()
	after := before
	change(&after)
	after.Guest.Error = after.Guest.Error[:min(len(after.Guest.Error), maxSaid)]
	after.Listeners = after.Listeners[:min(len(after.Listeners), maxSaid)]
	if reflect.DeepEqual(before, after) {
		return
	}
	b.mu.Lock()
	b.now = after
	b.mu.Unlock()
	if err := n.session.SetStatus(context.Background(), after); err != nil {
		n.log.Debug().Err(err).Msg("status not announced")
	}
}

// announce follows the guest's listeners, and notices when it is ready.
func (n *node) announce(ctx context.Context) error {
	tick := time.NewTicker(readyTick)
	defer tick.Stop()
	for {
		changed := n.sockets.Changed()
		if n.settled() {
			tick.Reset(time.Second)
		} else {
			tick.Reset(readyTick)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
		listeners := n.sockets.Listeners()
		n.say(func(st *cluster.Status) {
			st.Listeners = listeners
			if st.Guest.State == cluster.GuestRunning && n.isReady(listeners) {
				st.State = cluster.StateRunning
			}
		})
	}
}

// isReady: the guest listens, or has run for a while, and all published ports
// are served, which is not waited for endlessly.
func (n *node) isReady(listeners []uint16) bool {
	n.status.mu.Lock()
	defer n.status.mu.Unlock()
	if n.status.ready {
		return true
	}
	age := time.Since(n.status.started)
	ready := len(listeners) > 0 || age >= settleTime
	if n.cfg.Kind != config.KindSeed {
		for _, p := range n.cfg.Publish {
			ready = ready && (slices.Contains(listeners, uint16(p.Port)) || age >= publishTime)
		}
	}
	n.status.ready = ready
	return ready
}

func (n *node) settled() bool {
	n.status.mu.Lock()
	defer n.status.mu.Unlock()
	return n.status.ready || n.cfg.Kind == config.KindSeed
}
