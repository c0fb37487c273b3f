// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// A punch and a relay that race for a connect show the peer's guest one connection,
// the one that is used, whoever is first.
func TestRaceShowsOneConnection(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	for _, test := range []struct {
		name        string
		punch, meet time.Duration // how late b is asked
		paths       []string
	}{
		{"the punch first", 50 * time.Millisecond, 500 * time.Millisecond, []string{pathPunch}},
		{"the relay first", 500 * time.Millisecond, 50 * time.Millisecond, []string{pathRelay}},
		{"together", 50 * time.Millisecond, 50 * time.Millisecond, []string{pathPunch, pathRelay}},
	} {
		t.Run(test.name, func(t *testing.T) {
			const connects = 12
			a, b := n.node(), n.node(behindNAT) // which dials back
			arrivals := b.listen(80)
			b.late = func(method string) time.Duration {
				jitter := rand.N(4 * time.Millisecond)
				switch method {
				case methodDialBack:
					return headStart + test.punch + jitter
				case methodRelay:
					return test.meet + jitter
				}
				return 0
			}
			guests := map[uint16]*guest{}
			for range connects {
				g := a.connect(b.port(80), false)
				guests[g.local.Port()] = g
			}
			for range connects {
				in := receive(t, arrivals)
				g := guests[in.peer.Port()]
				if g == nil {
					t.Fatalf("another one from %s", in.peer)
				}
				delete(guests, in.peer.Port())
				g.events(5 * time.Second)
				talk(t, g.conn(), in.conn)
			}
			eventually(t, "nothing is on its way any more", func() bool {
				return len(b.passive) == 0 && len(a.holds) == 0 && n.by[1].relay.count() == 0
			})
			select {
			case in := <-arrivals:
				t.Errorf("one too many, from %s", in.peer)
			default:
			}
			if made := sum(a.Paths(), test.paths); made != connects {
				t.Errorf("%d were made over %v, want %d: %v", made, test.paths, connects, a.Paths())
			}
		})
	}
}

// A connect that is given up while it is held is not seen by the peer's guest.
func TestConnectGivenUpShowsNothing(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	for name, pair := range map[string][2]*node{
		"dialled back": {n.node(), n.node(behindNAT)},
		"relayed":      {n.node(behindNAT), n.node(behindNAT)},
	} {
		a, b := pair[0], pair[1]
		arrivals := b.listen(80)
		b.late = func(string) time.Duration { return 20 * time.Millisecond }
		g := a.connect(b.port(80), false)
		g.close()
		a.gone.Store(true)
		eventually(t, "the two ends have met", func() bool { return len(b.passive) > 0 })
		select {
		case in := <-arrivals:
			in.conn.Close()
			t.Errorf("%s: a connection arrived from %s", name, in.peer)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// A connect that waits for the peer's NAT to be probed goes on when that is done.
func TestHeldConnectLearnsOfTheNAT(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	a, b := n.node(behindNAT, only(pathPunch)), n.node(seenAt("127.69.0.2"))
	arrivals := b.listen(80)
	known := *n.on[b.id-1].NATReport
	known.Filtering, known.Mapped = cluster.FilteringOpen, b.Self().UnderlayAddress
	n.on[a.id-1].NATReport = &cluster.NATReport{Mapped: netip.MustParseAddrPort("127.69.0.3:7717")}
	n.on[b.id-1].NATReport, n.on[b.id-1].Since = nil, time.Now()
	g := a.connect(b.port(80), false)
	if got := g.events(50 * time.Millisecond); got != 0 {
		t.Fatalf("events %#x before the NAT is known", got)
	}
	n.mu.Lock()
	n.on[b.id-1].NATReport = &known
	n.mu.Unlock()
	in := receive(t, arrivals)
	g.events(5 * time.Second)
	talk(t, g.conn(), in.conn)
}

// sum is how many connections were made over these transports.
func sum(all []cluster.Path, over []string) (n uint64) {
	for _, p := range all {
		if slices.Contains(over, p.Transport) {
			n += p.Count
		}
	}
	return n
}
