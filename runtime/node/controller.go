// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// makeController gives a seed its controller. It works once the node has joined.
func (n *node) makeController() error {
	if n.seed == nil {
		return nil
	}
	o := controller.Options{Secret: n.o.Secret, Store: n.seed, Network: membership{n}, Logger: n.log}
	if n.cfg.Invoke != "" {
		invoker, err := controller.NewInvoker(n.cfg)
		if err != nil {
			return err
		}
		o.Invoker = invoker
	}
	n.controller = controller.New(o)
	return nil
}

func (n *node) runController(ctx context.Context) error {
	if n.controller == nil {
		return nil
	}
	return n.controller.Run(ctx)
}

// membership is the seed's own, which the controller has from the join on.
type membership struct{ n *node }

func (m membership) Members() []cluster.Member { return m.n.session.Members() }

func (m membership) Subscribe() (<-chan cluster.Event, func()) { return m.n.session.Subscribe() }

func (m membership) Call(ctx context.Context, to uint32, method string, in, out any) error {
	return m.n.session.Call(ctx, to, method, in, out)
}

// writeControllerMetrics is what a seed's controller adds.
func (n *node) writeControllerMetrics(w io.Writer) {
	if n.controller == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	events, nodes := n.controller.Counts(ctx)
	for _, kind := range slices.Sorted(maps.Keys(events)) {
		metrics.WriteCounterUint64(w, series("boxer_controller_events_total", "type", kind), events[kind])
	}
	for _, v := range nodes {
		metrics.WriteGaugeUint64(w, series("boxer_replicas_declared", "name", v.Name), uint64(v.Count))
		metrics.WriteGaugeUint64(w, series("boxer_replicas_running", "name", v.Name), uint64(v.Running))
		metrics.WriteGaugeFloat64(w, series("boxer_gb_seconds_today", "name", v.Name), v.GBSeconds)
		if l := v.Load; l != nil {
			writeLoad(w, *l, "name", v.Name)
		}
	}
}

// writeLoad is what one guest has to do, or all of a node.
func writeLoad(w io.Writer, l cluster.Load, labels ...string) {
	metrics.WriteGaugeFloat64(w, series("boxer_load_cpu", labels...), l.CPU)
	metrics.WriteGaugeUint64(w, series("boxer_load_connections", labels...), uint64(l.Connections))
	metrics.WriteGaugeUint64(w, series("boxer_load_accept_queue", labels...), uint64(l.AcceptQueue))
}

// bySeed refuses what only a seed's controller may ask.
func (n *node) bySeed(from uint32) error {
	s := n.view.current()
	if s == nil {
		return cluster.ErrDisconnected
	}
	if m, ok := s.Member(from); !ok || m.Kind != config.KindSeed {
		return fmt.Errorf("node %d is no seed: only those may ask that", from)
	}
	return nil
}

// askedToLeave ends this node in order, as a seed's controller wants: names do not
// stand for it any more, and what is open may end.
func (n *node) askedToLeave(_ context.Context, from uint32, _ json.RawMessage) (any, error) {
	if err := n.bySeed(from); err != nil {
		return nil, err
	}
	n.log.Info().Uint32("seed", from).Msg("asked to leave")
	n.say(func(st *cluster.Status) { st.Leaving = true })
	n.retire()
	return struct{}{}, nil
}
