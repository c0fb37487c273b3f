// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

func TestHoldGivesNoEventUntilReleased(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, nonblock := range []bool{true, false} {
			t.Run(fmt.Sprintf("v6=%v nonblock=%v", v6, nonblock), func(t *testing.T) {
				newNetwork(t) // counts
				h, err := dig(7)
				must(t, err)
				defer h.close()
				g := newGuest(t, v6, nonblock)
				connected := make(chan error, 1)
				if nonblock {
					if err := g.connect(h.addr); !errors.Is(err, unix.EINPROGRESS) {
						t.Fatalf("connect: %v", err)
					}
					if got := g.events(300 * time.Millisecond); got != 0 {
						t.Fatalf("events %#x while held", got)
					}
				} else {
					go func() { connected <- g.connect(h.addr) }()
					select {
					case err := <-connected:
						t.Fatalf("connect returned %v while held", err)
					case <-time.After(300 * time.Millisecond):
					}
				}
				local := netip.AddrPortFrom(g.local.Addr().Unmap(), g.local.Port())
				near, err := h.release(context.Background(), local, connecting)
				must(t, err)
				if nonblock {
					if got := g.events(5 * time.Second); got != unix.POLLOUT {
						t.Errorf("events %#x after the release, want POLLOUT", got)
					}
				} else if err := <-connected; err != nil {
					t.Errorf("connect: %v", err)
				}
				h.close()
				near.SetDeadline(time.Now().Add(5 * time.Second))
				talk(t, g.conn(), near)
			})
		}
	}
}

func TestReleaseWaitsForTheGuestToConnect(t *testing.T) {
	newNetwork(t)
	h, err := dig(8)
	must(t, err)
	defer h.close()
	g := newGuest(t, false, true)
	connected := make(chan error)
	time.AfterFunc(100*time.Millisecond, func() { connected <- g.connect(h.addr) })
	near, err := h.release(context.Background(), g.local, connecting)
	<-connected
	must(t, err)
	near.Close()
	// A guest that never does so is given up when the caller does.
	idle := newGuest(t, false, true)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := h.release(ctx, idle.local, connecting); err == nil {
		t.Error("released a guest that does not connect")
	}
}

// connecting is what a kernel says that cannot tell.
func connecting(netip.AddrPort, netip.AddrPort) bool { return true }

// A guest that sends and goes before anybody looks: what it sent arrives, and
// then its reset.
func TestReleaseKeepsWhatAGoneGuestSent(t *testing.T) {
	newNetwork(t)
	for n := range uint32(50) {
		h, err := dig(100 + n)
		must(t, err)
		g := newGuest(t, false, false)
		sent := make(chan error, 1)
		go func() {
			sent <- g.connect(h.addr)
			unix.Write(g.fd, []byte("hello"))
			unix.SetsockoptLinger(g.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			g.close()
			close(sent)
		}()
		near, err := h.release(context.Background(), g.local, connecting)
		must(t, err)
		must(t, <-sent)
		<-sent
		near.SetDeadline(time.Now().Add(5 * time.Second))
		if got, err := io.ReadAll(near); string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
		near.Close()
		h.close()
	}
}

// The port of a guest's socket that is gone may be a listener's by now, which
// is left alone.
func TestReleaseIsForNobodyElse(t *testing.T) {
	newNetwork(t)
	h, err := dig(200)
	must(t, err)
	defer h.close()
	g := newGuest(t, false, true)
	must(t, unix.Listen(g.fd, 1))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	gone := func(local, peer netip.AddrPort) bool { return local != g.local || peer != h.addr }
	if near, err := h.release(ctx, g.local, gone); err == nil {
		near.Close()
		t.Error("a listener was taken for a guest that connects")
	}
	if _, _, err := unix.Accept(g.fd); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("accept: %v, want EAGAIN", err)
	}
}

func TestClosingTheHoleRefuses(t *testing.T) {
	newNetwork(t)
	h, err := dig(9)
	must(t, err)
	g := newGuest(t, false, true)
	g.connect(h.addr)
	h.close()
	if got := g.events(5 * time.Second); got&unix.POLLERR == 0 {
		t.Fatalf("events %#x", got)
	}
	if e, _ := unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, unix.SO_ERROR); syscall.Errno(e) != unix.ECONNREFUSED {
		t.Errorf("SO_ERROR %v, want ECONNREFUSED", syscall.Errno(e))
	}
}

// connect lets a guest of v connect as its monitor does.
// refused waits for an error and is what it is.
func (g *guest) refused() error {
	if got := g.events(5 * time.Second); got&unix.POLLERR == 0 {
		return fmt.Errorf("events %#x", got)
	}
	e, _ := unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return syscall.Errno(e)
}

func (v *node) connect(to netip.AddrPort, v6 bool) *guest {
	v.t.Helper()
	g := newGuest(v.t, v6, true)
	p, err := v.Layer.Connect(context.Background(), Request{Cookie: uint64(g.local.Port()), To: to, V6: v6})
	must(v.t, err)
	switch p.Class {
	case ClassDirect:
		if p.Local != 0 { // as the monitor does with a socket that is not bound
			g.close()
			g = newGuestAt(v.t, v6, true, p.Local)
		}
		// The monitor would use TCP_FASTOPEN; what arrives is the same.
		if err := g.connect(p.Addr); !errors.Is(err, unix.EINPROGRESS) {
			v.t.Fatalf("connect: %v", err)
		}
		g.events(5 * time.Second)
		_, err = unix.Write(g.fd, p.Preface)
		must(v.t, err)
	case ClassHold:
		p.Held(g.local)
		if err := g.connect(p.Addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			v.t.Fatalf("connect: %v", err)
		}
	case ClassNative:
		if err := g.connect(p.Addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			v.t.Fatalf("connect: %v", err)
		}
	}
	return g
}

// counted: one connection, and no failure.
func (v *node) counted(to *node, path string) bool {
	return slices.ContainsFunc(v.Paths(), func(p cluster.Path) bool {
		return p.From == v.id && p.To == to.id && p.Transport == path && p.Count == 1 && p.Failed == 0
	})
}

func TestEveryWayBetweenTwoNodes(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("v6=", v6), func(t *testing.T) {
			n := newNetwork(t)
			n.node(seed)
			open, laptop := n.node(), n.node(behindNAT, func(_ *cluster.Member, o *Options) { o.Reach = "seeds" })
			hidden, other := n.node(behindNAT), n.node(behindNAT)
			for _, test := range []struct {
				name     string
				from, to *node
				path     string
			}{
				{"direct", hidden, open, pathDirect},
				{"dialled back", open, hidden, pathPunch},
				{"relayed", hidden, other, pathRelay},
				{"relayed to a laptop, which cannot dial back", open, laptop, pathRelay},
				{"relayed from a laptop", laptop, open, pathRelay},
			} {
				t.Run(test.name, func(t *testing.T) {
					arrivals := test.to.listen(80)
					g := test.from.connect(test.to.port(80), v6)
					a := receive(t, arrivals)
					if got := g.events(5 * time.Second); got != unix.POLLOUT {
						t.Fatalf("events %#x", got)
					}
					want := test.from.port(g.local.Port())
					if a.local != test.to.port(80) || a.peer != want {
						t.Errorf("arrived at %s from %s, want %s from %s", a.local, a.peer, test.to.port(80), want)
					}
					if test.path != pathDirect {
						test.from.mu.Lock()
						got := test.from.noticed[uint64(g.local.Port())]
						test.from.mu.Unlock()
						if got != [2]netip.AddrPort{want, test.to.port(80)} {
							t.Errorf("remembered %v", got)
						}
					}
					talk(t, g.conn(), a.conn)
					if !test.from.counted(test.to, test.path) {
						t.Errorf("paths %v, want one over %s", test.from.Paths(), test.path)
					}
				})
			}
		})
	}
}

func TestFallbackFromDirectIsHeld(t *testing.T) {
	n := newNetwork(t)
	a, b := n.node(), n.node()
	arrivals := b.listen(80)
	p, err := a.Layer.Connect(context.Background(), Request{Cookie: 1, To: b.port(80)})
	must(t, err)
	if p.Class != ClassDirect {
		t.Fatalf("class %d", p.Class)
	}
	g := newGuest(t, false, true)
	p, err = a.Layer.Connect(context.Background(), Request{Cookie: 1, To: b.port(80), Fallback: true})
	must(t, err)
	if p.Class != ClassHold {
		t.Fatalf("class %d", p.Class)
	}
	p.Held(g.local)
	g.connect(p.Addr)
	talk(t, g.conn(), receive(t, arrivals).conn)
	if got := a.Paths(); len(got) != 1 || got[0].Transport != pathDirect {
		t.Errorf("paths %v", got)
	}
}

// A peer whose supervisor has just died may be back in a moment.
func TestConnectWaitsForALostPeer(t *testing.T) {
	n := newNetwork(t)
	a, b := n.node(), n.node()
	arrivals := b.listen(80)
	// Its overlay port is closed for now.
	ln, err := ListenOverlay(context.Background(), "127.68.9.9:0")
	must(t, err)
	n.mu.Lock()
	n.on[b.id-1].State = cluster.StateLost
	n.on[b.id-1].Listeners = []uint16{80}
	n.on[b.id-1].UnderlayAddress = ln.Addr().(*net.TCPAddr).AddrPort()
	at := n.on[b.id-1].UnderlayAddress
	n.mu.Unlock()
	ln.Close()
	g := a.connect(b.port(80), false)
	if got := g.events(300 * time.Millisecond); got != 0 {
		t.Fatalf("events %#x while the peer is away", got)
	}
	ln, err = ListenOverlay(context.Background(), at.String())
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Serve(ctx, ln) }()
	talk(t, g.conn(), receive(t, arrivals).conn)
	cancel()
	must(t, <-done)
}

// A peer that is gone may have a successor.
func TestAHeldConnectGoesToTheNextHolder(t *testing.T) {
	n := newNetwork(t)
	a, b, c := n.node(), n.node(), n.node()
	arrivals := c.listen(80)
	ln, err := ListenOverlay(context.Background(), "127.68.9.9:0")
	must(t, err)
	n.mu.Lock()
	gone, next := &n.on[b.id-1], &n.on[c.id-1]
	gone.State, gone.Listeners, gone.UnderlayAddress = cluster.StateLost, []uint16{80}, ln.Addr().(*net.TCPAddr).AddrPort()
	to := netip.AddrPortFrom(gone.OverlayAddress, 80)
	n.mu.Unlock()
	ln.Close() // nobody is there
	g := a.connect(to, false)
	if got := g.events(100 * time.Millisecond); got != 0 {
		t.Fatalf("events %#x while the peer is away", got)
	}
	n.mu.Lock()
	gone.OverlayAddress, next.OverlayAddress = next.OverlayAddress, gone.OverlayAddress
	n.mu.Unlock()
	talk(t, g.conn(), receive(t, arrivals).conn)
	if !a.counted(c, pathDirect) {
		t.Errorf("paths %v, want one to the next holder", a.Paths())
	}
}

func TestErrorsMeanWhatTheyMeanNatively(t *testing.T) {
	n := newNetwork(t)
	a, hidden, dead := n.node(), n.node(behindNAT), n.node()
	gone, slow := n.node(behindNAT), n.node(behindNAT)
	dead.down, gone.down = cluster.ErrNoSuchNode, cluster.ErrDisconnected
	slow.down = fmt.Errorf("call: %w", context.DeadlineExceeded)
	for _, test := range []struct {
		to   netip.AddrPort
		want error
	}{
		{dead.port(80), syscall.EHOSTUNREACH},
		{slow.port(80), syscall.ETIMEDOUT},
		{netip.MustParseAddrPort("100.80.9.9:80"), syscall.EHOSTUNREACH},
		{gone.port(80), nil}, // the seed is away: try
	} {
		p, err := a.Layer.Connect(context.Background(), Request{To: test.to})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.to, err, test.want)
		}
		if err == nil {
			p.Ended()
		}
	}
	if got := a.connect(hidden.port(81), false).refused(); !errors.Is(got, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v, want ECONNREFUSED", got)
	}
	// A listener that is announced needs no question.
	n.mu.Lock()
	n.on[dead.id-1].Listeners = []uint16{22, 80}
	n.mu.Unlock()
	if p, err := a.Layer.Connect(context.Background(), Request{To: dead.port(80)}); err != nil || p.Class != ClassDirect {
		t.Errorf("announced listener: %+v, %v", p, err)
	}
}

func TestListenerThatVanishesWhileHeldRefuses(t *testing.T) {
	n := newNetwork(t)
	a, hidden := n.node(), n.node(behindNAT)
	n.on[hidden.id-1].Listeners = []uint16{80} // announced, closed since
	g := a.connect(hidden.port(80), false)
	if got := g.events(5 * time.Second); got&unix.POLLERR == 0 {
		t.Fatalf("events %#x", got)
	}
	if e, _ := unix.GetsockoptInt(g.fd, unix.SOL_SOCKET, unix.SO_ERROR); syscall.Errno(e) != unix.ECONNREFUSED {
		t.Errorf("SO_ERROR %v, want ECONNREFUSED", syscall.Errno(e))
	}
}

// A node need not believe its own announcements.
func TestOwnClosedListenerRefusesAtOnce(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	for _, transport := range []string{pathDirect, pathRelay} {
		v := n.node(only(transport))
		n.on[v.id-1].Listeners = []uint16{80} // announced, closed since
		if got := v.connect(v.port(80), false).refused(); !errors.Is(got, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want ECONNREFUSED", transport, got)
		}
	}
}

func TestHoldsAreBounded(t *testing.T) {
	n := newNetwork(t)
	a, hidden := n.node(), n.node(behindNAT)
	hidden.listen(80)
	a.holds = make(chan struct{}, 1)
	p, err := a.Layer.Connect(context.Background(), Request{To: hidden.port(80)})
	must(t, err)
	if _, err := a.Layer.Connect(context.Background(), Request{To: hidden.port(80)}); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("one more: %v, want ENOBUFS", err)
	}
	p.Ended()
	if p, err = a.Layer.Connect(context.Background(), Request{To: hidden.port(80)}); err != nil {
		t.Fatal(err)
	}
	p.Ended()
}

// A supervisor at its limit of descriptors could not answer its guest at all.
func TestRelayedConnectionsAreBoundedByDescriptors(t *testing.T) {
	n := newNetwork(t)
	a, hidden := n.node(), n.node(behindNAT)
	arrivals := hidden.listen(80)
	a.descriptors = &budget{left: holdNeeds + spliceNeeds}
	g := a.connect(hidden.port(80), false)
	arrived := receive(t, arrivals)
	g.events(5 * time.Second)
	talk(t, g.conn(), arrived.conn) // which closes them
	eventually(t, "all are given back", func() bool {
		a.descriptors.mu.Lock()
		defer a.descriptors.mu.Unlock()
		return a.descriptors.left == holdNeeds+spliceNeeds
	})
	p, err := a.Layer.Connect(context.Background(), Request{To: hidden.port(80)})
	must(t, err)
	if _, err := a.Layer.Connect(context.Background(), Request{To: hidden.port(80)}); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("one more: %v, want ENOBUFS", err)
	}
	p.Ended()
	if a.descriptors.left != holdNeeds+spliceNeeds {
		t.Errorf("%d descriptors left", a.descriptors.left)
	}
}

// What peers ask a node to come to waits for its guest: it is bounded as well.
func TestMeetingsAreBoundedByDescriptors(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	a, hidden := n.node(behindNAT), n.node(behindNAT)
	arrivals := hidden.listen(80)
	left := func() int {
		hidden.descriptors.mu.Lock()
		defer hidden.descriptors.mu.Unlock()
		return hidden.descriptors.left
	}
	hidden.descriptors = &budget{left: 1, kept: 2}
	call := meetCall{Session: make([]byte, 16), Port: 80, From: a.port(1), Relay: 1}
	if answer, err := hidden.asked(a, methodRelay, call); err != nil || answer.Status != statusUnable || left() != 1 {
		t.Errorf("without descriptors: %+v, %v, %d left", answer, err, left())
	}
	time.AfterFunc(100*time.Millisecond, func() { hidden.descriptors.give(1) })
	hidden.short.Store(2) // others were faster: it waits, for the far end has begun
	g := a.connect(hidden.port(80), false)
	arrived := receive(t, arrivals)
	g.events(5 * time.Second)
	talk(t, g.conn(), arrived.conn)
	eventually(t, "all are given back", func() bool { return left() == 2 })
}

// What a guest has opened itself leaves descriptors for those that come to it.
func TestDescriptorsAreKeptForArrivals(t *testing.T) {
	l := New(Options{})
	defer l.Close()
	b := l.descriptors
	b.left = 2*forArrivals + 1
	for b.take(holdNeeds) { // all that it may
	}
	if b.kept != forArrivals || b.left != forArrivals+1 {
		t.Errorf("%d are left for arrivals, of %d", b.left, b.kept)
	}
	for b.takeMeeting() {
	}
	if b.left != forArrivals/2 || !l.Take(forArrivals/2) || l.Take(1) {
		t.Errorf("meetings have left %d", b.left)
	}
}

func TestClassify(t *testing.T) {
	at := netip.MustParseAddrPort("100.64.1.2:7717")
	vm := cluster.Member{ID: 1, Site: "s", NAT: cluster.NATNone, UnderlayAddress: at}
	twin := cluster.Member{ID: 2, Site: "s", NAT: cluster.NATNone, UnderlayAddress: at}
	far := cluster.Member{ID: 3, Site: "t", NAT: cluster.NATNone, UnderlayAddress: at}
	lambda := cluster.Member{ID: 4, NAT: cluster.NATBehind, UnderlayAddress: at}
	for _, test := range []struct {
		self, peer cluster.Member
		reach      string
		only       string
		want       Class
		barred     bool
	}{
		{lambda, lambda, "any", "", ClassNative, false}, {vm, twin, "any", "", ClassNative, false}, {vm, far, "any", "", ClassDirect, false},
		{lambda, vm, "any", "", ClassDirect, false}, {lambda, vm, "seeds", "", ClassHold, false}, {vm, lambda, "any", "", ClassHold, false},

		{vm, vm, "any", "native", ClassNative, false}, {vm, twin, "any", "native", ClassNative, false}, {vm, far, "any", "native", ClassHold, true},
		{lambda, vm, "any", "native", ClassHold, true}, {lambda, lambda, "any", "native", ClassNative, false}, {vm, lambda, "any", "native", ClassHold, true},

		{vm, vm, "any", "direct", ClassDirect, false}, {vm, twin, "any", "direct", ClassDirect, false}, {vm, lambda, "any", "direct", ClassHold, true},
		{lambda, lambda, "any", "direct", ClassDirect, false}, {lambda, vm, "any", "direct", ClassDirect, false},
		{lambda, lambda, "seeds", "direct", ClassDirect, false}, {lambda, vm, "seeds", "direct", ClassHold, true},

		{vm, vm, "any", "relay", ClassHold, false}, {vm, twin, "any", "relay", ClassHold, false}, {lambda, lambda, "seeds", "relay", ClassHold, false},

		{vm, twin, "any", "native direct", ClassNative, false}, {vm, far, "any", "native direct", ClassDirect, false}, {vm, lambda, "any", "native direct", ClassHold, true},
		{vm, twin, "any", "direct relay", ClassDirect, false}, {vm, lambda, "any", "direct relay", ClassHold, false}, {vm, far, "any", "native relay", ClassHold, false},
	} {
		only := strings.Fields(test.only)
		if got := Classify(test.self, test.peer, test.reach, only); got != test.want {
			t.Errorf("%d to %d (%s, %q): class %d, want %d", test.self.ID, test.peer.ID, test.reach, only, got, test.want)
		}
		l := &Layer{o: Options{Reach: test.reach, Transports: only}}
		if err := l.barred(test.self, test.peer); (err != nil) != test.barred || (err != nil && !errors.Is(err, syscall.EHOSTUNREACH)) {
			t.Errorf("%d to %d (%s, %q): %v, want an error: %v", test.self.ID, test.peer.ID, test.reach, only, err, test.barred)
		}
	}
}

func only(names ...string) func(*cluster.Member, *Options) {
	return func(_ *cluster.Member, o *Options) { o.Transports = names }
}

// Each transport alone connects what it can, the node itself included, and
// counts as what it is.
func TestRestrictedDialer(t *testing.T) {
	site := func(m *cluster.Member, _ *Options) { m.Site = "s" }
	n := newNetwork(t)
	n.node(seed)
	twin, hidden := n.node(site), n.node(behindNAT)
	direct, hiddenDirect := n.node(site, only("direct")), n.node(behindNAT, only("direct"))
	relayed, hiddenRelayed := n.node(site, only("relay")), n.node(behindNAT, only("relay"))
	both := n.node(only("direct", "relay"))
	for _, test := range []struct {
		name     string
		from, to *node
		class    Class
		path     string
	}{
		{"direct to a twin", direct, twin, ClassDirect, pathDirect},
		{"direct to oneself", direct, direct, ClassDirect, pathDirect},
		{"direct to oneself behind NAT", hiddenDirect, hiddenDirect, ClassDirect, pathDirect},
		{"relayed to a twin", relayed, twin, ClassHold, pathRelay},
		{"relayed to oneself", relayed, relayed, ClassHold, pathRelay},
		{"relayed to oneself behind NAT", hiddenRelayed, hiddenRelayed, ClassHold, pathRelay},
		{"relayed to a node behind NAT", relayed, hidden, ClassHold, pathRelay},
		{"both to a node behind NAT", both, hidden, ClassHold, pathPunch},
	} {
		t.Run(test.name, func(t *testing.T) {
			arrivals := test.to.listen(80)
			eventually(t, "the seed is idle", func() bool { return n.by[1].relay.count() == 0 })
			g := test.from.connect(test.to.port(80), false)
			a := receive(t, arrivals)
			g.events(5 * time.Second)
			if want := test.from.port(g.local.Port()); a.local != test.to.port(80) || a.peer != want {
				t.Errorf("arrived at %s from %s, want %s from %s", a.local, a.peer, test.to.port(80), want)
			}
			if got := n.by[1].relay.count(); (got > 0) != (test.path == pathRelay && test.from != both) {
				t.Errorf("%d connections through the seed", got)
			}
			talk(t, g.conn(), a.conn)
			if !test.from.counted(test.to, test.path) {
				t.Errorf("paths %v, want one to %d over %s", test.from.Paths(), test.to.id, test.path)
			}
		})
	}
	t.Run("barred", func(t *testing.T) {
		hidden.listen(81)
		var log bytes.Buffer
		native := n.node(only("native"), func(_ *cluster.Member, o *Options) { o.Logger = zerolog.New(&log) })
		for _, from := range []*node{direct, native, native} {
			if _, err := from.Layer.Connect(context.Background(), Request{To: hidden.port(81)}); !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("%q: %v, want EHOSTUNREACH", from.o.Transports, err)
			}
		}
		if strings.Count(log.String(), "cannot be reached with transports") != 1 {
			t.Errorf("it is not said once why:\n%s", &log)
		}
	})
}

// count is how many pairs are spliced now.
func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pairs
}

// A direct connection whose preface could not be queued still meets nobody else.
func TestRestrictedFallback(t *testing.T) {
	n := newNetwork(t)
	a, b := n.node(only("direct")), n.node()
	arrivals := b.listen(80)
	g := newGuest(t, false, true)
	p, err := a.Layer.Connect(context.Background(), Request{Cookie: 1, To: b.port(80), Fallback: true})
	must(t, err)
	p.Held(g.local)
	g.connect(p.Addr)
	talk(t, g.conn(), receive(t, arrivals).conn)
	if got := a.Paths(); len(got) != 1 || got[0].Transport != pathDirect {
		t.Errorf("paths %v", got)
	}
}

func TestNativeConnectionsAreCountedOnce(t *testing.T) {
	n := newNetwork(t)
	site := func(m *cluster.Member, _ *Options) { m.Site = "s" }
	a, b := n.node(site), n.node(site)
	ip := b.Self().UnderlayAddress
	pair := func(port uint16, remote netip.AddrPort) [2]netip.AddrPort {
		return [2]netip.AddrPort{netip.AddrPortFrom(a.Self().UnderlayAddress.Addr(), port), remote}
	}
	redis := netip.AddrPortFrom(ip.Addr(), 6379)
	a.SampleNative([][2]netip.AddrPort{pair(1, redis), pair(2, redis), pair(3, ip)})
	a.SampleNative([][2]netip.AddrPort{pair(2, redis), pair(4, redis), pair(5, netip.MustParseAddrPort("192.0.2.1:80"))})
	// The other end of what a guest's held connect was released with.
	a.SampleNative([][2]netip.AddrPort{{netip.MustParseAddrPort("127.67.0.9:4000"), netip.AddrPortFrom(a.Self().UnderlayAddress.Addr(), 4242)}})
	want := []cluster.Path{{From: a.id, To: b.id, Transport: pathNative, Count: 3}}
	if got := a.Paths(); !slices.Equal(got, want) {
		t.Errorf("paths %v, want %v", got, want)
	}
	// A client is at the machine's 127.0.0.1, as all other programs are.
	laptop := n.node(func(m *cluster.Member, _ *Options) { m.Kind = kindClient })
	laptop.SampleNative([][2]netip.AddrPort{{netip.AddrPortFrom(laptop.Self().UnderlayAddress.Addr(), 4000), netip.AddrPortFrom(laptop.Self().UnderlayAddress.Addr(), 4242)}})
	if got := laptop.Paths(); len(got) > 0 {
		t.Errorf("a client counts the machine's own connections: %v", got)
	}
}
