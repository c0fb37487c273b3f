// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"fmt"

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
		invoker, err := controller.NewInvoker(n.cfg.Invoke)
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

// askedToLeave ends this node in order, as a seed's controller wants.
func (n *node) askedToLeave(_ context.Context, from uint32, _ json.RawMessage) (any, error) {
	s := n.view.current()
	if s == nil {
		return nil, cluster.ErrDisconnected
	}
	if m, ok := s.Member(from); !ok || m.Kind != config.KindSeed {
		return nil, fmt.Errorf("node %d is no seed: only those send nodes away", from)
	}
	n.log.Info().Uint32("seed", from).Msg("asked to leave")
	n.stopping(errStopped)
	return struct{}{}, nil
}
