// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"io"
	"net"
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
