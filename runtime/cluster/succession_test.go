// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"
)

// launched are the options of one launch of a function's slot.
func launched(o Options, token, succeeds string) Options {
	o.Hello.Kind, o.Hello.LaunchToken, o.Hello.Succeeds = "function", token, ""
	if succeeds != "" {
		o.Hello.Succeeds = LaunchID(succeeds)
	}
	return o
}

func runs(t *testing.T, s *Session) {
	t.Helper()
	if err := s.SetStatus(t.Context(), Status{State: StateRunning}); err != nil {
		t.Fatal(err)
	}
}

// partOf says what a member is in its slot, as this session knows it.
func partOf(s *Session, id uint32) string {
	switch m, ok := s.Member(id); {
	case !ok:
		return "absent"
	case m.State == StateLost:
		return "lost"
	case m.Retired:
		return "retired"
	case m.Succeeds != 0:
		return "successor"
	}
	return "holder"
}

func is(t *testing.T, s *Session, id uint32, part string) {
	t.Helper()
	last := ""
	deadline := time.Now().Add(30 * time.Second)
	for last != part {
		if time.Now().After(deadline) {
			t.Fatalf("node %d is %s for 30 s, want %s", id, last, part)
		}
		time.Sleep(2 * time.Millisecond)
		last = partOf(s, id)
	}
}

// pair is a holder that runs, its successor that starts, and somebody who looks on.
type pair struct {
	seed                       *testSeed
	watcher, holder, successor *Session
}

func startPair(t *testing.T) pair {
	t.Helper()
	p := pair{seed: startSeed(t, testOptions(t), "127.0.0.1:0")}
	p.watcher = join(t, p.seed.options("watcher"))
	p.holder = join(t, launched(p.seed.options("web-0"), "one", ""))
	runs(t, p.holder)
	p.successor = join(t, launched(p.seed.options("web-0"), "two", "one"))
	is(t, p.watcher, p.successor.Self().ID, "successor")
	return p
}

func TestASuccessorStandsBesideTheHolderUntilItRuns(t *testing.T) {
	p := startPair(t)
	old, next := p.holder.Self(), p.successor.Self()
	if next.ID == old.ID || next.OverlayAddress != old.OverlayAddress || next.Succeeds != old.ID {
		t.Fatalf("the successor of %+v is %+v", old, next)
	}
	is(t, p.watcher, old.ID, "holder")

	// Nobody may see the address with two holders, or with none.
	events, stop := p.watcher.Subscribe()
	defer stop()
	runs(t, p.successor)
	is(t, p.watcher, next.ID, "holder")
	is(t, p.watcher, old.ID, "retired")
	is(t, p.holder, old.ID, "retired")
	is(t, p.successor, next.ID, "holder")
	settled := map[uint32]bool{}
	for !settled[old.ID] || !settled[next.ID] {
		select {
		case e := <-events:
			m := e.Member
			settled[m.ID] = m.ID == old.ID && m.Retired || m.ID == next.ID && m.Holds()
			if e.Type == EventLeave {
				t.Errorf("node %d left", m.ID)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the change is not in the events")
		}
	}
	if state := stateOf(p.watcher, old.ID); state != StateRunning {
		t.Errorf("the retired one is %s", state)
	}

	if err := p.holder.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	is(t, p.watcher, old.ID, "absent")
	is(t, p.watcher, next.ID, "holder")
	// Its launch is spent, although it was not the last one of the slot.
	if err := p.successor.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"one", "two"} {
		if _, err := Join(t.Context(), launched(p.seed.options("web-0"), token, "")); !errors.Is(err, ErrRefused) {
			t.Errorf("launch %q, which has ended, gets %v", token, err)
		}
	}
	if third := join(t, launched(p.seed.options("web-0"), "three", "two")).Self(); !third.Holds() || third.OverlayAddress != old.OverlayAddress {
		t.Errorf("in the empty slot the next launch is %+v", third)
	}
}

// Both members change in one message: nobody may see the address with two
// holders, or with none.
func TestTheChangeOfHoldersIsOneDelta(t *testing.T) {
	p := startPair(t)
	old, next := p.holder.Self().ID, p.successor.Self().ID
	stop, wrong := make(chan struct{}), make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			holders := 0
			for _, m := range p.watcher.Members() {
				if (m.ID == old || m.ID == next) && m.Holds() {
					holders++
				}
			}
			if holders != 1 {
				select {
				case wrong <- "":
				default:
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	runs(t, p.successor)
	is(t, p.watcher, next, "holder")
	close(stop)
	<-done
	if len(wrong) > 0 {
		t.Error("for a moment the slot had no holder, or two")
	}
}

func TestWhoMaySucceed(t *testing.T) {
	p := startPair(t)
	o := p.seed.options("web-0")
	if _, err := Join(t.Context(), launched(o, "three", "one")); !errors.Is(err, ErrNameTaken) {
		t.Errorf("beside a successor that answers another one gets %v", err)
	}
	if _, err := Join(t.Context(), launched(o, "three", "two")); !errors.Is(err, ErrNameTaken) {
		t.Errorf("the successor of who is not the holder yet gets %v", err)
	}
	if _, err := Join(t.Context(), launched(o, "three", "")); !errors.Is(err, ErrNameTaken) {
		t.Errorf("who succeeds nobody gets %v", err)
	}
	runs(t, p.successor)
	is(t, p.watcher, p.successor.Self().ID, "holder")
	// 50 s late: its holder has retired long ago.
	if _, err := Join(t.Context(), launched(o, "late", "one")); !errors.Is(err, ErrNameTaken) {
		t.Errorf("who succeeds a retired one gets %v", err)
	}
	third := join(t, launched(o, "three", "two"))
	is(t, p.watcher, third.Self().ID, "successor")
	runs(t, third)
	is(t, p.watcher, third.Self().ID, "holder")
	is(t, p.watcher, p.holder.Self().ID, "retired")
	is(t, p.watcher, p.successor.Self().ID, "retired")
}

func TestASilentSuccessorIsReplaced(t *testing.T) {
	p := startPair(t)
	first := p.successor.Self().ID
	o := launched(p.seed.options("web-0"), "three", "one")
	p.successor.Close()
	is(t, p.watcher, first, "lost")
	second := join(t, o)
	is(t, p.watcher, second.Self().ID, "successor")
	is(t, p.watcher, first, "absent")
	is(t, p.watcher, p.holder.Self().ID, "holder")
}

func TestTheHolderEndsFirst(t *testing.T) {
	t.Run("leaves", func(t *testing.T) {
		p := startPair(t)
		if err := p.holder.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		is(t, p.watcher, p.successor.Self().ID, "holder")
		if _, err := Join(t.Context(), launched(p.seed.options("web-0"), "one", "")); !errors.Is(err, ErrRefused) {
			t.Errorf("the launch that has left gets %v", err)
		}
	})
	t.Run("dies", func(t *testing.T) {
		p := startPair(t)
		id := p.holder.Self().ID
		p.holder.Close()
		is(t, p.watcher, p.successor.Self().ID, "holder")
		is(t, p.watcher, id, "absent")
		if state := stateOf(p.watcher, p.successor.Self().ID); state != StateStarting {
			t.Errorf("the successor is %s", state)
		}
	})
	t.Run("is taken for dead by another launch", func(t *testing.T) {
		p := startPair(t)
		id := p.holder.Self().ID
		p.holder.Close()
		is(t, p.watcher, id, "lost")
		if _, err := Join(t.Context(), launched(p.seed.options("web-0"), "three", "")); !errors.Is(err, ErrNameTaken) {
			t.Errorf("while there is a successor another launch gets %v", err)
		}
		is(t, p.watcher, p.successor.Self().ID, "holder")
	})
}

func TestTheSuccessorEndsFirst(t *testing.T) {
	for _, way := range []string{"leaves", "dies"} {
		t.Run(way, func(t *testing.T) {
			p := startPair(t)
			id := p.successor.Self().ID
			if way == "dies" {
				p.successor.Close()
			} else if err := p.successor.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			is(t, p.watcher, id, "absent")
			is(t, p.watcher, p.holder.Self().ID, "holder")
			if _, err := Join(t.Context(), launched(p.seed.options("web-0"), "two", "one")); !errors.Is(err, ErrRefused) {
				t.Errorf("its event, repeated, gets %v", err)
			}
		})
	}
}

// A function that crashed may be started by its event again, until another launch
// has had its slot.
func TestALateEventOfACrashedLaunch(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	watcher := join(t, seed.options("watcher"))
	crash := func(token string) *Session {
		s := join(t, launched(seed.options("web-0"), token, ""))
		is(t, watcher, s.Self().ID, "holder")
		s.Close()
		is(t, watcher, s.Self().ID, "absent")
		return s
	}
	first, again := crash("one"), crash("one")
	if first.Self().ID != again.Self().ID {
		t.Errorf("the same launch was node %d, then %d", first.Self().ID, again.Self().ID)
	}
	if err := join(t, launched(seed.options("web-0"), "two", "")).Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), launched(seed.options("web-0"), "one", "")); !errors.Is(err, ErrRefused) {
		t.Errorf("late, the event of the first launch gets %v", err)
	}
	// A machine may come back, as what it was.
	vm := seed.options("store")
	vm.Hello.LaunchToken = "vm"
	join(t, vm).Close()
	if err := join(t, launched(seed.options("store"), "stand-in", "")).Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	join(t, vm)
}

func TestARepeatedEventIsRefused(t *testing.T) {
	p := startPair(t)
	repeat := func(token, succeeds string) {
		t.Helper()
		if _, err := Join(t.Context(), launched(p.seed.options("web-0"), token, succeeds)); !errors.Is(err, ErrRefused) {
			t.Errorf("launch %q, repeated, gets %v", token, err)
		}
	}
	repeat("one", "")
	repeat("two", "one")
	runs(t, p.successor)
	is(t, p.watcher, p.successor.Self().ID, "holder")
	repeat("one", "") // retired by now
	repeat("two", "one")
	for _, s := range []*Session{p.holder, p.successor} {
		if s.Err() != nil || !s.Connected() {
			t.Errorf("node %d was disturbed: %v", s.Self().ID, s.Err())
		}
	}
	// A function that has just lost its connection gets time to come back.
	o := p.seed.options("api-0")
	var slow gate
	o.Dial = slow.dial
	api := join(t, launched(o, "api", ""))
	slow.shut(true)
	api.breakLink()
	is(t, p.watcher, api.Self().ID, "lost")
	time.AfterFunc(100*time.Millisecond, func() { slow.shut(false) })
	if _, err := Join(t.Context(), launched(p.seed.options("api-0"), "api", "")); !errors.Is(err, ErrRefused) {
		t.Errorf("while the first one reconnects a repeated event gets %v", err)
	}
	if api.Err() != nil {
		t.Error(api.Err())
	}
}

func TestARestartOfTheSeedBetweenTheTwo(t *testing.T) {
	p := startPair(t)
	old, next := p.holder.Self().ID, p.successor.Self().ID
	restart := func() {
		p.seed.stop()
		p.seed = startSeed(t, p.seed.o, p.seed.address)
		eventually(t, "all are back", func() bool {
			return p.watcher.Connected() && p.holder.Connected() && p.successor.Connected()
		})
	}
	restart()
	is(t, p.watcher, old, "holder")
	is(t, p.watcher, next, "successor")
	runs(t, p.successor)
	is(t, p.watcher, next, "holder")
	is(t, p.watcher, old, "retired")
	restart()
	is(t, p.watcher, next, "holder")
	is(t, p.watcher, old, "retired")
	// One that says so while the seed is away.
	third := join(t, launched(p.seed.options("web-0"), "three", "two"))
	p.seed.stop()
	runs(t, third)
	p.seed = startSeed(t, p.seed.o, p.seed.address)
	is(t, p.watcher, third.Self().ID, "holder")
	is(t, p.watcher, next, "retired")
}

func TestASuccessorThatDoesNotReturnAfterARestart(t *testing.T) {
	p := startPair(t)
	old, next := p.holder.Self().ID, p.successor.Self().ID
	p.seed.stop()
	p.holder.Close()
	p.seed = startSeed(t, p.seed.o, p.seed.address)
	is(t, p.watcher, next, "holder")
	is(t, p.watcher, old, "absent")
}

func TestSuccessionUnderAnotherLeader(t *testing.T) {
	w := startTrioWith(t, 6*time.Second) // they come over before it ends
	watcher := join(t, w.options("watcher"))
	holder := join(t, launched(w.options("web-0"), "one", ""))
	successor := join(t, launched(w.options("web-0"), "two", "one"))
	old, next := holder.Self().ID, successor.Self().ID
	is(t, watcher, next, "successor")
	first := w.leader()
	w.isolate(first, true, true)
	w.leader(first)
	if err := successor.SetStatus(t.Context(), Status{State: StateRunning}); err != nil { // on its way over
		t.Fatal(err)
	}
	is(t, watcher, next, "holder")
	is(t, watcher, old, "retired")
	if _, err := Join(t.Context(), launched(w.options("web-0"), "two", "one")); !errors.Is(err, ErrRefused) {
		t.Errorf("under another leader a repeated event gets %v", err)
	}
	w.isolate(first, false, false)
	for _, s := range []*Session{holder, successor} {
		if s.Err() != nil {
			t.Errorf("node %d: %v", s.Self().ID, s.Err())
		}
	}
	second := w.leader()
	if second == first {
		return // it leads again: nothing else to see
	}
	w.isolate(second, true, true)
	w.leader(second)
	is(t, watcher, next, "holder")
	is(t, watcher, old, "retired")
}

// What cannot be kept is told to nobody.
func TestNobodyHoldsWhatTheSeedCannotKeep(t *testing.T) {
	p := startPair(t)
	full := make(chan struct{}, 1)
	write := p.seed.saver.write
	p.seed.saver.mu.Lock()
	p.seed.saver.write = func() error {
		select {
		case full <- struct{}{}:
			return errors.New("the disk is full")
		default:
			return write()
		}
	}
	p.seed.saver.mu.Unlock()
	runs(t, p.successor)
	eventually(t, "it was tried", func() bool { return len(full) > 0 })
	for end := time.Now().Add(promoteRetry / 2); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if part := partOf(p.watcher, p.successor.Self().ID); part != "successor" {
			t.Fatalf("the successor is %s although that is not kept", part)
		}
	}
	is(t, p.watcher, p.successor.Self().ID, "holder")
	is(t, p.watcher, p.holder.Self().ID, "retired")
}

// A node of the version before knows of one member with an address only.
func TestOldNodesKnowHoldersOnly(t *testing.T) {
	p := startPair(t)
	p.watcher.mu.Lock()
	l := p.watcher.link
	p.watcher.mu.Unlock()
	p.seed.mu.Lock()
	for link, id := range p.seed.links {
		link.holders = id == p.watcher.Self().ID
	}
	p.seed.mu.Unlock()
	old, next := p.holder.Self().ID, p.successor.Self().ID
	if err := p.successor.SetStatus(t.Context(), Status{State: StateStarting, Listeners: []uint16{80}}); err != nil {
		t.Fatal(err)
	}
	is(t, p.watcher, next, "absent")
	runs(t, p.successor)
	is(t, p.watcher, next, "holder")
	is(t, p.watcher, old, "absent")
	is(t, p.holder, old, "retired")
	l.close(errors.New("cut by the test"))
}

// A seed that ends between the two steps has kept who holds the slot, and what
// everybody knew before.
func TestWhatWasKeptButNotTold(t *testing.T) {
	o := testOptions(t)
	address := o.CIDR.Addr().Next()
	member := func(id, succeeds uint32) Member {
		return Member{ID: id, Slot: "web-0", Kind: "function", State: StateRunning, OverlayAddress: address, Succeeds: succeeds}
	}
	kept := func() *slot { // node 2 has followed node 1; 3 and 4, which were to be told of, are gone
		return &slot{Address: address, tenant: tenant{ID: 2, Launch: "b"}, Next: &tenant{ID: 4, Launch: "d"}, Retired: []tenant{{ID: 1, Launch: "a"}, {ID: 3, Launch: "c"}}}
	}
	check := func(s *Seed) {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		old, next := s.members[1], s.members[2]
		if old == nil || !old.member.Retired || old.launch != "a" || next == nil || !next.member.Holds() || next.launch != "b" {
			t.Errorf("the members are %+v and %+v", old, next)
		}
		if sl := s.slots["web-0"]; sl.Next != nil || len(sl.Retired) != 1 {
			t.Errorf("the slot is %+v", sl)
		}
	}
	t.Run("one seed", func(t *testing.T) {
		data, err := json.Marshal(seedState{
			Version: stateVersion, Network: o.Network, CIDR: o.CIDR, NextID: 5,
			Slots: map[string]*slot{"web-0": kept()}, Members: []Member{member(1, 0), member(2, 1)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(o.StatePath, data, 0o600); err != nil {
			t.Fatal(err)
		}
		check(startSeed(t, o, "127.0.0.1:0").Seed)
	})
	t.Run("a new leader", func(t *testing.T) {
		s := &Seed{o: o, replica: &replica{}, pace: newPace(DefaultBatch)}
		s.o.Lease = time.Hour
		s.forget()
		p := &place{slot: *kept()}
		p.add(member(1, 0))
		p.add(member(2, 1))
		s.replica.ledger.state = change{NextID: 5, Slots: map[string]*place{"web-0": p}}
		s.lead(1)
		check(s)
		s.follow()
	})
}
