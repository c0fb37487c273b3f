// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net/netip"
	"time"

	"github.com/boxer-overlay/boxer/runtime/aws"
	"github.com/boxer-overlay/boxer/runtime/config"
)

const (
	// metadataPatience: an instance's metadata may come up after its network.
	metadataPatience = 30 * time.Second
	// addressInterval: an instance may be given another public address while it runs,
	// an Elastic IP first of all, which it has only some time after it has booted.
	addressInterval = 30 * time.Second
	addressTime     = 5 * time.Second // to ask for it then
)

// publicAddress is where others than its site dial this node: 0.0.0.0: nowhere; the
// zero one: where its site does.
func (n *node) publicAddress(ctx context.Context) (netip.Addr, error) {
	switch n.cfg.PublicAddress {
	case "":
		return netip.Addr{}, nil
	case config.PublicNone:
		return netip.IPv4Unspecified(), nil
	case config.PublicEC2:
		ctx, cancel := context.WithTimeout(ctx, metadataPatience)
		defer cancel()
		return instanceAddress(ctx, aws.New())
	}
	return netip.ParseAddr(n.cfg.PublicAddress)
}

func instanceAddress(ctx context.Context, client *aws.Client) (netip.Addr, error) {
	a, ok, err := client.PublicAddress(ctx)
	if err == nil && !ok {
		a = netip.IPv4Unspecified()
	}
	return a, err
}

// watchAddress tells the network when the instance has another public address.
func (n *node) watchAddress(ctx context.Context) error {
	if n.cfg.PublicAddress != config.PublicEC2 {
		return nil
	}
	client := aws.New()
	followAddress(ctx, addressInterval, n.public, func(ctx context.Context) (netip.Addr, error) {
		return instanceAddress(ctx, client)
	}, func(a netip.Addr) {
		n.log.Info().Stringer("public_address", a).Msg("this instance has another public address")
		n.session.Move(a)
	})
	return nil
}

// followAddress tells of every other address that is answered, until ctx ends.
func followAddress(ctx context.Context, every time.Duration, known netip.Addr, ask func(context.Context) (netip.Addr, error), tell func(netip.Addr)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asking, cancel := context.WithTimeout(ctx, addressTime)
		a, err := ask(asking)
		cancel()
		if err == nil && a != known {
			known = a
			tell(a)
		}
	}
}
