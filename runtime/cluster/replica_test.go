// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// wire is a way from one place to a seed that can be cut.
type wire struct {
	net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newWire(t *testing.T, to string) *wire {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: ln, to: to, conns: map[net.Conn]bool{}}
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			go w.carry(near)
		}
	}()
	t.Cleanup(func() { w.set(true); ln.Close() })
	return w
}

func (w *wire) carry(near net.Conn) {
	defer near.Close()
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut {
		return
	}
	far, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer far.Close()
	w.mu.Lock()
	if w.cut {
		w.mu.Unlock()
		return
	}
	w.conns[near], w.conns[far] = true, true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.conns, near)
		delete(w.conns, far)
	}()
	go func() {
		_, _ = io.Copy(far, near)
		far.Close()
		near.Close()
	}()
	_, _ = io.Copy(near, far)
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.conns {
		if cut {
			c.Close()
		}
	}
}

// trio is three seeds that reach each other, and are reached, over wires.
type trio struct {
	t       *testing.T
	o       SeedOptions
	dirs    string
	seeds   [3]*testSeed
	address [3]string
	between [3][3]*wire // [from][to]
	in      [3]*wire    // from the members
	known   [3]*Session // each seed's own view, as its node has it
}

var trios atomic.Uint32

func startTrio(t *testing.T) *trio {
	t.Helper()
	return startTrioWith(t, 2*time.Second)
}

func startTrioWith(t *testing.T, lease time.Duration) *trio {
	t.Helper()
	w := &trio{t: t, o: testOptions(t), dirs: t.TempDir()}
	w.o.StatePath, w.o.Lease = "", lease
	// Addresses first: they must know each other. On one of our own no connection
	// of another process takes the port meanwhile.
	host := fmt.Sprintf("127.77.%d.%d:0", os.Getpid()%250, 1+trios.Add(1)%250)
	var held []net.Listener // all at once, or two may get the same
	for i := range 3 {
		ln, err := net.Listen("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		w.address[i] = ln.Addr().String()
		held = append(held, ln)
	}
	for _, ln := range held {
		ln.Close()
	}
	for i := range 3 {
		w.in[i] = newWire(t, w.address[i])
		for j := range 3 {
			w.between[i][j] = newWire(t, w.address[j])
		}
	}
	for i := range 3 {
		w.start(i)
	}
	w.leader()
	for i := range 3 {
		w.watch(i)
	}
	return w
}

func (w *trio) start(i int) {
	w.t.Helper()
	o := w.o
	r := &Replica{Number: i, Dir: filepath.Join(w.dirs, fmt.Sprint(i), "raft"), Election: 500 * time.Millisecond}
	for j := range 3 {
		r.Endpoints = append(r.Endpoints, w.between[i][j].Addr().String())
	}
	r.Known = func() []Member {
		if s := w.known[i]; s != nil {
			return s.Members()
		}
		return nil
	}
	o.Replica = r
	w.seeds[i] = startSeed(w.t, o, w.address[i])
}

// watch gives seed i the view of the network that its own node has.
func (w *trio) watch(i int) {
	w.t.Helper()
	o := w.options("")
	o.Seeds = w.seeds[i].replica.Endpoints
	s, err := Observe(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.known[i] = s
	w.t.Cleanup(func() { s.Close() })
}

func (w *trio) options(slot string) Options {
	o := w.seeds[0].options(slot)
	o.Seeds = []string{w.in[0].Addr().String(), w.in[1].Addr().String(), w.in[2].Addr().String()}
	return o
}

// leader waits until one seed leads and the others know.
func (w *trio) leader(except ...int) int {
	w.t.Helper()
	found := -1
	eventually(w.t, "a seed leads", func() bool {
		for i, s := range w.seeds {
			if len(except) > 0 && i == except[0] || s == nil {
				continue
			}
			s.mu.Lock()
			leading := s.leading
			s.mu.Unlock()
			if leading {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

// isolate cuts seed i off from the other seeds, and from the members too if
// it is to look dead.
func (w *trio) isolate(i int, cut, dead bool) {
	for j := range 3 {
		if j != i {
			w.between[i][j].set(cut)
			w.between[j][i].set(cut)
		}
	}
	w.in[i].set(cut && dead)
}

func (w *trio) leads(i int) bool {
	s := w.seeds[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading
}

func TestSeveralSeedsAdmitWhicheverIsAsked(t *testing.T) {
	w := startTrio(t)
	var sessions []*Session
	for i := range 3 {
		o := w.options(fmt.Sprintf("node-of-%d", i))
		o.Seeds = append(o.Seeds[i:], o.Seeds[:i]...) // pointers to the leader then lead astray
		sessions = append(sessions, join(t, o))
	}
	for i, s := range sessions {
		if self := s.Self(); self.ID != uint32(i+1) || self.OverlayAddress.String() != fmt.Sprintf("100.80.0.%d", i+1) {
			t.Errorf("member %d is %+v", i, self)
		}
		eventually(t, "all see all", func() bool { return len(s.Members()) == 3 })
	}
}

// Whoever is told an id or address is the only one, whatever dies meanwhile.
func TestLeadersDieUnderJoinLoad(t *testing.T) {
	const joins, workers = 45, 6
	w := startTrio(t)
	var mu sync.Mutex
	ids, addresses := map[uint32]string{}, map[string]string{}
	var sessions []*Session
	work := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := range work {
				slot := fmt.Sprintf("worker-%d", n)
				o := w.options(slot)
				o.Hello.LaunchToken = "launch of " + slot
				s := joinPatiently(t, o)
				if s == nil {
					return
				}
				self := s.Self()
				mu.Lock()
				sessions = append(sessions, s)
				if other := ids[self.ID]; other != "" {
					t.Errorf("id %d was given to %s and %s", self.ID, other, slot)
				}
				if other := addresses[self.OverlayAddress.String()]; other != "" {
					t.Errorf("address %s was given to %s and %s", self.OverlayAddress, other, slot)
				}
				ids[self.ID], addresses[self.OverlayAddress.String()] = slot, slot
				mu.Unlock()
			}
		})
	}
	dead := -1
	for n := range joins {
		work <- n
		if n%15 == 7 {
			if dead >= 0 {
				w.isolate(dead, false, true)
			}
			dead = w.leader(dead)
			w.isolate(dead, true, true)
		}
	}
	close(work)
	wg.Wait()
	w.isolate(dead, false, true)
	for _, s := range sessions {
		defer s.Close()
		eventually(t, "all see all", func() bool { return s.Connected() && len(s.Members()) == joins })
		self := s.Self()
		if ids[self.ID] != self.Slot || addresses[self.OverlayAddress.String()] != self.Slot {
			t.Errorf("%s became %+v", self.Slot, self)
		}
	}
	want, _ := w.seeds[w.leader()].replica.ledger.Snapshot()
	for i, s := range w.seeds {
		eventually(t, fmt.Sprintf("seed %d knows the same", i), func() bool {
			got, _ := s.replica.ledger.Snapshot()
			return string(got) == string(want)
		})
	}
}

// joinPatiently joins as a node does: again, while the seeds may change their mind.
func joinPatiently(t *testing.T, o Options) *Session {
	for deadline := time.Now().Add(60 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		s, err := Join(ctx, o)
		cancel()
		if err == nil {
			return s
		}
		if !Passing(err) || time.Now().After(deadline) {
			t.Error(err)
			return nil
		}
	}
}

func TestMembersOfADeadSeedGoOnUnderAnother(t *testing.T) {
	w := startTrioWith(t, 6*time.Second) // they come over before half of it ends
	first := w.leader()
	a, b := join(t, w.options("a")), join(t, w.options("b"))
	if err := b.SetStatus(t.Context(), Status{State: StateRunning, Listeners: []uint16{80}}); err != nil {
		t.Fatal(err)
	}
	id := b.Self().ID
	for i := range 3 {
		eventually(t, "every seed's node sees b run", func() bool { return stateOf(w.known[i], id) == StateRunning })
	}
	before := []Member{a.Self(), b.Self()}
	events, stop := a.Subscribe()
	defer stop()
	<-events
	<-events // the present ones
	w.isolate(first, true, true)
	began := time.Now()
	eventually(t, "both are with another seed", func() bool {
		return w.leader(first) != first && a.Connected() && b.Connected() && a.SeedEndpoint() != w.in[first].Addr().String()
	})
	t.Logf("another seed after %v", time.Since(began))
	for i, s := range []*Session{a, b} {
		if got := s.Self(); got.ID != before[i].ID || got.OverlayAddress != before[i].OverlayAddress {
			t.Errorf("%+v became %+v", before[i], got)
		}
	}
	join(t, w.options("c"))
	for seen := false; !seen; {
		e := <-events
		if e.Type == EventLeave || e.Member.State == StateLost || e.Member.ID == id && (e.Member.State != StateRunning || len(e.Member.Listeners) != 1) {
			t.Errorf("while the seed was replaced: %s %+v", e.Type, e.Member)
		}
		seen = e.Member.Slot == "c"
	}
	// The dead one comes back, follows, and says where to go.
	w.isolate(first, false, true)
	eventually(t, "the old leader follows", func() bool { return !w.leads(first) })
	o := w.options("d")
	o.Seeds[0], o.Seeds[first] = o.Seeds[first], o.Seeds[0]
	join(t, o)
}

// A seed that is cut off admits nobody, and a holder on its side gives way to
// the one that the majority admits.
func TestACutOffSeedGivesNothingAway(t *testing.T) {
	w := startTrio(t)
	first := w.leader()
	only := func(slot string) Options {
		o := w.options(slot)
		o.Seeds = []string{w.in[first].Addr().String()}
		o.Heartbeat, o.Silence = 100*time.Millisecond, 3*time.Second
		return o
	}
	old := join(t, only("store")) // reaches the first seed only
	before := old.Self()
	w.isolate(first, true, false)
	eventually(t, "the cut off seed has noticed", func() bool { return !w.leads(first) })
	began := time.Now()
	_, err := Join(t.Context(), only("new"))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "in touch with no majority of the network's 3 seeds") {
		t.Errorf("a cut off seed answers %v", err)
	}
	if took := time.Since(began); took > leaderWait+5*time.Second {
		t.Errorf("it said so after %v", took)
	}
	if old.Err() != nil || len(old.Members()) != 1 {
		t.Errorf("the member on its side: %v, sees %v", old.Err(), old.Members())
	}
	successor := joinPatiently(t, w.options("store"))
	defer successor.Close()
	if got := successor.Self(); got.ID == before.ID || got.OverlayAddress != before.OverlayAddress {
		t.Errorf("the successor of %+v is %+v", before, got)
	}
	w.isolate(first, false, false)
	// The old holder can ask only the first seed, which does not lead: it is
	// shown to one that does.
	eventually(t, "the old leader follows", func() bool { return !w.leads(first) && w.seeds[first].replica.log.Leader() != "" })
	o := w.options("store")
	o.Hello.LaunchToken = old.o.Hello.LaunchToken
	if _, err := Join(t.Context(), o); !errors.Is(err, ErrNameTaken) {
		t.Errorf("the old holder gets %v", err)
	}
}

// A new leader does not give a slot away before its holder had time to come.
func TestANewLeaderWaitsForHolders(t *testing.T) {
	w := startTrioWith(t, time.Hour)
	first := w.leader()
	var slow gate
	o := w.options("store")
	o.Dial = slow.dial
	holder := join(t, o)
	event := launched(w.options("logic-0"), "one", "")
	event.Dial = slow.dial
	function := join(t, event)
	slow.shut(true)
	w.isolate(first, true, true)
	second := w.leader(first)
	ask := func(o Options) <-chan error {
		got := make(chan error, 1)
		go func() {
			s, err := Join(t.Context(), o)
			if err == nil {
				s.Close()
			}
			got <- err
		}()
		return got
	}
	got, repeated := ask(w.options("store")), ask(launched(w.options("logic-0"), "one", ""))
	eventually(t, "the other one asks", func() bool {
		s := w.seeds[second]
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) > 1
	})
	select {
	case err := <-got:
		t.Fatalf("while the holder is awaited another one gets %v", err)
	case err := <-repeated:
		t.Fatalf("while a function is awaited its repeated event gets %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	slow.shut(false)
	if err := <-got; !errors.Is(err, ErrNameTaken) {
		t.Errorf("after the holder has come over another one gets %v", err)
	}
	if err := <-repeated; !errors.Is(err, ErrRefused) {
		t.Errorf("after the function has come over its repeated event gets %v", err)
	}
	if holder.Err() != nil || function.Err() != nil {
		t.Error(holder.Err(), function.Err())
	}
}

// gate lets nobody through while it is shut.
type gate struct {
	mu     sync.Mutex
	closed bool
}

func (g *gate) shut(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errors.New("shut")
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func TestAllSeedsComeBack(t *testing.T) {
	w := startTrio(t)
	a := join(t, w.options("a"))
	gone := join(t, w.options("gone"))
	o := w.options("once")
	o.Hello.Kind, o.Hello.LaunchToken = "function", "one use"
	if err := join(t, o).Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	goneSelf := gone.Self()
	if err := gone.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := a.Self()
	for i := range 3 {
		w.seeds[i].stop()
		w.seeds[i] = nil
	}
	for i := range 3 {
		w.start(i)
	}
	eventually(t, "a is back", a.Connected)
	if got := a.Self(); got.ID != before.ID || got.OverlayAddress != before.OverlayAddress {
		t.Errorf("%+v became %+v", before, got)
	}
	if next := joinPatiently(t, w.options("gone")); next != nil {
		defer next.Close()
		if self := next.Self(); self.OverlayAddress != goneSelf.OverlayAddress || self.ID != 4 {
			t.Errorf("the successor of %+v is %+v", goneSelf, self)
		}
	}
	if _, err := Join(t.Context(), o); !errors.Is(err, ErrRefused) {
		t.Errorf("a spent launch after the restart gives %v", err)
	}
}

func TestAStateOfOneSeedIsNotTakenForThatOfThree(t *testing.T) {
	o := testOptions(t)
	if err := os.WriteFile(o.StatePath, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Replica = &Replica{Dir: filepath.Join(filepath.Dir(o.StatePath), "raft"), Endpoints: []string{"a:1", "b:1", "c:1"}}
	if _, err := NewSeed(o); err == nil || !strings.Contains(err.Error(), "is the state of a network with one seed: this one has 3") {
		t.Error(err)
	}
}

func TestEntriesOfOthersAreRefused(t *testing.T) {
	cidr := netip.MustParsePrefix("100.80.0.0/16")
	for want, c := range map[string]map[string]any{
		"version 2, protocol 1":                    {"version": 2, "protocol": 1, "network": "shop", "cidr": cidr},
		"version 1, protocol 3":                    {"version": 1, "protocol": 3, "network": "shop", "cidr": cidr},
		`is of network "other"`:                    {"version": 1, "protocol": 1, "network": "other", "cidr": cidr},
		"an entry of the seeds' log is damaged":    {"version": "x"},
		"this seed is of network \"shop\", 100.80": {"version": 1, "protocol": 1, "network": "shop", "cidr": "10.0.0.0/8"},
	} {
		l := &ledger{state: change{Network: "shop", CIDR: cidr, NextID: 1, Slots: map[string]*place{}}}
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Apply(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v", data, err)
		}
	}
}

// FuzzLedger: what is not understood changes nothing, and what is survives a
// snapshot.
func FuzzLedger(f *testing.F) {
	cidr := netip.MustParsePrefix("100.80.0.0/16")
	fresh := func() *ledger {
		return &ledger{state: change{Network: "shop", CIDR: cidr, NextID: 1, Slots: map[string]*place{}}}
	}
	good, _ := change{Network: "shop", CIDR: cidr, NextID: 3, Slots: map[string]*place{
		"a": {slot: slot{Address: cidr.Addr().Next(), tenant: tenant{ID: 1, Launch: "x"}}, Member: &Member{ID: 1, Slot: "a"}}, "b": nil,
	}}.encode()
	f.Add(good)
	f.Add([]byte(`{"version":1,"protocol":1,"network":"shop","cidr":"100.80.0.0/16","slots":{"a":{"address":"","id":-1}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := fresh()
		before, _ := l.Snapshot()
		err := l.Apply(data)
		after, snapshotErr := l.Snapshot()
		if snapshotErr != nil {
			t.Fatal(snapshotErr)
		}
		if err != nil && string(before) != string(after) {
			t.Fatalf("refused (%v), and yet %s", err, after)
		}
		second := fresh()
		if err := second.Restore(after); err != nil {
			t.Fatalf("its own snapshot %s: %v", after, err)
		}
		if again, _ := second.Snapshot(); string(again) != string(after) {
			t.Fatalf("%s became %s", after, again)
		}
	})
}

// A join token is no way into the seeds' log.
func TestATokenOpensNoStreamOfTheLog(t *testing.T) {
	w := startTrio(t)
	token, err := NewToken(testSecret, Token{Network: "shop", Seeds: []string{w.address[0]}, Slot: "guest", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	outsider, err := tokenIdentity(&token)
	if err != nil {
		t.Fatal(err)
	}
	member, err := newIdentity("shop", testSecret)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[*identity]bool{outsider: false, member: true} {
		conn, err := tls.Dial("tcp", w.address[0], id.config(x509.ExtKeyUsageServerAuth, alpnSeeds))
		if err != nil {
			t.Fatal(err)
		}
		// An answer to nothing never comes; a refusal does.
		patience := 20 * time.Second
		if want {
			patience = 500 * time.Millisecond
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
		if open := errors.Is(err, os.ErrDeadlineExceeded); open != want {
			t.Errorf("a stream stays open: %v, want %v (%v)", open, want, err)
		}
		conn.Close()
	}
}
