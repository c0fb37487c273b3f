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

// A member that is given a public address while it runs stays who it is.
func TestMove(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	watcher := join(t, seed.options("watcher"))
	o := seed.options("vm")
	o.Hello.UnderlayAddress, o.Hello.PublicAddress = netip.MustParseAddr("10.0.0.7"), netip.IPv4Unspecified()
	s := join(t, o)
	before := s.Self()
	if before.NAT != NATBehind || !before.PublicAddress.IsUnspecified() {
		t.Errorf("without one: %+v", before)
	}
	s.Move(netip.MustParseAddr("127.0.0.1")) // where the seed sees it
	eventually(t, "others know its new address", func() bool {
		m, _ := watcher.Member(before.ID)
		return m.NAT == NATNone && m.PublicAddress.String() == "127.0.0.1" && m.OverlayAddress == before.OverlayAddress
	})
}

// A seed may come back on another machine that has its public address.
func TestSeedMoves(t *testing.T) {
	o := testOptions(t)
	o.StatePath = t.TempDir() + "/seed.json"
	first := startSeed(t, o, "127.0.0.1:0")
	own := first.options("seed-0")
	own.Hello.Kind, own.Hello.LaunchToken = kindSeed, "first boot"
	own.Hello.UnderlayAddress, own.Hello.PublicAddress = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("203.0.113.1")
	self := join(t, own)
	vm := join(t, first.options("vm"))
	id := vm.Self().ID
	self.Close()
	first.stop()

	second := startSeed(t, o, first.address)
	own.Hello.LaunchToken, own.Hello.UnderlayAddress = "second boot", netip.MustParseAddr("10.0.0.9")
	join(t, own)
	eventually(t, "members find it, where it is now", func() bool {
		for _, m := range vm.Members() {
			if m.Slot == "seed-0" {
				return vm.Connected() && m.UnderlayAddress.Addr().String() == "10.0.0.9" && m.PublicAddress.String() == "203.0.113.1"
			}
		}
		return false
	})
	if vm.Self().ID != id || second.address != first.address {
		t.Errorf("the member is %d now, not %d", vm.Self().ID, id)
	}
}
