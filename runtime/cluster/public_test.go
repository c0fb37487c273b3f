// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"testing"
)

// A machine behind a NAT of one address outside for one inside can be dialled, if
// the seed sees it come from either.
func TestPublicAddresses(t *testing.T) {
	own, public, other := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("198.51.100.1")
	none := netip.IPv4Unspecified()
	for _, tt := range []struct {
		name           string
		public, source netip.Addr
		want           string
	}{
		{"through its NAT", public, public, NATNone},
		{"inside its site", public, own, NATNone},
		{"through another one", public, other, NATBehind},
		{"it has none, inside", none, own, NATBehind},
		{"it has none, through a gateway", none, other, NATBehind},
		{"it knows of none", netip.Addr{}, own, NATNone},
		{"it knows of none, through a NAT", netip.Addr{}, other, NATBehind},
	} {
		if got := natOf(Hello{Kind: "vm", UnderlayAddress: own, PublicAddress: tt.public}, tt.source); got != tt.want {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
	if got := natOf(Hello{Kind: "vm"}, netip.Addr{}); got != NATBehind {
		t.Errorf("nothing is known: %s", got)
	}
	m := Member{UnderlayAddress: netip.AddrPortFrom(own, 7717), PublicAddress: public}
	if inside, outside := m.Place(true).String(), m.Place(false).String(); inside != "10.0.0.7:7717" || outside != "203.0.113.7:7717" {
		t.Errorf("dialled at %s and %s", inside, outside)
	}
	m.PublicAddress = none
	if m.Place(true).Addr() != own || m.Place(false).IsValid() {
		t.Errorf("without one it is dialled at %s and %s", m.Place(true), m.Place(false))
	}
	m.PublicAddress = netip.Addr{}
	if m.Place(false).Addr() != own {
		t.Errorf("one of an older release is dialled at %s", m.Place(false))
	}
}

func TestPublicAddressIsChecked(t *testing.T) {
	for _, a := range []string{"::1", "224.0.0.1", "::ffff:203.0.113.7"} {
		r := joinRequest{Hello: Hello{Slot: "a", Name: "a", Service: "a", LaunchToken: "t", PublicAddress: netip.MustParseAddr(a)}, Status: Status{State: StateStarting}}
		if err := r.check(); err == nil {
			t.Errorf("%s is taken", a)
		}
	}
}
