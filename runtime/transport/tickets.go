// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// Bounds of what is prepared for connections to come.
const (
	firstStock  = 4  // tickets for a peer that was connected to once
	mostStock   = 32 // and for one that is connected to all the time
	mostTickets = 128
	fillPause   = 5 * time.Millisecond // so that the connect under way has the CPU
	fillOften   = time.Second          // who needs more so soon gets more at a time
	ticketAge   = 25 * time.Second     // then the peer is asked to wait on
	ticketLife  = 90 * time.Second     // then its port is given up
	peerIdle    = 5 * time.Minute      // then nothing is prepared any more
	rescueAfter = 250 * time.Millisecond
	rescueLast  = 5 * time.Second
	rescueShare = 50 * time.Millisecond // of one timer
	makeRetry   = 5 * time.Second
)

// ticket is a port of this node whose place outside is known, and for which the
// peer holds its NAT open: a connection from there needs nobody's help.
type ticket struct {
	*Mapping
	made time.Time // by the peer's word, before it was given
	good time.Time // as made, or when the peer was asked to wait on
}

func (t ticket) fresh(now time.Time) bool {
	select {
	case <-t.Gone():
		return false
	default:
		return now.Sub(t.good) < ticketAge+ticketAge/2 && now.Sub(t.made) < ticketLife
	}
}

// tickets is what is prepared, by peer.
type tickets struct {
	l *Layer

	mu    sync.Mutex
	by    map[uint32]*stock
	count int // tickets that there are, or are being made
	spent []spent
}

// stock is the tickets for one peer. They are good for its NAT and this node's
// as they were.
type stock struct {
	tickets   []ticket
	want      int
	port      uint16 // of its guest, that was asked for last
	used      time.Time
	filled    time.Time
	own, peer cluster.NATReport
	once      bool // connected to, among many others: nothing is prepared before the second time
	busy      bool
	retry     time.Time
}

// low tells whether more should be made: many at a time, which is one call to
// the peer, and seldom.
func (s *stock) low() bool { return len(s.tickets) <= s.want/2 }

// take gives a ticket for a connection to the peer's port, if there is one. It
// does not wait.
func (t *tickets) take(self, m cluster.Member, port uint16) (ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.by[m.ID]
	if s == nil {
		return ticket{}, false
	}
	now := time.Now()
	s.used, s.port, s.once = now, port, false
	var found ticket
	for len(s.tickets) > 0 && found.Mapping == nil {
		last := len(s.tickets) - 1
		if s.tickets[last].fresh(now) && s.own == reportOf(self) && s.peer == reportOf(m) {
			found = s.tickets[last]
		} else {
			go s.tickets[last].Close()
		}
		s.tickets = s.tickets[:last]
		t.count--
	}
	if s.low() && now.Sub(s.filled) < fillOften {
		s.want = min(2*s.want, mostStock)
	}
	if found.Mapping == nil {
		t.fill(m.ID, s, 0)
		return ticket{}, false
	}
	t.fill(m.ID, s, fillPause)
	return found, true
}

// want is told that a connection to the peer was made. While there are others to be
// made they need what tickets would cost, and many peers are met just once.
func (t *tickets) want(self, m cluster.Member, port uint16) {
	if !waits(self, m) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.by[m.ID]
	if s == nil {
		s = &stock{want: firstStock, once: t.l.gate.busy()}
		t.by[m.ID] = s
	}
	s.used, s.port = time.Now(), port
	if own, peer := reportOf(self), reportOf(m); s.own != own || s.peer != peer {
		t.drop(s)
		s.own, s.peer = own, peer
	}
	if !s.once {
		t.fill(m.ID, s, 0)
	}
}

// drop closes a stock's tickets.
func (t *tickets) drop(s *stock) {
	for _, k := range s.tickets {
		go k.Close()
		t.count--
	}
	s.tickets = nil
}

// fill makes tickets for a peer in the background, or has it wait on for those
// that there are. Callers hold mu.
func (t *tickets) fill(id uint32, s *stock, pause time.Duration) {
	now := time.Now()
	aged := func(k ticket) bool { return now.Sub(k.good) > ticketAge }
	if s.busy || now.Before(s.retry) || !s.low() && !slices.ContainsFunc(s.tickets, aged) {
		return
	}
	s.filled = now
	s.busy = t.l.spawn(func() {
		select {
		case <-time.After(pause):
		case <-t.l.ctx.Done():
		}
		t.refill(id, s)
	})
}

// refill is what fill does in the background.
func (t *tickets) refill(id uint32, s *stock) {
	t.mu.Lock()
	if t.by[id] != s {
		t.mu.Unlock()
		return
	}
	var old []ticket
	now := time.Now()
	kept := s.tickets[:0]
	for _, k := range s.tickets {
		switch {
		case !k.fresh(now):
			go k.Close()
			t.count--
		case now.Sub(k.good) > ticketAge:
			old = append(old, k)
		default:
			kept = append(kept, k)
		}
	}
	s.tickets = kept
	missing := max(0, min(s.want-len(kept)-len(old), mostTickets-t.count, maxPorts))
	t.count += missing
	port := s.port
	t.mu.Unlock()

	made, lost := t.l.refresh(id, port, old), len(old)
	more := t.l.ticketsFor(id, port, missing)

	t.mu.Lock()
	defer t.mu.Unlock()
	s.busy = false
	t.count -= lost + missing - len(made) - len(more)
	s.tickets = append(append(s.tickets, made...), more...)
	if len(made)+len(more) == 0 && lost+missing > 0 {
		s.retry = time.Now().Add(makeRetry)
	}
	if t.by[id] != s {
		t.drop(s)
	}
}

// ticketsFor makes tickets, some at once.
func (l *Layer) ticketsFor(id uint32, port uint16, n int) []ticket {
	if n == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, startWait)
	defer cancel()
	places := make(chan struct{}, mapAtOnce)
	mapped := make(chan *Mapping, n)
	var all sync.WaitGroup
	for range n {
		places <- struct{}{}
		all.Go(func() {
			if m, err := l.mapPort(ctx, 0); err == nil {
				mapped <- m
			}
			<-places
		})
	}
	all.Wait()
	close(mapped)
	var made []ticket
	for m := range mapped {
		made = append(made, ticket{Mapping: m})
	}
	return l.openFor(ctx, id, port, made, false)
}

// refresh has the peer wait on.
func (l *Layer) refresh(id uint32, port uint16, old []ticket) []ticket {
	if len(old) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, startWait)
	defer cancel()
	return l.openFor(ctx, id, port, old, true)
}

// openFor has the peer open its NAT for all of them, or closes them.
func (l *Layer) openFor(ctx context.Context, id uint32, port uint16, all []ticket, keep bool) []ticket {
	if len(all) == 0 {
		return nil
	}
	call := punchCall{Port: port, Keep: keep}
	now := time.Now()
	for i := range all {
		call.Ports = append(call.Ports, all[i].Mapped.Port())
		all[i].good = now
		if !keep {
			all[i].made = now
		}
	}
	shut, err := l.open(ctx, id, call)
	if err != nil {
		l.o.Logger.Debug().Err(err).Uint32("node", id).Msg("no paths are prepared")
		shut = call.Ports
	}
	return slices.DeleteFunc(all, func(k ticket) bool {
		gone := slices.Contains(shut, k.Mapped.Port())
		if gone {
			k.Close()
		}
		return gone
	})
}

// tend keeps the stocks fresh until ctx ends.
func (t *tickets) tend(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.l.openings.tend(t.l)
		t.mu.Lock()
		now := time.Now()
		for id, s := range t.by {
			m, ok := t.l.o.Members.Member(id)
			stale := !ok || s.own != reportOf(t.l.o.Members.Self()) || s.peer != reportOf(m)
			if stale || now.Sub(s.used) > peerIdle {
				t.drop(s)
				delete(t.by, id)
				continue
			}
			if now.Sub(s.used) > ticketLife {
				s.want = firstStock
			}
			if !s.once {
				t.fill(id, s, 0)
			}
		}
		t.mu.Unlock()
	}
}

// close gives everything back.
func (t *tickets) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, s := range t.by {
		for _, k := range s.tickets {
			k.Close()
		}
		delete(t.by, id)
	}
}

// spend lets the guest's own socket connect with a ticket.
func (l *Layer) spend(self, m cluster.Member, r Request, k ticket) Plan {
	src := netip.AddrPortFrom(self.OverlayAddress, k.Local)
	to := l.placeOf(self, m)
	l.o.Sockets.Remember(r.Cookie, src, r.To, family(r))
	p := preface{kind: kindDirect, id: self.ID, src: src, dst: r.To}.fresh()
	l.paths.add(m.ID, pathPunch) // unless the guest falls back
	l.tickets.lookAfter(func() {
		if !l.spawn(func() { l.rescue(m.ID, k, netip.AddrPortFrom(self.UnderlayAddress.Addr(), k.Local), to, r.To.Port()) }) {
			k.Close()
		}
	})
	return Plan{Class: ClassDirect, Addr: to, Preface: p.seal(*l.key.Load()), Local: k.Local}
}

// spent is a ticket that was given, and when to look what became of it.
type spent struct {
	due  time.Time
	look func()
}

// lookAfter calls look when the guest had time to connect. A timer for each would
// wake a thread up beside the guest that waits for its ticket; so who gets one soon
// after another shares its timer.
func (t *tickets) lookAfter(look func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spent = append(t.spent, spent{time.Now().Add(rescueAfter), look})
	if len(t.spent) == 1 {
		time.AfterFunc(rescueAfter, t.look)
	}
}

func (t *tickets) look() {
	t.mu.Lock()
	now := time.Now()
	due := slices.IndexFunc(t.spent, func(s spent) bool { return s.due.After(now) })
	if due < 0 {
		due = len(t.spent)
	}
	all := slices.Clone(t.spent[:due])
	t.spent = slices.Delete(t.spent, 0, due)
	if len(t.spent) > 0 {
		time.AfterFunc(max(t.spent[0].due.Sub(now), rescueShare), t.look)
	}
	t.mu.Unlock()
	for _, s := range all {
		s.look()
	}
}

// rescue is for a guest's socket that still waits: the peer dials it, some times,
// for a NAT that is new is not known at once. What was prepared like its ticket is
// worth no more.
func (l *Layer) rescue(id uint32, k ticket, local, to netip.AddrPort, port uint16) {
	k.Close() // the guest's connection keeps its place now
	for pause := rescueAfter; pause < rescueLast; pause *= 2 {
		if !l.o.Sockets.Connecting(local, to) {
			return
		}
		l.tickets.forget(id)
		ctx, cancel := context.WithTimeout(l.ctx, startWait)
		_, err := l.open(ctx, id, punchCall{Ports: []uint16{k.Mapped.Port()}, Port: port})
		cancel()
		if err != nil {
			l.o.Logger.Debug().Err(err).Uint32("node", id).Msg("a punched connect waits")
		}
		select {
		case <-time.After(pause):
		case <-l.ctx.Done():
			return
		}
	}
}

// forget drops the tickets for a peer; others are made when it is connected to.
func (t *tickets) forget(id uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.by[id]; s != nil {
		t.drop(s)
		delete(t.by, id)
	}
}
