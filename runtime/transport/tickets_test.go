// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// made is a ticket made and renewed so long ago.
func made(t *testing.T, ago time.Duration) ticket {
	t.Helper()
	ln, _ := listenOn(t, "127.0.0.1")
	conn, err := net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	m := &Mapping{conn: conn, gone: make(chan struct{})}
	go func() {
		defer close(m.gone)
		_, _ = io.Copy(io.Discard, conn)
	}()
	t.Cleanup(m.Close)
	then := time.Now().Add(-ago)
	return ticket{Mapping: m, made: then, good: then}
}

// A guest's only attempt may not be spent on a path that was: a ticket is good
// for both NATs as they were, for a while, and once.
func TestTicketsGoBad(t *testing.T) {
	self, m := memberBehind(1, "restricted"), memberBehind(2, "restricted")
	changed := func(m cluster.Member) cluster.Member {
		report := *m.NATReport
		report.Mapped = memberBehind(9, "restricted").NATReport.Mapped
		m.NATReport = &report
		return m
	}
	gone := made(t, 0)
	gone.Close()
	aged := made(t, ticketLife)
	aged.good = time.Now()
	for name, c := range map[string]struct {
		self, peer cluster.Member
		ticket     ticket
		good       bool
	}{
		"as it was":         {self, m, made(t, time.Second), true},
		"the peer moved":    {self, changed(m), made(t, 0), false},
		"this node moved":   {changed(self), m, made(t, 0), false},
		"not renewed":       {self, m, made(t, 2*ticketAge), false},
		"its place is lost": {self, m, gone, false},
		"renewed too often": {self, m, aged, false},
	} {
		// Busy: nothing is made anew.
		s := &stock{tickets: []ticket{c.ticket}, own: reportOf(self), peer: reportOf(m), busy: true}
		all := &tickets{by: map[uint32]*stock{m.ID: s}, count: 1}
		if _, got := all.take(c.self, c.peer, 80); got != c.good {
			t.Errorf("%s: a ticket given: %v, want %v", name, got, c.good)
		}
		if _, again := all.take(self, m, 80); again || all.count != 0 {
			t.Errorf("%s: given again: %v; %d counted", name, again, all.count)
		}
	}
}

// Tickets are made some at a time, when half of them are gone, and not while the
// connect that took the last one of that half is under way.
func TestTicketsAreMadeSomeAtATime(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	here, there := n.node(seenAt("127.69.0.2")), n.node(seenAt("127.69.0.3"))
	self, peer := here.Self(), there.Self() // where nobody listens: none are made
	s := &stock{want: firstStock, own: reportOf(self), peer: reportOf(peer)}
	for range firstStock {
		s.tickets = append(s.tickets, made(t, 0))
	}
	all := &here.tickets
	all.mu.Lock()
	all.by[peer.ID], all.count = s, firstStock
	all.mu.Unlock()
	for range firstStock {
		if _, ok := all.take(self, peer, 80); !ok {
			t.Fatal("no ticket")
		}
		all.mu.Lock()
		if want := len(s.tickets) <= firstStock/2; s.filled.IsZero() == want {
			t.Errorf("with %d left more are wanted: %v, want %v", len(s.tickets), !want, want)
		}
		all.mu.Unlock()
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if s.want <= firstStock {
		t.Errorf("used up at once, and the next time there are %d again", s.want)
	}
}

// stocking is a node and a peer behind NATs, and what the peer is asked to open.
type stocking struct {
	*node
	peer *node

	mu    sync.Mutex
	calls []punchCall
	last  time.Time // when it was asked last
	shut  []uint16  // what it says it could not open
	deaf  bool      // it opens nothing
}

func newStocking(t *testing.T) *stocking {
	t.Helper()
	n := newNetwork(t)
	n.node(seed)
	s := &stocking{node: n.node(seenAt("127.0.0.1")), peer: n.node(seenAt("127.69.0.2"))}
	s.peer.punched = func(call punchCall) punchAnswer {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls, s.last = append(s.calls, call), time.Now()
		a := punchAnswer{meetAnswer: meetAnswer{Status: statusOK}, Shut: s.shut}
		if s.deaf {
			a.Status = statusUnreachable
		}
		return a
	}
	return s
}

func (s *stocking) want() { s.tickets.want(s.Self(), s.peer.Self(), 80) }

func (s *stocking) take() bool {
	k, ok := s.tickets.take(s.Self(), s.peer.Self(), 80)
	if ok {
		k.Close()
	}
	return ok
}

// stock is how many tickets there are, once none is being made, and whether the
// count of all agrees.
func (s *stocking) stock() (n int, idle bool) {
	s.tickets.mu.Lock()
	defer s.tickets.mu.Unlock()
	kept := s.tickets.by[s.peer.id]
	if kept == nil {
		return 0, s.tickets.count == 0
	}
	return len(kept.tickets), !kept.busy && len(kept.tickets) == s.tickets.count
}

func (s *stocking) has(want int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%d tickets", want), func() bool {
		n, idle := s.stock()
		return idle && n == want
	})
}

// change does something to the stock.
func (s *stocking) change(f func(*stock)) {
	s.tickets.mu.Lock()
	defer s.tickets.mu.Unlock()
	f(s.tickets.by[s.peer.id])
}

// The connect that a ticket was taken for has the CPU first.
func TestTicketsAreMadeAfterTheConnect(t *testing.T) {
	s := newStocking(t)
	s.want()
	s.has(firstStock)
	began := time.Now()
	for range firstStock / 2 {
		if began = time.Now(); !s.take() {
			t.Fatal("no ticket")
		}
	}
	s.has(2 * firstStock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if took := s.last.Sub(began); took < fillPause {
		t.Errorf("more were asked for %v after one was taken, want %v or more", took, fillPause)
	}
}

// More tickets are made the faster they are used, up to a bound.
func TestStockGrowsToABound(t *testing.T) {
	s := newStocking(t)
	s.want()
	s.has(firstStock)
	for range 5 {
		for range mostStock {
			s.take()
		}
		s.want()
		eventually(t, "more are made", func() bool { n, idle := s.stock(); return idle && n > firstStock })
	}
	s.change(func(k *stock) {
		if k.want != mostStock || len(k.tickets) > mostStock {
			t.Errorf("%d of %d tickets", len(k.tickets), k.want)
		}
	})
}

// All that is prepared is bounded.
func TestTicketsAreBounded(t *testing.T) {
	s := newStocking(t)
	s.tickets.mu.Lock()
	s.tickets.count = mostTickets - 1
	s.tickets.mu.Unlock()
	s.want()
	eventually(t, "it is made", func() bool {
		s.tickets.mu.Lock()
		defer s.tickets.mu.Unlock()
		return !s.tickets.by[s.peer.id].busy
	})
	if n, _ := s.stock(); n != 1 {
		t.Errorf("%d tickets were made where one had a place", n)
	}
	s.tickets.mu.Lock()
	s.tickets.count = 1 // only its own
	s.tickets.mu.Unlock()
}

// The peer is asked to wait on before it stops to; what it waits for no more is
// given up.
func TestTicketsAreRenewed(t *testing.T) {
	s := newStocking(t)
	s.want()
	s.has(firstStock)
	aged := time.Now().Add(-ticketAge - time.Second)
	var lost uint16
	s.change(func(k *stock) {
		for i := range k.tickets {
			k.tickets[i].good = aged
		}
		k.want = firstStock - 1
		lost = k.tickets[0].Mapped.Port()
	})
	s.mu.Lock()
	s.shut = []uint16{lost}
	s.mu.Unlock()
	s.want()
	s.has(firstStock - 1)
	s.change(func(k *stock) {
		for _, k := range k.tickets {
			if !k.good.After(aged) || k.Mapped.Port() == lost {
				t.Errorf("kept: %d, good since %v; %d was lost", k.Mapped.Port(), time.Since(k.good), lost)
			}
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) != 2 || s.calls[0].Keep || !s.calls[1].Keep || len(s.calls[1].Ports) != firstStock {
		t.Errorf("the peer was asked: %+v", s.calls)
	}
}

// What the peer cannot do is not asked all the time.
func TestTicketsThatFailWait(t *testing.T) {
	s := newStocking(t)
	s.mu.Lock()
	s.deaf = true
	s.mu.Unlock()
	for range 3 {
		s.want()
		s.has(0)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) != 1 {
		t.Errorf("asked %d times at once", len(s.calls))
	}
}

// Nothing is prepared for those that are not connected to any more, or are
// elsewhere now.
func TestTicketsAreGivenUp(t *testing.T) {
	for name, change := range map[string]func(s *stocking){
		"not used":       func(s *stocking) { s.change(func(k *stock) { k.used = time.Now().Add(-peerIdle) }) },
		"the peer moved": func(s *stocking) { s.peer.movesTo("127.69.0.9") },
		"this one moved": func(s *stocking) { s.movesTo("127.69.0.9") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStocking(t)
			s.want()
			s.has(firstStock)
			change(s)
			s.has(0) // tend looks once a second
		})
	}
}

// Tickets are for those whose sockets somebody can wait for.
func TestNoTicketsForSocketsThatNeedHelp(t *testing.T) {
	s := newStocking(t)
	self := s.Self()
	report := *self.NATReport
	report.Unexpected = cluster.UnexpectedReset
	self.NATReport = &report
	s.tickets.want(self, s.peer.Self(), 80)
	if _, made := s.tickets.by[s.peer.id]; made {
		t.Error("tickets are made")
	}
}

// Who is connected to once, among many, is prepared for the second time.
func TestNoTicketsForOneOfMany(t *testing.T) {
	s := newStocking(t)
	for other := range uint32(2) {
		must(t, s.gate.take(t.Context(), 100+other))
	}
	s.want()
	if _, idle := s.stock(); !idle {
		t.Error("tickets are made while others are being connected to")
	}
	s.change(func(k *stock) {
		if !k.once || !k.filled.IsZero() {
			t.Errorf("%+v", k)
		}
	})
	if s.take() {
		t.Error("there is one")
	}
	s.has(firstStock)
	s.change(func(k *stock) {
		if k.once {
			t.Error("connected to twice, and not kept up")
		}
	})
}

// Connects that share a timer are each looked after, once, and not too early.
func TestEveryConnectIsLookedAfter(t *testing.T) {
	all := &tickets{}
	looked := make(chan time.Duration, 4)
	for range 3 {
		began := time.Now()
		all.lookAfter(func() { looked <- time.Since(began) })
		time.Sleep(time.Millisecond)
	}
	for range 3 {
		select {
		case after := <-looked:
			if after < rescueAfter {
				t.Errorf("looked after %s, want %s", after, rescueAfter)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("not looked after")
		}
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if len(all.spent) != 0 || len(looked) != 0 {
		t.Errorf("%d left, %d looked after again", len(all.spent), len(looked))
	}
}

// A socket that has a port already cannot use another one: its ticket would be lost,
// and the peer would wait for a minute.
func TestBoundSocketsTakeNoTicket(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	v, peer := n.node(seenAt("127.69.0.3")), n.node(seenAt("127.69.0.2"))
	n.on[peer.id-1].Listeners = []uint16{80}
	v.gone.Store(true) // no guest's socket waits
	s := &stock{tickets: []ticket{made(t, 0)}, own: reportOf(v.Self()), peer: reportOf(peer.Self()), busy: true}
	v.tickets.mu.Lock()
	v.tickets.by[peer.id], v.tickets.count = s, 1
	v.tickets.mu.Unlock()
	for _, bound := range []bool{true, false} {
		if plan, ok := v.Prompt(Request{Cookie: 1, To: peer.port(80), Bound: bound}); ok == bound {
			t.Errorf("bound: %v; planned at once: %v, %+v", bound, ok, plan)
		}
	}
}

// Ports that are kept for guests for a moment are descriptors of this node's as well.
func TestReservedPortsAreBounded(t *testing.T) {
	n := newNetwork(t)
	v := n.node(behindNAT)
	v.descriptors = &budget{left: 2}
	for i, want := range []bool{true, true, false} {
		if port := v.reserve(); (port != 0) != want {
			t.Errorf("the %d-th port is %d", i+1, port)
		}
	}
	eventually(t, "they are given back", func() bool {
		v.descriptors.mu.Lock()
		defer v.descriptors.mu.Unlock()
		return v.descriptors.left == 2
	})
}
