// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// Machines with a public address that is translated one to one: their site uses the
// addresses inside, all others those outside, and who has none is behind a NAT for them.
func TestPublicAddressesAreForOthers(t *testing.T) {
	member := func(id uint32, site, nat, own, public string) cluster.Member {
		m := cluster.Member{ID: id, Site: site, NAT: nat}
		if own != "" {
			m.UnderlayAddress = netip.MustParseAddrPort(own)
		}
		if public != "" {
			m.PublicAddress = netip.MustParseAddr(public)
		}
		return m
	}
	const none, behind = cluster.NATNone, cluster.NATBehind
	a := member(1, "vpc", none, "10.0.0.1:7717", "203.0.113.1")
	b := member(2, "vpc", none, "10.0.0.2:7717", "203.0.113.2")
	inner := member(3, "vpc", behind, "10.0.0.3:7717", "0.0.0.0") // sees the world through a gateway
	far := member(4, "vpc2", none, "10.0.0.1:7717", "203.0.113.4")
	function := member(5, "", behind, "169.254.100.6:7717", "")
	for _, tt := range []struct {
		name       string
		self, peer cluster.Member
		class      Class
		place      string // "": none
		how        mode
	}{
		{"same site", a, b, ClassNative, "10.0.0.2:7717", modeDial},
		{"same site, to one without", a, inner, ClassNative, "10.0.0.3:7717", modeDial},
		{"same site, from one without", inner, a, ClassNative, "10.0.0.1:7717", modeDial},
		{"another site, of the same address", a, far, ClassDirect, "203.0.113.4:7717", modeDial},
		{"from a function", function, a, ClassDirect, "203.0.113.1:7717", modeDial},
		{"to a function", a, function, ClassHold, "", modeBack},
		{"from outside to one without", far, inner, ClassHold, "", modeBack},
		{"from one without to outside", inner, far, ClassDirect, "203.0.113.4:7717", modeDial},
		{"a function to one without", function, inner, ClassHold, "", modeNone},
	} {
		if got := Classify(tt.self, tt.peer, reachAny, nil); got != tt.class {
			t.Errorf("%s: class %d, want %d", tt.name, got, tt.class)
		}
		at, ok := Place(tt.self, tt.peer)
		if ok != (tt.place != "") || ok && at.String() != tt.place {
			t.Errorf("%s: dialled at %s, %v, want %q", tt.name, at, ok, tt.place)
		}
		if got := choose(tt.self, tt.peer); got != tt.how {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.how)
		}
		if near := Near(tt.self, tt.peer); near != (tt.class == ClassNative) {
			t.Errorf("%s: near is %v", tt.name, near)
		}
	}
	if seen := outside(function, a).String(); seen != "203.0.113.1" {
		t.Errorf("a function sees a machine come from %s", seen)
	}
	if seen := outside(b, a).String(); seen != "10.0.0.1" {
		t.Errorf("its site sees a machine come from %s", seen)
	}
}
