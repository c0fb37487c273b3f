// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// JoinToken needs the network's secret, but not that the network runs.
func (p *localPlatform) JoinToken(_ context.Context, network, slot, service string, expires time.Time) (cluster.Token, error) {
	store, err := p.store()
	if err != nil {
		return cluster.Token{}, err
	}
	info, err := store.Network(network)
	if errors.Is(err, localcloud.ErrNotFound) {
		return cluster.Token{}, errGone
	} else if err != nil {
		return cluster.Token{}, err
	}
	secret, err := (&config.Node{SecretRef: "file:" + info.SecretFile}).Secret()
	if err != nil {
		return cluster.Token{}, err
	}
	return cluster.NewToken(secret, cluster.Token{
		Network: network, Seeds: info.SeedEndpoints, Port: uint16(info.Port), Slot: slot, Service: service, Expires: expires,
	})
}
