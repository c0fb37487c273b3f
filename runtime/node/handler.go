// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net/netip"
	"os"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/ipc"
	"github.com/boxer-overlay/boxer/runtime/transport"
)

// handler answers process monitors: sockets and transport know how.
type handler struct{ n *node }

func (h handler) Table(context.Context) (*os.File, error) { return h.n.table.File(), nil }

func (h handler) Listen(ctx context.Context, r ipc.ListenRequest) error {
	return h.n.sockets.Listen(ctx, r)
}

func (h handler) Accept(ctx context.Context, r ipc.AcceptRequest) (ipc.Accepted, func(bool), error) {
	return h.n.sockets.Accept(ctx, r)
}

func (h handler) Address(ctx context.Context, cookie uint64) (ipc.Addresses, error) {
	return h.n.sockets.Address(ctx, cookie)
}

func (h handler) Connect(ctx context.Context, r ipc.ConnectRequest) (ipc.Plan, error) {
	p, err := h.n.transport.Connect(ctx, transportRequest(r))
	return h.ipcPlan(p), err
}

func (h handler) Prompt(r ipc.ConnectRequest) (ipc.Plan, bool) {
	p, ok := h.n.transport.Prompt(transportRequest(r))
	return h.ipcPlan(p), ok
}

func transportRequest(r ipc.ConnectRequest) transport.Request {
	return transport.Request{Cookie: r.Cookie, To: r.To, V6: r.V6, Fallback: r.Fallback, Bound: r.Bound}
}

// ipcPlan: the classes are numbered as the actions are.
func (h handler) ipcPlan(p transport.Plan) ipc.Plan {
	if p.Class == transport.ClassNative {
		p.Addr = netip.AddrPortFrom(p.Addr.Addr(), h.n.sockets.KernelPort(p.Addr.Port()))
	}
	return ipc.Plan{Action: ipc.Action(p.Class), Addr: p.Addr, Preface: p.Preface, Local: p.Local, Syns: p.Syns, Held: p.Held, Ended: p.Ended}
}

// How often native connections are looked for: while there are some, and while
// there are none (whoever closes first leaves a trace for a minute).
const (
	sampleInterval = 250 * time.Millisecond
	sampleIdle     = time.Second
	sampleShare    = 50
	sampleMost     = 5 * time.Second // what took long may have waited for a CPU
	wordInterval   = time.Second
)

// countPaths looks for native connections, which nobody tells us of, and
// reports all counts once a second if they have changed.
func (n *node) countPaths(ctx context.Context) error {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	var reported map[cluster.Path]bool
	var word time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		began := time.Now()
		pause := sampleIdle
		if n.samplePaths() > 0 {
			pause = sampleInterval
		}
		if began.Sub(word) >= wordInterval {
			word, reported = began, n.reportPaths(reported)
		}
		// A node with very many sockets is looked at less often: counting may
		// not cost more than a small part of a core.
		tick.Reset(max(pause, min(sampleShare*time.Since(began), sampleMost)))
	}
}

// samplePaths returns how many native connections it saw.
func (n *node) samplePaths() int {
	sample, err := n.sockets.NativePeers()
	if err != nil {
		return 0
	}
	return n.transport.SampleNative(sample)
}

func (n *node) reportPaths(reported map[cluster.Path]bool) map[cluster.Path]bool {
	paths := n.transport.Paths()
	now := make(map[cluster.Path]bool, len(paths))
	changed := len(paths) != len(reported)
	for _, p := range paths {
		now[p] = true
		changed = changed || !reported[p]
	}
	if changed {
		n.session.ReportPaths(paths)
	}
	return now
}
