// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func reserve(t *testing.T, s *Seed, slots ...string) {
	t.Helper()
	term, _ := s.Leading()
	if err := s.Reserve(term, reserved(slots...)); err != nil {
		t.Fatal(err)
	}
}

func reserved(slots ...string) (all []Reserved) {
	for _, slot := range slots {
		all = append(all, Reserved{Slot: slot, Name: slot[:len(slot)-2], Service: "svc"})
	}
	return all
}

// dormant waits until s knows these slots, and no others, to be reserved and held
// by nobody; it returns the first one's address.
func dormant(t *testing.T, s *Session, want ...string) (address netip.Addr) {
	t.Helper()
	eventually(t, fmt.Sprint("dormant: ", want), func() bool {
		var got []string
		for _, m := range Dormant(s.Network()) {
			if got = append(got, m.Slot); len(got) == 1 {
				address = m.OverlayAddress
			}
			if m.ID != 0 || m.State != StateDormant || m.Service != "svc" || !m.OverlayAddress.IsValid() {
				t.Fatalf("a dormant slot is %+v", m)
			}
		}
		return slices.Equal(got, want)
	})
	return address
}

func TestReservedSlotsKeepTheirAddress(t *testing.T) {
	o := testOptions(t)
	seed := startSeed(t, o, "127.0.0.1:0")
	early := join(t, seed.options("early"))
	reserve(t, seed.Seed, "db-0", "web-0")
	address := dormant(t, early, "db-0", "web-0")
	late, err := Observe(t.Context(), Options{Network: "shop", Secret: testSecret, Seeds: []string{seed.address}})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if other := dormant(t, late, "db-0", "web-0"); other != address {
		t.Errorf("who came later is told %s, the others %s", other, address)
	}
	if others := join(t, seed.options("other")).Self().OverlayAddress; others == address {
		t.Errorf("a reserved address was given away")
	}

	seed.stop()
	seed = startSeed(t, o, seed.address)
	dormant(t, early, "db-0", "web-0") // it is back
	node := join(t, launched(seed.options("db-0"), "one", ""))
	if got := node.Self().OverlayAddress; got != address {
		t.Errorf("the slot has %s, the node that comes gets %s", address, got)
	}
	dormant(t, early, "web-0")
	if err := node.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	dormant(t, early, "db-0", "web-0")

	reserve(t, seed.Seed, "web-0")
	dormant(t, early, "web-0")
	if _, err := Join(t.Context(), launched(seed.options("db-0"), "one", "")); !errors.Is(err, ErrRefused) {
		t.Errorf("when a slot is not reserved any more its spent launch gets %v", err)
	}
	term, _ := seed.Leading()
	if err := seed.Reserve(term+1, nil); !errors.Is(err, ErrNotLeading) {
		t.Errorf("in another term: %v", err)
	}
}

func TestReservedSlotsAreBounded(t *testing.T) {
	o := testOptions(t)
	o.CIDR = netip.MustParsePrefix("100.80.0.0/29")
	seed := startSeed(t, o, "127.0.0.1:0")
	term, _ := seed.Leading()
	if err := seed.Reserve(term, make([]Reserved, maxReserved+1)); err == nil {
		t.Error("any number of slots is reserved")
	}
	reserve(t, seed.Seed, "a-0", "b-0", "c-0", "d-0", "e-0", "f-0") // all that there are
	if _, err := Join(t.Context(), seed.options("other")); !errors.Is(err, ErrAddressSpaceFull) {
		t.Errorf("the address of a reserved slot is given to another: %v", err)
	}
	reserve(t, seed.Seed, "a-0")
	join(t, seed.options("other"))
}

func TestReservedSlotsOutliveTheLeader(t *testing.T) {
	w := startTrio(t)
	first := w.leader()
	watcher := joinPatiently(t, w.options("watcher"))
	reserve(t, w.seeds[first].Seed, "db-0", "web-0")
	address := dormant(t, watcher, "db-0", "web-0")
	reserve(t, w.seeds[first].Seed, "db-0")
	w.isolate(first, true, true)
	w.leader(first)
	o := launched(w.options("db-0"), "one", "")
	if node := joinPatiently(t, o).Self(); node.OverlayAddress != address {
		t.Errorf("under another leader the slot at %s has %s", address, node.OverlayAddress)
	}
	dormant(t, watcher)
}

// A member of an older release decodes what it knows.
func TestReservedSlotsAreNothingToOldMembers(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	join(t, seed.options("other"))
	reserve(t, seed.Seed, "db-0")
	seed.mu.Lock()
	frames := seed.encodeDeltas([]uint32{1}, seed.reservedNames(), true, true)
	seed.mu.Unlock()
	var old struct {
		Begin, End bool
		Members    []Member
		Left       []uint32
	}
	var m message
	if err := errors.Join(json.Unmarshal(frames[0][4:], &m), json.Unmarshal(m.Body, &old)); err != nil || len(frames) != 1 {
		t.Fatalf("%d frames: %v", len(frames), err)
	}
	if !old.Begin || !old.End || len(old.Members) != 1 || old.Members[0].Slot != "other" || len(old.Left) != 0 {
		t.Errorf("it understands %+v", old)
	}
}

func TestALetGoHolderMakesWay(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	reserve(t, seed.Seed, "db-0")
	watcher := join(t, seed.options("watcher"))
	first := join(t, launched(seed.options("db-0"), "one", ""))
	runs(t, first)
	old := first.Self()
	is(t, watcher, old.ID, "holder")
	term, _ := seed.Leading()
	if err := seed.LetGo(term, "db-0", old.ID+1); err == nil {
		t.Error("who does not hold the slot is let go")
	}
	if err := seed.LetGo(term, "db-0", old.ID); err != nil {
		t.Fatal(err)
	}
	is(t, watcher, old.ID, "retired")
	is(t, first, old.ID, "retired")
	dormant(t, watcher, "db-0")

	next := join(t, launched(seed.options("db-0"), "two", ""))
	if m := next.Self(); !m.Holds() || m.ID == old.ID || m.OverlayAddress != old.OverlayAddress {
		t.Errorf("beside %+v the next one is %+v", old, m)
	}
	if err := first.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	is(t, watcher, old.ID, "absent")
	is(t, watcher, next.Self().ID, "holder")
	dormant(t, watcher)
	if _, err := Join(t.Context(), launched(seed.options("db-0"), "one", "")); !errors.Is(err, ErrRefused) {
		t.Errorf("the launch that was let go comes back: %v", err)
	}
}

func TestALetGoHolderOutlivesTheSeed(t *testing.T) {
	o := testOptions(t)
	seed := startSeed(t, o, "127.0.0.1:0")
	reserve(t, seed.Seed, "db-0")
	first := join(t, launched(seed.options("db-0"), "one", ""))
	runs(t, first)
	id := first.Self().ID
	term, _ := seed.Leading()
	if err := seed.LetGo(term, "db-0", id); err != nil {
		t.Fatal(err)
	}
	seed.stop()
	seed = startSeed(t, o, seed.address)
	eventually(t, "it is back", func() bool { return first.Connected() })
	is(t, first, id, "retired")
	dormant(t, first, "db-0")
	// When nobody reserves it any more its spent launch is still known.
	if err := first.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	reserve(t, seed.Seed)
	if _, err := Join(t.Context(), launched(seed.options("db-0"), "one", "")); !errors.Is(err, ErrRefused) {
		t.Errorf("it comes back: %v", err)
	}
}

// TestSlotsOfReplicasAreForFunctions, and for who was there before.
func TestSlotsOfReplicasAreForFunctions(t *testing.T) {
	o := testOptions(t)
	o.Claimed = func(notes map[string]json.RawMessage, slot string) string {
		if string(notes["web"]) == slot[len(slot)-1:] {
			return "web"
		}
		return ""
	}
	seed := startSeed(t, o, "127.0.0.1:0")
	before := seed.options("web-1")
	before.Hello.LaunchToken = "one"
	node := join(t, before)
	note(t, seed.Seed, map[string]json.RawMessage{"web": json.RawMessage("1")})
	node.Close()
	again := join(t, before)
	if err := again.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := Join(t.Context(), seed.options("web-1"))
	if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), `name "web-1" is that of a replica of function node "web": choose another name`) {
		t.Errorf("another VM: %v", err)
	}
	join(t, launched(seed.options("web-1"), "two", ""))
	join(t, seed.options("web-2"))
}
