// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// joinPatience: nodes of a platform may come up before their seed does.
const joinPatience = 20 * time.Second

func (n *node) join(ctx context.Context) error {
	own, err := n.ownUnderlay()
	if err != nil {
		return err
	}
	if n.public, err = n.publicAddress(ctx); err != nil {
		return err
	}
	public := n.public
	seeds, err := n.seedsToJoin(own, public)
	if err != nil {
		return err
	}
	o := cluster.Options{
		Network: n.cfg.Network, Secret: n.o.Secret, Token: n.o.Token, Seeds: seeds, Logger: n.log,
		Hello: cluster.Hello{
			Name: n.cfg.Name, Service: n.cfg.Service, Slot: n.cfg.Slot, Kind: n.cfg.Kind,
			LaunchToken: n.run.LaunchToken, Site: n.cfg.Site, Version: n.o.Version,
			UnderlayAddress: own, PublicAddress: public, Port: uint16(n.cfg.Port), Reach: n.cfg.Reach, Succeeds: n.cfg.Succeeds, Standby: n.cfg.Standby,
		},
		Status:   n.status.get(),
		Handlers: map[string]cluster.Handler{},
	}
	for method, h := range n.transport.Handlers() {
		o.Handlers[method] = h
	}
	if n.controller == nil {
		o.Handlers[controller.DrainMethod] = n.askedToLeave
		o.Handlers[controller.MethodUse] = n.askedForUse
		o.Handlers[controller.LoadMethod] = n.askedForLoad
		if n.o.Configure != nil && n.onAWS() {
			o.Handlers[controller.ConfigureMethod] = n.askedToChange
		}
	} else {
		maps.Copy(o.Handlers, n.controller.Handlers())
	}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 100*time.Millisecond, 2*time.Second
	patience := joinPatience
	if n.cfg.Kind == config.KindClient {
		patience = time.Nanosecond // somebody sits in front of it: one try
	}
	if n.replicated() {
		patience = 0 // for ever: the other seeds need this one to admit anybody
	}
	n.session, err = backoff.Retry(ctx, func() (*cluster.Session, error) {
		s, err := cluster.Join(ctx, o)
		if err != nil && !cluster.Passing(err) {
			return nil, backoff.Permanent(err)
		}
		if err != nil && n.cfg.Kind != config.KindClient {
			n.log.Warn().Err(err).Msg("cannot join yet; trying again")
		}
		return s, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(patience))
	if err != nil {
		return err
	}
	n.view.join(n.session)
	self := n.session.Self()
	n.log.Info().Uint32("node", self.ID).Stringer("address", self.OverlayAddress).Str("nat", self.NAT).Msg("joined")
	if public.IsValid() && !public.IsUnspecified() && self.NAT == cluster.NATBehind {
		n.log.Warn().Stringer("public_address", public).Msg("the seed does not see this node there: those outside its site cannot dial it; is the address this node's, and its route to the Internet its own?")
	}
	return nil
}

// seedsToJoin are the seeds' endpoints, its own as a seed itself dials it: who has a
// public address through a NAT may not reach itself there.
func (n *node) seedsToJoin(own, public netip.Addr) ([]string, error) {
	if n.seed == nil || n.replicated() && !public.IsValid() {
		return n.cfg.SeedEndpoints, nil
	}
	host := "127.0.0.1"
	if own.IsValid() {
		host = own.String()
	}
	itself := net.JoinHostPort(host, strconv.Itoa(n.cfg.Port))
	if !n.replicated() {
		return []string{itself}, nil
	}
	number, err := n.cfg.SeedNumber()
	if err != nil {
		return nil, err
	}
	seeds := slices.Clone(n.cfg.SeedEndpoints)
	seeds[number] = itself
	return seeds, nil
}

// ownUnderlay is the address to declare: the configured one, or the source the
// kernel chooses towards the seed. What reaches only seeds declares none.
func (n *node) ownUnderlay() (netip.Addr, error) {
	if n.cfg.UnderlayAddress != "" {
		return netip.ParseAddr(n.cfg.UnderlayAddress)
	}
	if n.cfg.Reach == config.ReachSeeds || n.seed != nil && n.cfg.PublicAddress == "" {
		return netip.Addr{}, nil
	}
	var failure error
	towards := n.cfg.SeedEndpoints
	if _, err := netip.ParseAddr(n.cfg.PublicAddress); err == nil && n.seed != nil { // the only one
		towards = append(slices.Clone(towards), net.JoinHostPort(n.cfg.PublicAddress, strconv.Itoa(n.cfg.Port)))
	}
	for _, seed := range towards {
		// UDP: this asks the kernel for a route and sends nothing.
		conn, err := net.DialTimeout("udp4", seed, 5*time.Second)
		if err != nil {
			failure = err
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = conn.Close()
		return local, nil
	}
	if failure == nil {
		return netip.Addr{}, nil // a seed that knows nobody else
	}
	return netip.Addr{}, fmt.Errorf("find this node's own address: %w: check the seed's address, or set underlay_address", failure)
}

// learnUnderlay settles the address that native connections are made from and to.
func (n *node) learnUnderlay() {
	self := n.session.Self()
	own := self.UnderlayAddress.Addr()
	if n.cfg.Reach == config.ReachSeeds {
		// On a laptop several clients share the machine: one loopback address each.
		own = netip.AddrFrom4([4]byte{127, 68, byte(self.ID >> 8), byte(self.ID)})
	}
	if !own.IsValid() {
		own = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	n.view.underlay = own
	n.sockets.SetUnderlay(own)
}
