// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/process"
)

const (
	loadTick  = time.Second      // between looks; everybody is told
	loadOver  = 2                // looks that CPU time is averaged over
	loadStale = 10 * time.Second // then a small change is told as well
	leastCPU  = 0.02             // a smaller change of CPU is none
)

// askedForLoad: this node was launched without being asked.
func (n *node) askedForLoad(_ context.Context, from uint32, _ json.RawMessage) (any, error) {
	if err := n.bySeed(from); err != nil {
		return nil, err
	}
	n.asking.Do(func() { close(n.asked) })
	return struct{}{}, nil
}

// reportLoad says what the guest has to do, if somebody wants to know.
func (n *node) reportLoad(ctx context.Context) error {
	if n.cfg.Load {
		n.asking.Do(func() { close(n.asked) })
	}
	select {
	case <-ctx.Done():
		return nil
	case <-n.asked:
	}
	var told cluster.Load
	var last time.Time // told
	var cpu cpuMeter
	tick := time.NewTicker(loadTick)
	defer tick.Stop()
	for {
		now := cluster.Load{CPU: cpu.use(n.status.get().Guest.PID, time.Now())}
		var err error
		if now.Connections, now.AcceptQueue, err = n.sockets.Busy(); err != nil {
			n.log.Warn().Err(err).Msg("the guest's connections are not known")
		} else if last.IsZero() || changed(told, now) || now != told && time.Since(last) >= loadStale {
			told, last = now, time.Now()
			n.say(func(st *cluster.Status) { st.Load = &now })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// changed: by more than an eighth.
func changed(told, now cluster.Load) bool {
	d := math.Abs(told.CPU - now.CPU)
	return differs(told.Connections, now.Connections) || differs(told.AcceptQueue, now.AcceptQueue) ||
		d > leastCPU && 8*d > max(told.CPU, now.CPU)
}

// cpuMeter turns the CPU time of a guest into the CPUs it uses.
type cpuMeter struct {
	pid     int
	samples []cpuSample // the oldest first
}

type cpuSample struct {
	at   time.Time
	used time.Duration
}

// use is what the guest with that pid and its descendants use, on average over
// the last looks. What ended in between and nobody waited for is lost.
func (m *cpuMeter) use(pid int, now time.Time) float64 {
	if pid != m.pid {
		m.pid, m.samples = pid, nil // another run
	}
	used, err := process.TreeTime(pid)
	if pid == 0 || err != nil {
		m.samples = nil
		return 0
	}
	m.samples = append(m.samples, cpuSample{now, used})
	if len(m.samples) > loadOver+1 {
		m.samples = m.samples[1:]
	}
	first := m.samples[0]
	took := now.Sub(first.at)
	if took <= 0 || used <= first.used {
		return 0
	}
	return math.Round(100*float64(used-first.used)/float64(took)) / 100
}
