// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// What is missing at the barrier is told by and by, not with every change: many
// nodes that wait for each other would tell all of them each time.
const (
	barrierTick = time.Second
	barrierWord = 5 * barrierTick
	maxWaitsFor = 1024
)

// missing says what of waitFor is not there yet. Members count when they run, one
// of each slot.
// Those of the node's own service, and all in "nodes", count as soon as they
// are present: nodes that wait for each other would wait for ever.
func missing(waitFor map[string]int, self cluster.Member, members []cluster.Member) []string {
	var absent []string
	for _, name := range slices.Sorted(maps.Keys(waitFor)) {
		have := 0
		for _, m := range members {
			if m.Kind == config.KindSeed || !m.Holds() {
				continue
			}
			present := m.State == cluster.StateRunning || m.State == cluster.StateStarting
			switch {
			case name == config.WaitNodes, m.Service == name && name == self.Service:
				if present {
					have++
				}
			case m.Service == name || m.Slot == name:
				if m.State == cluster.StateRunning {
					have++
				}
			}
		}
		if want := waitFor[name]; have < want {
			absent = append(absent, fmt.Sprintf("%s: %d of %d", name, have, want))
		}
	}
	return absent
}

// checkBarrier opens the barrier, for good, when nothing is missing.
func (n *node) checkBarrier(members []cluster.Member) {
	select {
	case <-n.barrier:
		return
	default:
	}
	if len(missing(n.cfg.WaitFor, n.session.Self(), members)) == 0 {
		close(n.barrier)
	}
}

// await returns when the barrier is open.
func (n *node) await(ctx context.Context) error {
	tick := time.NewTicker(barrierTick)
	defer tick.Stop()
	for beat := 0; ; beat++ {
		select {
		case <-n.barrier:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		absent := strings.Join(missing(n.cfg.WaitFor, n.session.Self(), n.session.Members()), ", ")
		if n.o.Waiting != nil && absent != "" {
			n.o.Waiting(absent)
		}
		if beat%int(barrierWord/barrierTick) == 0 {
			n.log.Info().Str("missing", absent).Msg("the guest waits for others (wait_for)")
			n.say(func(st *cluster.Status) { st.Guest.WaitsFor = absent[:min(len(absent), maxWaitsFor)] })
		}
	}
}
