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

// askTimeout bounds a question to the seed.
const askTimeout = 20 * time.Second

func (p *localPlatform) Members(ctx context.Context, network string) ([]cluster.Member, error) {
	store, err := p.store()
	if err != nil {
		return nil, err
	}
	info, err := store.Network(network)
	switch {
	case errors.Is(err, localcloud.ErrNotFound):
		return nil, errGone
	case err != nil || !info.Alive: // looking must not start it
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	session, err := launch.Observe(ctx, info)
	if err != nil {
		return nil, &explained{
			fmt.Errorf("the network runs, but its seed does not tell its members: %w", err),
			"Try again; if it stays so, read " + info.Directory + "/cloud.log",
		}
	}
	defer session.Close()
	return session.Members(), nil
}
