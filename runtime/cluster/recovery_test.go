// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// breakLink cuts the session's connection without a word.
func (s *Session) breakLink() {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.close(errors.New("cut by the test"))
	}
}

func TestReconnectKeepsIDAndStatus(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	watcher, a := join(t, seed.options("watcher")), join(t, seed.options("a"))
	events, stop := watcher.Subscribe()
	defer stop()
	if err := a.SetStatus(t.Context(), Status{State: StateRunning}); err != nil {
		t.Fatal(err)
	}
	id := a.Self().ID
	eventually(t, "a runs", func() bool { return stateOf(watcher, id) == StateRunning })
	a.breakLink()
	eventually(t, "a is back", func() bool { return a.Connected() && stateOf(watcher, id) == StateRunning })
	if a.Self().ID != id {
		t.Errorf("id %d became %d", id, a.Self().ID)
	}
	for len(events) > 0 {
		if e := <-events; e.Type == EventLeave {
			t.Error("a reconnect looked like a leave")
		}
	}
}

func TestLeaseExpires(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	watcher, a := join(t, seed.options("watcher")), join(t, seed.options("a"))
	id := a.Self().ID
	start := time.Now()
	a.Close()
	eventually(t, "a is lost", func() bool { return stateOf(watcher, id) == StateLost })
	eventually(t, "a is gone", func() bool { return stateOf(watcher, id) == "absent" })
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Errorf("gone after %v, within its lease", took)
	}
}

func TestSilenceIsNoticedAndTheSlotFreed(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	watcher := join(t, seed.options("watcher"))
	// A member whose packets vanish: its connection never says that it ended.
	var mute muteConn
	o := seed.options("frozen")
	o.Heartbeat, o.Silence = time.Hour, time.Hour
	o.Dial = mute.dial
	frozen := join(t, o)
	id := frozen.Self().ID
	mute.silence()
	successor := join(t, seed.options("frozen")) // not name_taken
	if successor.Self().ID == id || successor.Self().OverlayAddress != frozen.Self().OverlayAddress {
		t.Errorf("successor is %+v", successor.Self())
	}
	eventually(t, "the frozen one is gone", func() bool { return stateOf(watcher, id) == "absent" })
}

// muteConn drops what is written once it was told to be silent.
type muteConn struct {
	net.Conn
	mu     sync.Mutex
	silent bool
}

func (m *muteConn) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	var err error
	m.Conn, err = d.DialContext(ctx, network, address)
	return m, err
}

func (m *muteConn) silence() {
	m.mu.Lock()
	m.silent = true
	m.mu.Unlock()
}

func (m *muteConn) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.silent {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

func TestSeedRestartKeepsIDsAndSlots(t *testing.T) {
	o := testOptions(t)
	seed := startSeed(t, o, "127.0.0.1:0")
	a, b := join(t, seed.options("a")), join(t, seed.options("b"))
	gone := join(t, seed.options("gone"))
	goneAddress := gone.Self().OverlayAddress
	if err := gone.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.SetStatus(t.Context(), Status{State: StateRunning}); err != nil {
		t.Fatal(err)
	}
	events, stop := a.Subscribe()
	defer stop()
	left := make(chan uint32, 16)
	go func() {
		for e := range events {
			if e.Type == EventLeave {
				left <- e.Member.ID
			}
		}
	}()
	before := []Member{a.Self(), b.Self()}
	seed.stop()
	seed = startSeed(t, o, seed.address)
	eventually(t, "both are back", func() bool {
		return a.Connected() && b.Connected() && stateOf(a, before[1].ID) == StateRunning && stateOf(b, before[0].ID) == StateStarting
	})
	for i, s := range []*Session{a, b} {
		if got := s.Self(); got.ID != before[i].ID || got.OverlayAddress != before[i].OverlayAddress {
			t.Errorf("%+v became %+v", before[i], got)
		}
	}
	select {
	case id := <-left:
		if id == before[0].ID || id == before[1].ID {
			t.Errorf("node %d seemed to leave while the seed restarted", id)
		}
	default:
	}
	next := join(t, seed.options("new")).Self()
	if next.ID != 4 || next.OverlayAddress == goneAddress {
		t.Errorf("a new member after the restart is %+v", next)
	}
	if again := join(t, seed.options("gone")).Self(); again.OverlayAddress != goneAddress || again.ID != 5 {
		t.Errorf("the slot's successor after the restart is %+v, want %s", again, goneAddress)
	}
}

func TestMembersThatDoNotReturnAfterARestartExpire(t *testing.T) {
	o := testOptions(t)
	seed := startSeed(t, o, "127.0.0.1:0")
	a := join(t, seed.options("a"))
	b := join(t, seed.options("b"))
	id := b.Self().ID
	seed.stop()
	b.Close()
	startSeed(t, o, seed.address)
	eventually(t, "a is back", func() bool { return a.Connected() })
	eventually(t, "b is gone", func() bool { return stateOf(a, id) == "absent" })
}

func TestDamagedOrForeignStateIsRefused(t *testing.T) {
	o := testOptions(t)
	for content, want := range map[string]string{
		"{": "is damaged",
		`{"version":1,"network":"other","cidr":"100.80.0.0/16"}`: `is of network "other"`,
	} {
		if err := os.WriteFile(o.StatePath, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewSeed(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("state %q gives %v", content, err)
		}
	}
}

func TestAddressSpaceFullThenReclaimed(t *testing.T) {
	o := testOptions(t)
	o.CIDR = o.CIDR.Masked()
	o.CIDR, _ = o.CIDR.Addr().Prefix(30) // two addresses
	seed := startSeed(t, o, "127.0.0.1:0")
	a := join(t, seed.options("a"))
	join(t, seed.options("b"))
	if _, err := Join(t.Context(), seed.options("c")); !errors.Is(err, ErrAddressSpaceFull) {
		t.Fatalf("a third member gets %v", err)
	}
	address := a.Self().OverlayAddress
	if err := a.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := join(t, seed.options("c")).Self(); c.OverlayAddress != address {
		t.Errorf("the third got %s, want the abandoned %s", c.OverlayAddress, address)
	}
}

// A burst of N joins must reach each member in O(N) messages of O(N) bytes in
// all, whatever the order.
func TestBurstOfJoins(t *testing.T) {
	const n = 60 // handshakes are slow under the race detector
	o := testOptions(t)
	o.Silence, o.Heartbeat = 10*time.Second, 5*time.Second
	seed := startSeed(t, o, "127.0.0.1:0")
	sessions := make([]*Session, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			so := seed.options(fmt.Sprintf("worker-%d", i))
			so.Silence, so.Heartbeat = 10*time.Second, 5*time.Second
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			s, err := Join(ctx, so)
			if err != nil {
				t.Error(err)
				return
			}
			sessions[i] = s
		}()
	}
	wg.Wait()
	defer func() {
		for _, s := range sessions {
			if s != nil {
				s.Close()
			}
		}
	}()
	if t.Failed() {
		return
	}
	for i, s := range sessions {
		eventually(t, fmt.Sprintf("member %d sees all", i), func() bool { return len(s.Members()) == n })
		s.mu.Lock()
		frames := s.link.frames.Load()
		s.mu.Unlock()
		if frames > n+20 {
			t.Errorf("member %d was sent %d frames for %d joins", i, frames, n)
		}
	}
	ids := map[uint32]bool{}
	addresses := map[string]bool{}
	for _, m := range sessions[0].Members() {
		ids[m.ID], addresses[m.OverlayAddress.String()] = true, true
	}
	if len(ids) != n || len(addresses) != n {
		t.Errorf("%d ids and %d addresses for %d members", len(ids), len(addresses), n)
	}
	if !slices.IsSortedFunc(sessions[0].Members(), func(a, b Member) int { return int(a.ID) - int(b.ID) }) {
		t.Error("members are not sorted by id")
	}
}
