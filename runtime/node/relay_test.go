// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/transport"
)

// Others are met at seeds, and at VMs that say that they relay, can be dialled and
// are not about to leave.
func TestRelaysAreThoseThatCanBeMet(t *testing.T) {
	relay := func(kind string, change ...func(*cluster.Member)) cluster.Member {
		m := cluster.Member{
			ID: 7, Kind: kind, State: cluster.StateRunning, NAT: cluster.NATNone,
			UnderlayAddress: netip.MustParseAddrPort("100.64.0.7:7717"), Relay: &cluster.Relay{Pairs: 3},
		}
		for _, f := range change {
			f(&m)
		}
		return m
	}
	draining := func(m *cluster.Member) { m.Relay = &cluster.Relay{Draining: true} }
	silent := func(m *cluster.Member) { m.Relay = nil }
	lost := func(m *cluster.Member) { m.State = cluster.StateLost }
	hidden := func(m *cluster.Member) { m.NAT = cluster.NATBehind }
	closed := func(m *cluster.Member) { m.UnderlayAddress = netip.AddrPortFrom(m.UnderlayAddress.Addr(), 0) }
	away := func(m *cluster.Member) { m.UnderlayAddress = netip.AddrPort{} }
	for _, test := range []struct {
		name  string
		m     cluster.Member
		reach string
		want  bool
	}{
		{"a VM", relay(config.KindVM), config.ReachAny, true},
		{"a seed", relay(config.KindSeed), config.ReachAny, true},
		{"a seed of an older version", relay(config.KindSeed, silent), config.ReachAny, true},
		{"a VM that does not relay", relay(config.KindVM, silent), config.ReachAny, false},
		{"a VM that leaves", relay(config.KindVM, draining), config.ReachAny, false},
		{"a seed that leaves", relay(config.KindSeed, draining), config.ReachAny, false},
		{"a lost VM", relay(config.KindVM, lost), config.ReachAny, false},
		{"a VM behind a NAT", relay(config.KindVM, hidden), config.ReachAny, false},
		{"a VM without a port", relay(config.KindVM, closed), config.ReachAny, false},
		{"a VM without an address", relay(config.KindVM, away), config.ReachAny, false},
		{"a VM, from a laptop", relay(config.KindVM), config.ReachSeeds, false},
	} {
		n := &node{cfg: config.Node{Reach: test.reach}}
		got, is := n.relayOf(test.m)
		if is != test.want {
			t.Errorf("%s: %v, want %v", test.name, is, test.want)
		}
		want := transport.RelayNode{ID: 7, Endpoint: "100.64.0.7:7717", Seed: test.m.Kind == config.KindSeed}
		if test.m.Relay != nil {
			want.Load = 3
		}
		if is && got != want {
			t.Errorf("%s: %+v, want %+v", test.name, got, want)
		}
	}
}

// A relay on AWS is met at its public address.
func TestRelaysAreMetAtTheirPublicAddress(t *testing.T) {
	n := &node{cfg: config.Node{Reach: config.ReachAny}}
	m := cluster.Member{
		ID: 7, Kind: config.KindVM, NAT: cluster.NATNone, Relay: &cluster.Relay{},
		UnderlayAddress: netip.MustParseAddrPort("10.0.0.7:7717"), PublicAddress: netip.MustParseAddr("203.0.113.7"),
	}
	if got, is := n.relayOf(m); !is || got.Endpoint != "203.0.113.7:7717" {
		t.Errorf("%+v, %v", got, is)
	}
	m.PublicAddress, m.NAT = netip.IPv4Unspecified(), cluster.NATBehind
	if got, is := n.relayOf(m); is {
		t.Errorf("without one: %+v", got)
	}
}

// A seed does not meet itself at its public address, which a NAT may not give back.
func TestSeedsKnowThemselves(t *testing.T) {
	all := []string{"203.0.113.1:7717", "203.0.113.2:7717", "203.0.113.3:7717"}
	own, public := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("203.0.113.2")
	for _, test := range []struct {
		name        string
		kind        string
		seeds       []string
		own, public netip.Addr
		want        string
	}{
		{"one of three", config.KindSeed, all, own, public, "[203.0.113.1:7717 10.0.0.2:7717 203.0.113.3:7717]"},
		{"one of three, without", config.KindSeed, all, own, netip.Addr{}, "[203.0.113.1:7717 203.0.113.2:7717 203.0.113.3:7717]"},
		{"the only one", config.KindSeed, all[1:2], own, public, "[10.0.0.2:7717]"},
		{"the only one, anywhere", config.KindSeed, nil, netip.Addr{}, netip.Addr{}, "[127.0.0.1:7717]"},
		{"a VM", config.KindVM, all, own, public, "[203.0.113.1:7717 203.0.113.2:7717 203.0.113.3:7717]"},
	} {
		n := &node{cfg: config.Node{Kind: test.kind, Slot: "seed-1", Port: 7717, SeedEndpoints: test.seeds}}
		if test.kind == config.KindSeed {
			n.seed = &cluster.Seed{}
		}
		if got, err := n.seedsToJoin(test.own, test.public); err != nil || fmt.Sprint(got) != test.want {
			t.Errorf("%s: %v, %v, want %s", test.name, got, err, test.want)
		}
	}
}

// Everybody is told what a relay carries, so small changes are not said.
func TestLoadIsSaidWhenItHasChanged(t *testing.T) {
	for _, test := range []struct {
		said, now int
		want      bool
	}{
		{0, 0, false}, {0, 1, true}, {1, 0, true}, {5, 6, true}, {8, 9, false}, {9, 8, false}, {100, 112, false}, {100, 116, true}, {116, 100, true},
	} {
		if got := differs(test.said, test.now); got != test.want {
			t.Errorf("%d said, %d now: %v", test.said, test.now, got)
		}
	}
}
