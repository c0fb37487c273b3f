// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"
	"testing"
	"time"
)

// A ticket may lead nowhere: the peer's NAT has forgotten, or another one stands
// there. The peer is then asked to dial the guest's socket that waits, until that
// works, and what was prepared like the ticket is dropped.
func TestWaitingConnectIsRescued(t *testing.T) {
	for _, test := range []struct {
		name         string
		idle, moving bool
	}{
		{name: "it waits"},
		{name: "it waits, and its place is known late", moving: true},
		{name: "it does not wait", idle: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t)
			n.node(seed)
			v, peer := n.node(seenAt("127.69.0.3")), n.node(seenAt("127.69.0.2"))
			peer.listen(80)
			n.on[peer.id-1].Listeners = []uint16{80}
			v.gone.Store(test.idle)
			place, port := listenOn(t, "127.69.0.3") // of the guest's socket, outside
			if test.moving {
				v.movesTo("127.69.0.4")
			}
			k, other := made(t, 0), made(t, 0)
			k.Local, k.Mapped = 4321, netip.AddrPortFrom(netip.MustParseAddr("127.69.0.3"), port)
			v.tickets.mu.Lock()
			v.tickets.by[peer.id] = &stock{tickets: []ticket{other, k}, own: reportOf(v.Self()), peer: reportOf(peer.Self()), busy: true}
			v.tickets.count = 2
			v.tickets.mu.Unlock()
			prepared := func() bool {
				v.tickets.mu.Lock()
				defer v.tickets.mu.Unlock()
				return v.tickets.by[peer.id] != nil
			}

			plan, ok := v.Prompt(Request{Cookie: 1, To: peer.port(80)})
			if !ok || plan.Class != ClassDirect || plan.Local != k.Local || plan.Addr != peer.Self().NATReport.Mapped {
				t.Fatalf("the ticket is not used: %+v, %v", plan, ok)
			}
			if test.moving {
				eventually(t, "the first attempt", func() bool { return !prepared() })
				v.movesTo("127.69.0.3")
			}
			place.SetDeadline(time.Now().Add(5 * time.Second))
			if test.idle {
				place.SetDeadline(time.Now().Add(2 * rescueAfter))
			}
			conn, err := place.Accept()
			if test.idle {
				if err == nil {
					t.Error("a socket that does not wait was dialled")
				}
				if !prepared() {
					t.Error("the other ticket was dropped")
				}
				return
			}
			must(t, err)
			defer conn.Close()
			v.gone.Store(true) // it is connected
			if from := remote(conn); from != peer.Self().UnderlayAddress {
				t.Errorf("it was dialled from %s, not from where the guest connects to", from)
			}
			if prepared() {
				t.Error("the other ticket is kept")
			}
		})
	}
}

// movesTo puts v behind a NAT with another address.
func (v *node) movesTo(address string) {
	v.network.mu.Lock()
	defer v.network.mu.Unlock()
	report := *v.on[v.id-1].NATReport
	report.Mapped = netip.AddrPortFrom(netip.MustParseAddr(address), report.Mapped.Port())
	v.on[v.id-1].NATReport = &report
}
