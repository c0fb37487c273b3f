// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"time"
)

const (
	// retireLeast is how long a node whose slot has another holder goes on to
	// serve: others may not have heard of it yet.
	retireLeast = 2 * time.Second
	// retireMost is how long it waits for connections to end, if its platform
	// sets it no deadline.
	retireMost = time.Minute
	// retireStandby is the same for who stood in for a node that is back: two of a
	// kind with one name are more than many programs expect.
	retireStandby = 30 * time.Second
	// leaveMost is the same for a replica that is one too many, whatever its
	// deadline: connections that idle would keep it, and cost.
	leaveMost  = 20 * time.Second
	retireTick = 100 * time.Millisecond
)

// retire is called when this node's successor has the slot, or nobody needs it.
func (n *node) retire() { n.retiring.Do(func() { close(n.retired) }) }

// awaitRetirement ends a node that retires, once no connection into its guest is
// open.
func (n *node) awaitRetirement(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.retired:
	}
	cause, leaving := errRetired, n.status.get().Leaving
	if leaving {
		cause = errStopped
	}
	n.log.Info().Str("why", cause.Error()).Msg("this node leaves when its guest's connections have ended")
	began, quiet := time.Now(), 0
	for tick := time.NewTicker(retireTick); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		age := time.Since(began)
		if age < retireLeast {
			continue
		}
		open, err := n.sockets.Open()
		if quiet++; err != nil || open > 0 {
			quiet = 0
		}
		late := n.o.Deadline.IsZero() && age >= retireMost || n.cfg.Standby && age >= retireStandby || leaving && age >= leaveMost
		// A list taken while sockets come and go may lack one: look twice.
		if quiet >= 2 || late {
			n.log.Info().Int("connections", open).Dur("after", age).Msg("leaving")
			n.stopping(cause)
			return nil
		}
	}
}
