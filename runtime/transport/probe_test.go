// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"golang.org/x/sys/unix"
)

// probing is a seed and a node that believes that it is behind a NAT; the one
// there is maps every port to itself.
func probing(t *testing.T) (seedNode, asker *node) {
	t.Helper()
	n := newNetwork(t)
	seedNode = n.node(seed)
	ln, err := ListenOverlay(context.Background(), "127.68.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- seedNode.ServeProbes(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	eventually(t, "the second port is known", func() bool { return seedNode.probes.second.Load() != 0 })
	return seedNode, n.node(behindNAT)
}

func (p *probes) count(member uint32) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[member]
}

// TestMapPort: the port is where the seed says, may be used again, and is kept
// until it is given up.
func TestMapPort(t *testing.T) {
	s, v := probing(t)
	m, err := v.mapPort(context.Background(), 0)
	must(t, err)
	if want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), m.Local); m.Local == 0 || m.Mapped != want {
		t.Errorf("port %d is mapped to %s, want %s", m.Local, m.Mapped, want)
	}
	if m.second == 0 {
		t.Error("the seed's second port is not told")
	}
	eventually(t, "the seed keeps it", func() bool { return s.probes.count(v.id) == 1 })

	// A guest's socket needs no more than SO_REUSEADDR.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Port: int(m.Local)}))
	to := v.network.Members()[1].UnderlayAddress // the asker's own overlay port
	must(t, unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}))

	select {
	case <-m.Gone():
		t.Error("the mapping is gone")
	default:
	}
	m.Close()
	eventually(t, "the seed lets go", func() bool { return s.probes.count(v.id) == 0 })
}

// TestPortsRest: a port that was given up is not mapped again soon, as no other
// connection may follow so quickly on one that a NAT remembers.
func TestPortsRest(t *testing.T) {
	_, v := probing(t)
	v.turn = turn{first: 40001, last: 40063, next: 40061} // 32, of which others may use some
	before := map[uint16]int{}
	for i := range 16 {
		m, err := v.mapPort(context.Background(), 0)
		must(t, err)
		m.Close()
		if at, again := before[m.Local]; again || m.Local < 40001 || m.Local > 40063 {
			t.Errorf("the %d-th port is %d, as the %d-th was: %v", i, m.Local, at, again)
		}
		before[m.Local] = i
	}
	all := turn{}
	first := all.take()
	for range 1000 {
		if port := all.take(); port == first {
			t.Fatalf("port %d has its turn again", port)
		}
	}
}

// TestTooManyMappings: a member may not have the seed keep any number.
func TestTooManyMappings(t *testing.T) {
	s, v := probing(t)
	s.probes.mu.Lock()
	s.probes.of[v.id] = maxKeptOf
	s.probes.mu.Unlock()
	m, err := v.mapPort(context.Background(), 0)
	must(t, err)
	defer m.Close()
	select {
	case <-m.Gone():
	case <-time.After(20 * time.Second):
		t.Error("one more mapping is kept")
	}
}

// TestProbeDials: the seed says what it got, and does not dial too often.
func TestProbeDials(t *testing.T) {
	_, v := probing(t)
	endpoint := v.relays()[0].Endpoint
	seen, began := map[verdict]int{}, time.Now()
	for range 8 {
		conn, a, err := v.probe(context.Background(), endpoint, 0, preface{flags: probeDial, src: netip.MustParseAddrPort("0.0.0.0:1")})
		must(t, err)
		conn.Close()
		seen[a.verdict]++
	}
	most := 4 + int(time.Since(began)/time.Second) // one more for each second that this takes
	if n := seen[verdictRefused]; n < 4 || n > most || n+seen[verdictNone] != 8 {
		t.Errorf("verdicts %v, want 4 refused, %d at most, and the others not tried", seen, most)
	}
}

// TestProbeElsewhere: who does not relay answers nothing.
func TestProbeElsewhere(t *testing.T) {
	_, v := probing(t)
	if _, _, err := v.probe(context.Background(), v.Self().UnderlayAddress.String(), 0, preface{}); err == nil {
		t.Error("a node that does not relay answered a probe")
	}
}

// TestKeepMapped: the report comes by itself, and the mapping is made again
// when it has ended, which is no news.
func TestKeepMapped(t *testing.T) {
	s, v := probing(t)
	port := v.Self().UnderlayAddress.Port()
	ctx, cancel := context.WithCancel(context.Background())
	reports, done := make(chan cluster.NATReport, 4), make(chan error)
	go func() { done <- v.KeepMapped(ctx, port, func(r cluster.NATReport) { reports <- r }) }()
	select {
	case r := <-reports: // what takes no waiting
		if r.Mapping != cluster.MappingIndependent || r.Filtering != "" {
			t.Errorf("first report %+v", r)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no report")
	}
	select {
	case r := <-reports:
		r.Hairpin = false // may or may not be: both ends dial at about the same time
		want := cluster.NATReport{
			Mapped:  netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
			Mapping: cluster.MappingIndependent, Filtering: cluster.FilteringClosed, Unexpected: cluster.UnexpectedReset, Preserves: true,
		}
		if r != want {
			t.Errorf("report\n%+v, want\n%+v", r, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no report")
	}
	first := keptOne(t, s, v.id)
	s.probes.mu.Lock()
	for fd, m := range s.probes.kept {
		s.probes.drop(fd, m)
	}
	s.probes.mu.Unlock()
	eventually(t, "mapped again", func() bool {
		s.probes.mu.Lock()
		defer s.probes.mu.Unlock()
		for _, m := range s.probes.kept {
			return m != first
		}
		return false
	})
	cancel()
	must(t, <-done)
	if len(reports) != 0 {
		t.Errorf("the same report again: %+v", <-reports)
	}
}

// keptOne is the one connection that the seed keeps for a member.
func keptOne(t *testing.T, s *node, member uint32) (one *mark) {
	t.Helper()
	eventually(t, "one mapping is kept", func() bool { return s.probes.count(member) == 1 })
	s.probes.mu.Lock()
	defer s.probes.mu.Unlock()
	for _, m := range s.probes.kept {
		one = m
	}
	return one
}

// TestWitnesses: seeds first, each node with another one, then other relays.
func TestWitnesses(t *testing.T) {
	n := newNetwork(t)
	all := func() []RelayNode {
		return []RelayNode{{ID: 9}, {ID: 1, Seed: true}, {ID: 2, Seed: true}, {ID: 8}}
	}
	for _, want := range [][]uint32{{2, 1, 9, 8}, {1, 2, 9, 8}} {
		v := n.node(func(_ *cluster.Member, o *Options) { o.Relays = all })
		var got []uint32
		for _, w := range v.witnesses() {
			got = append(got, w.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("node %d asks %v, want %v", v.id, got, want)
		}
	}
}

func TestAnswer(t *testing.T) {
	key, nonce := []byte("key"), [16]byte{1, 2, 3}
	want := answer{observed: netip.MustParseAddrPort("192.0.2.7:4711"), second: 7718, verdict: verdictSilent}
	b := want.seal(key, nonce)
	if got, err := openAnswer(key, nonce, b); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	other := nonce
	other[0]++
	if _, err := openAnswer(key, other, b); !errors.Is(err, errAnswer) {
		t.Errorf("the answer to another probe: %v", err)
	}
	for i := range b {
		b[i] ^= 1
		if _, err := openAnswer(key, nonce, b); !errors.Is(err, errAnswer) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		b[i] ^= 1
	}
}

func FuzzAnswer(f *testing.F) {
	key, nonce := []byte("key"), [16]byte{1, 2, 3}
	f.Add(answer{observed: netip.MustParseAddrPort("192.0.2.7:4711")}.seal(key, nonce), true)
	f.Add([]byte("BXA1"), false)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if sign && len(b) == answerSize {
			copy(b[16:], answerCode(key, nonce, b[:16]))
		}
		a, err := openAnswer(key, nonce, b)
		if err != nil {
			return
		}
		if !sign && string(b[16:]) != string(answerCode(key, nonce, b[:16])) {
			t.Fatalf("taken without proof: %x", b)
		}
		again, err := openAnswer(key, nonce, a.seal(key, nonce))
		if err != nil || again != a {
			t.Fatalf("%+v became %+v, %v", a, again, err)
		}
	})
}

// TestNATLearntLate: what a witness could not tell at first, as there was much to do, is
// asked again.
func TestNATLearntLate(t *testing.T) {
	n := newNetwork(t)
	v := n.node(behindNAT)
	place := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), v.Self().UnderlayAddress.Port())
	key := *v.key.Load()
	second := newWitness(t, key, func(uint16, int) answer { return answer{observed: place} })
	first := newWitness(t, key, func(uint16, int) answer { return answer{observed: place, second: second.port, verdict: verdictSilent} })
	second.deaf.Store(1)
	v.o.Relays = func() []RelayNode { return []RelayNode{{ID: 101, Seed: true, Endpoint: first.endpoint}} }
	ctx, cancel := context.WithCancel(t.Context())
	reports, done := make(chan cluster.NATReport, 8), make(chan error)
	go func() { done <- v.KeepMapped(ctx, place.Port(), func(r cluster.NATReport) { reports <- r }) }()
	var r cluster.NATReport
	for said := 0; said < 8 && r.Mapping == ""; said++ {
		select {
		case r = <-reports:
		case <-time.After(5 * time.Second):
			said = 8
		}
	}
	if r.Mapping != cluster.MappingIndependent || r.Filtering != cluster.FilteringClosed {
		t.Errorf("%+v is all that is ever known", r)
	}
	cancel()
	must(t, <-done)
}
