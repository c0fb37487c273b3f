// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// witness answers probes with what a test wants, and notes what it was asked.
type witness struct {
	endpoint string
	port     uint16
	deaf     atomic.Int32 // connections that are ended without an answer

	mu   sync.Mutex
	seen []uint16 // flags, in order
}

func newWitness(t *testing.T, key []byte, say func(flags uint16, times int) answer) *witness {
	t.Helper()
	ln, port := listenOn(t, "127.0.0.1")
	w := &witness{endpoint: ln.Addr().String(), port: port}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.serve(conn, key, say) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	return w
}

func (w *witness) serve(conn net.Conn, key []byte, say func(flags uint16, times int) answer) {
	defer conn.Close()
	if w.deaf.Add(-1) >= 0 {
		return
	}
	b := make([]byte, prefaceSize)
	if _, err := io.ReadFull(conn, b); err != nil {
		return
	}
	p, err := open(key, b)
	if err != nil {
		return
	}
	w.mu.Lock()
	times := 0
	for _, f := range w.seen {
		if f == p.flags {
			times++
		}
	}
	w.seen = append(w.seen, p.flags)
	w.mu.Unlock()
	_, _ = conn.Write(say(p.flags, times).seal(key, p.nonce))
	_, _ = conn.Read(b) // the asker ends it
}

// What several witnesses say makes one report.
func TestExamineNAT(t *testing.T) {
	place, elsewhere := netip.MustParseAddrPort("127.71.0.1:5000"), netip.MustParseAddrPort("127.71.0.1:5001")
	away := netip.MustParseAddrPort("127.71.0.2:5000")
	const independent, dependent = cluster.MappingIndependent, cluster.MappingDependent
	for _, test := range []struct {
		name          string
		second, third netip.AddrPort // as those witnesses see the port
		dialled       netip.AddrPort // as who dials it sees the asker
		verdicts      []verdict
		want          cluster.NATReport
	}{
		{"a cone", place, place, place, []verdict{verdictOpen}, cluster.NATReport{Mapping: independent, Filtering: cluster.FilteringOpen}},
		{"it drops", place, place, place, []verdict{verdictSilent}, cluster.NATReport{Mapping: independent, Filtering: cluster.FilteringClosed, Unexpected: cluster.UnexpectedDrop}},
		{"it resets", place, place, place, []verdict{verdictRefused}, cluster.NATReport{Mapping: independent, Filtering: cluster.FilteringClosed, Unexpected: cluster.UnexpectedReset}},
		{"by port", elsewhere, place, place, []verdict{verdictSilent}, cluster.NATReport{Mapping: dependent, Filtering: cluster.FilteringClosed, Unexpected: cluster.UnexpectedDrop}},
		{"by address", place, elsewhere, place, []verdict{verdictSilent}, cluster.NATReport{Mapping: dependent, Filtering: cluster.FilteringClosed, Unexpected: cluster.UnexpectedDrop}},
		{"asked too often at first", place, place, place, []verdict{verdictNone, verdictOpen}, cluster.NATReport{Mapping: independent, Filtering: cluster.FilteringOpen}},
		{"of two addresses", place, place, away, []verdict{verdictOpen}, cluster.NATReport{Mapping: independent}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t)
			n.node(seed)
			var relays []RelayNode
			v := n.node(behindNAT, func(_ *cluster.Member, o *Options) { o.Relays = func() []RelayNode { return relays } })
			key := *v.key.Load()
			second := newWitness(t, key, func(uint16, int) answer { return answer{observed: test.second} })
			first := newWitness(t, key, func(uint16, int) answer { return answer{observed: place, second: second.port} })
			third := newWitness(t, key, func(flags uint16, times int) answer {
				if flags == probeDial {
					return answer{observed: test.dialled, verdict: test.verdicts[min(times, len(test.verdicts)-1)]}
				}
				return answer{observed: test.third}
			})
			relays = []RelayNode{{ID: 101, Seed: true, Endpoint: first.endpoint}, {ID: 102, Seed: true, Endpoint: third.endpoint}}
			m, err := v.mapPort(t.Context(), 0)
			must(t, err)
			defer m.Close()
			early := cluster.NATReport{}
			got, _ := v.examineNAT(t.Context(), m, cluster.NATReport{}, func(r cluster.NATReport) { early = r })
			if test.want.Mapped = place; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if early.Mapped != place || early.Filtering != "" || (early.Mapping == dependent) != (test.second == elsewhere) {
				t.Errorf("told early: %+v", early)
			}
			third.mu.Lock()
			defer third.mu.Unlock()
			// It dials as somebody who was not written to.
			if want := append(slices.Repeat([]uint16{probeDial}, len(test.verdicts)), 0); !slices.Equal(third.seen, want) {
				t.Errorf("the last witness was asked %d, want %d", third.seen, want)
			}
		})
	}
}

// A second look at a NAT keeps what the first one saw: witnesses that were written to
// since would take it for open, and who answers nothing now tells nothing.
func TestAnotherLookAtANATMakesNothingWorse(t *testing.T) {
	n := newNetwork(t)
	v := n.node(behindNAT)
	place := netip.MustParseAddrPort("127.71.0.1:5000")
	key := *v.key.Load()
	first := newWitness(t, key, func(uint16, int) answer { return answer{observed: place} })
	other := newWitness(t, key, func(uint16, int) answer { return answer{observed: place, verdict: verdictOpen} })
	v.o.Relays = func() []RelayNode {
		return []RelayNode{{ID: 101, Seed: true, Endpoint: first.endpoint}, {ID: 102, Seed: true, Endpoint: other.endpoint}}
	}
	m, err := v.mapPort(t.Context(), 0)
	must(t, err)
	defer m.Close()
	before := cluster.NATReport{Mapped: m.Mapped, Mapping: cluster.MappingDependent, Filtering: cluster.FilteringClosed,
		Unexpected: cluster.UnexpectedDrop, Preserves: true, Hairpin: true, HairpinOpen: true}
	for _, deaf := range []int32{0, 100} {
		first.deaf.Store(deaf)
		got, whole := v.learn(t.Context(), m, before, func(cluster.NATReport) {})
		if got != before || !whole {
			t.Errorf("%+v became %+v, whole: %t", before, got, whole)
		}
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	if slices.Contains(other.seen, probeDial) {
		t.Error("the filtering was asked for again")
	}
}
