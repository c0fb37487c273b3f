// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// slots of a network in which web-0 is being handed over: node 2 has retired,
// node 3 is the holder, node 4 its successor.
func handingOver() []cluster.Member {
	member := func(id uint32, slot, service string, last byte) cluster.Member {
		a := netip.AddrFrom4([4]byte{100, 80, 0, last})
		return cluster.Member{
			ID: id, Slot: slot, Name: slot, Service: service, Kind: config.KindVM, State: cluster.StateRunning, Site: "host", NAT: cluster.NATNone,
			OverlayAddress: a, UnderlayAddress: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(id)}), 7717),
		}
	}
	all := []cluster.Member{member(1, "db", "db", 1), member(2, "web-0", "web", 2), member(3, "web-0", "web", 2), member(4, "web-0", "web", 2), member(5, "web-1", "web", 5)}
	all[1].Retired, all[3].Succeeds, all[3].State = true, 3, cluster.StateStarting
	return all
}

func TestAddressesStandForTheHolder(t *testing.T) {
	all := handingOver()
	for self, want := range map[int]uint32{0: 3, 1: 2, 2: 3, 3: 4} { // the launches of web-0 see themselves
		var v view
		v.index(holders(all[self], all), nil)
		if m, ok := v.Lookup(all[1].OverlayAddress); !ok || m.ID != want {
			t.Errorf("node %d finds node %d (%v) at the address of web-0, want %d", all[self].ID, m.ID, ok, want)
		}
		if len(v.byAddr) != 3 {
			t.Errorf("node %d knows of %d addresses, want 3", all[self].ID, len(v.byAddr))
		}
	}
}

func TestNamesAreOfTheHolder(t *testing.T) {
	all := handingOver()
	n := names(all[0], holders(all[0], all))
	if len(n["web"]) != 2 || len(n["web-0"]) != 1 || len(n["node-3"]) != 1 {
		t.Errorf("names %v", n)
	}
	for _, name := range []string{"node-2", "node-4"} {
		if len(n[name]) > 0 {
			t.Errorf("%s leads to %v, where it is not", name, n[name])
		}
	}
}

// What each of them connects natively is known by its address, while the address
// is the holder's.
func TestTheTableHasOneMemberForAnAddress(t *testing.T) {
	all := handingOver()
	cfg := config.Node{Network: "shop", Port: 7717, Reach: config.ReachAny}
	s := snapshot(cfg, all[0], netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("100.80.0.0/16"), all, nil, new(view).asleep)
	for _, m := range s.Members {
		if beside := m.ID == 2 || m.ID == 4; m.Aside != beside || !m.Near {
			t.Errorf("node %d is %+v", m.ID, m)
		}
	}
}

func TestABarrierCountsSlots(t *testing.T) {
	all := handingOver()
	all[2].State = cluster.StateStarting // the holder does not run yet
	for self := range all {
		if m := missing(map[string]int{"web": 2}, cluster.Member{ID: 1, Service: "db"}, all); len(m) != 1 || m[0] != "web: 1 of 2" {
			t.Errorf("two are waited for, missing is %q", m)
		}
		if m := missing(map[string]int{"web": 3}, all[self], all); len(m) != 1 {
			t.Errorf("three are waited for, node %d misses %q", all[self].ID, m)
		}
	}
}

// sleeping is a network where nobody holds job-0, and web-0 has its holder and one
// that was let go.
func sleeping() ([]cluster.Member, []cluster.Reserved) {
	all := handingOver()[:3]
	return all, []cluster.Reserved{
		{Slot: "job-0", Name: "job", Service: "jobs", Address: netip.AddrFrom4([4]byte{100, 80, 0, 9})},
		{Slot: "web-0", Name: "web", Service: "web", Address: all[1].OverlayAddress},
	}
}

func TestDormantSlotsAreHeld(t *testing.T) {
	all, reserved := sleeping()
	cfg := config.Node{Network: "shop", Port: 7717, Reach: config.ReachAny}
	table := func(self int) map[netip.Addr]uint8 {
		var v view
		asleep := dormant(all[self], all, reserved)
		v.index(slices.Concat(holders(all[self], all), asleep), reserved)
		s := snapshot(cfg, all[self], netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("100.80.0.0/16"), all, asleep,
			func(m cluster.Member) bool { return m.ID != all[self].ID && sleeps(m, v.onUse) })
		for _, name := range []string{"jobs", "job-0"} {
			if a := s.Names[name]; len(a) != 1 || a[0] != reserved[0].Address {
				t.Errorf("%s leads to %v", name, a)
			}
		}
		if len(s.Names["node-0"]) > 0 || len(s.Names["web"]) != 1 {
			t.Errorf("names %v", s.Names)
		}
		found := map[netip.Addr]uint8{}
		for _, m := range s.Members {
			if !m.Aside {
				found[m.Overlay] = m.Transport
			}
		}
		return found
	}
	const native, held = 1, 3
	check := func(self int, web, job uint8) {
		t.Helper()
		if got := table(self); got[reserved[0].Address] != job || got[reserved[1].Address] != web || len(got) != 3 {
			t.Errorf("to node %d transports are %v, want web %d, job %d", all[self].ID, got, web, job)
		}
	}
	check(0, native, held)
	all[2].State = cluster.StateStarting // who connects waits until it runs
	check(0, held, held)
	check(2, native, held) // but for itself
	all[2].Retired = true
	check(0, held, held)
	check(2, native, held)
}
