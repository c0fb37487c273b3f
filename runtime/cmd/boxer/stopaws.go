// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// stopOnAWS has a replica of a function leave. What else runs there is for Terraform to say.
func (g *globals) stopOnAWS(ctx context.Context, name string) error {
	asked := false
	err := g.observe(ctx, func(ctx context.Context, info localcloud.NetworkInfo, s *cluster.Session) error {
		members := s.Members()
		i := slices.IndexFunc(members, func(m cluster.Member) bool { return m.Slot == name && m.Holds() })
		if i < 0 || members[i].Kind != config.KindFunction {
			return notStopped(members, info.Name, name)
		}
		asked = true
		ctx, cancel := context.WithTimeout(ctx, scaleTime)
		defer cancel()
		w := waiting("the connections of " + name + " to end")
		defer w.done()
		if err := launch.ControlBy(ctx, s, controller.MethodStop, controller.Slot{Slot: name}, nil); err != nil {
			return err
		}
		for there := func(m cluster.Member) bool { return m.ID == members[i].ID && m.State != cluster.StateLost }; slices.ContainsFunc(s.Members(), there); {
			select {
			case <-s.Changed():
			case <-s.Done():
				return s.Err()
			case <-ctx.Done():
				return fmt.Errorf("it was asked to leave, and has not yet: %w", ctx.Err())
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("stop %q: %w", name, err)
	}
	if asked {
		return goesOn(ctx, err, stopGoesOn)
	}
	return err
}

// notStopped says what to do instead.
func notStopped(members []cluster.Member, network, name string) error {
	const terraform = "on aws Terraform says what runs: take it out of the configuration and apply"
	for _, m := range members {
		switch {
		case m.Slot != name && m.Name != name:
		case m.Kind == config.KindFunction:
			return fmt.Errorf("%s, or have no replicas of it: 'boxer scale %s 0'; one replica is stopped by its own name, such as %s", terraform, name, m.Slot)
		case m.Kind == config.KindVM:
			return fmt.Errorf("%s; the machine alone is stopped, and started, with 'aws ec2 stop-instances'", terraform)
		case m.Kind == config.KindSeed:
			return errors.New("it is a seed of the network, which goes with that: 'terraform destroy'")
		}
	}
	return fmt.Errorf("network %q runs no node of that name; see 'boxer nodes --platform aws --network %s' (a client is stopped where it runs)", network, network)
}
