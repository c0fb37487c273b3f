// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// handOverTimeout is how long a slot's holder may take to be missed after it
// was stopped: the seed's silence limit and a little.
const handOverTimeout = 8 * time.Second

// nameTaken: what has the name could be imported instead of made.
func nameTaken(spec nodeSpec, holder string) error {
	return takenBy(spec, spec.Name, holder, fmt.Sprintf("Import it with \"terraform import ADDRESS %s,%s\" (ADDRESS is this resource's), stop", spec.Network, spec.Name))
}

func takenBy(spec nodeSpec, slot, holder, remedy string) error {
	return &explained{
		fmt.Errorf("name %q is taken in network %q by %s, which this resource did not create", slot, spec.Network, holder),
		fmt.Sprintf("%s it with \"boxer stop --network %s %s\", or choose another name.", remedy, spec.Network, slot)}
}

// slotFree waits until no live member holds the slot: one that was just stopped
// may still be counted for a moment. It also proves that the seed answers
// before anything is made.
func (p *localPlatform) slotFree(outer context.Context, client *localcloud.Client, spec nodeSpec, slot string) error {
	ctx, cancel := context.WithTimeout(outer, min(handOverTimeout, p.patience))
	defer cancel()
	session, err := launch.Observe(ctx, client.Info())
	if err != nil && outer.Err() != nil {
		return outer.Err()
	}
	if err != nil {
		return seedProblem(spec.Network, err)
	}
	defer session.Close()
	for {
		holder, held := liveHolder(session.Members(), slot)
		if !held {
			return nil
		}
		select {
		case <-session.Changed():
		case <-ctx.Done():
			if err := outer.Err(); err != nil {
				return err // interrupted
			}
			return takenBy(spec, slot, fmt.Sprintf("node %d (%s, running since %s)", holder.ID, holder.Kind, holder.Since.Format(time.DateTime)), "Stop")
		}
	}
}

// liveHolder: a standby gives the slot to its own node.
func liveHolder(members []cluster.Member, slot string) (cluster.Member, bool) {
	for _, m := range members {
		if m.Slot == slot && m.Holds() && !m.Standby && m.State != cluster.StateLost && m.State != cluster.StateLeft {
			return m, true
		}
	}
	return cluster.Member{}, false
}

// seedProblem explains why the members of a network cannot be seen.
func seedProblem(network string, err error) error {
	switch {
	case errors.Is(err, cluster.ErrWrongSecret):
		return &explained{err, fmt.Sprintf("The secret file of network %q was changed after the network was made: restore it, or "+
			"destroy the network and apply again.", network)}
	case errors.Is(err, cluster.ErrUnreachable), errors.Is(err, cluster.ErrDisconnected):
		return &explained{fmt.Errorf("the seed of network %q does not answer, and nodes cannot join without it: %w", network, err),
			fmt.Sprintf("\"boxer logs --network %s seed-0\" may say why. Replacing the network (terraform apply -replace) makes a new seed.", network)}
	}
	return err
}

func networkExists(name, dir string) error {
	return &explained{
		fmt.Errorf("network %q exists in %s and was created outside this configuration", name, dir),
		fmt.Sprintf("Import it with \"terraform import ADDRESS %s\" (ADDRESS is this resource's), delete it with \"boxer network delete %s\", "+
			"or choose another name.", name, name)}
}
