// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/ipc"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"golang.org/x/sys/unix"
)

func TestSignalsReachEveryKindOfListener(t *testing.T) {
	deferAccept := func(fd int) { unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 5) }
	for _, test := range []struct {
		name, address string
		options       []func(int)
	}{
		{name: "wildcard", address: "0.0.0.0"},
		{name: "specific", address: "127.0.0.1"},
		{name: "wildcard v6", address: "::"},
		{name: "mapped", address: "::ffff:127.0.0.1"},
		{name: "mapped wildcard", address: "::ffff:0.0.0.0"},
		{name: "deferred", address: "0.0.0.0", options: []func(int){deferAccept}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := start(t, nil)
			g := listen(t, l, test.address, 0, 10, test.options...)
			if !l.Listening(g.port) || !slices.Equal(l.Listeners(), []uint16{g.port}) {
				t.Fatalf("listeners %v, want %d", l.Listeners(), g.port)
			}
			for range 3 {
				g.serve(g.deliver())
			}
			if _, _, err := g.accept(); !errors.Is(err, unix.EAGAIN) {
				t.Errorf("accept with nothing left: %v, want EAGAIN", err)
			}
		})
	}
}

func TestNativeOnlyListenersAreNotReached(t *testing.T) {
	l := start(t, nil)
	v6only := func(fd int) { unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) }
	device := func(fd int) { unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo") }
	for name, g := range map[string]*guest{
		"IPV6_V6ONLY":   listen(t, l, "::", 0, 5, v6only),
		"device":        listen(t, l, "0.0.0.0", 0, 5, device),
		"other address": listen(t, l, "127.0.0.9", 0, 5),
	} {
		here, far := arrival(t)
		err := l.Deliver(context.Background(), here, netip.AddrPortFrom(overlay, g.port), peer)
		if !errors.Is(err, ErrRefused) || !errors.Is(err, syscall.ECONNREFUSED) || l.Listening(g.port) {
			t.Errorf("%s: %v, want ErrRefused", name, err)
		}
		unix.Close(here)
		far.Close()
	}
}

func TestClosedListenerIsNoticed(t *testing.T) {
	l := start(t, nil)
	g := listen(t, l, "0.0.0.0", 0, 5)
	<-l.Changed()
	g.close()
	select {
	case <-l.Changed():
	case <-time.After(5 * time.Second):
		t.Fatal("no change announced")
	}
	if l.Listening(g.port) {
		t.Error("still listening")
	}
}

// Who asks is told at once, not when it is noticed.
func TestClosedListenerIsNotListening(t *testing.T) {
	l := start(t, func(o *Options) { o.Sweep = time.Hour })
	for _, address := range []string{"0.0.0.0", "127.0.0.1", "::", "::ffff:127.0.0.1"} {
		g := listen(t, l, address, 0, 5)
		twin := listen(t, l, "0.0.0.0", 0, 5)
		before := l.Listening(g.port)
		g.close()
		if after := l.Listening(g.port); !before || after || !l.Listening(twin.port) {
			t.Errorf("%s: listening %v, and %v when closed; another: %v", address, before, after, l.Listening(twin.port))
		}
	}
}

func TestQueuedConnectionsAreResetWithTheirListener(t *testing.T) {
	l := start(t, func(o *Options) { o.Sweep = time.Hour }) // found by the signal alone
	g := listen(t, l, "0.0.0.0", 0, 5)
	far := g.deliver()
	if !g.wait(20 * time.Second) {
		t.Fatal("not woken")
	}
	g.close()
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("far end: %v, want ECONNRESET", err)
	}
}

// The kernel ends what this process held when it dies, with a reset as it does
// for its own queues; what a guest has accepted is the guest's.
func TestQueuedConnectionsAreResetWithTheSupervisor(t *testing.T) {
	l := start(t, nil)
	g := listen(t, l, "0.0.0.0", 0, 5)
	here, _ := arrival(t)
	lingers := func(fd int) bool {
		linger, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER)
		must(t, err)
		return linger.Onoff != 0
	}
	must(t, l.Deliver(context.Background(), here, netip.AddrPortFrom(overlay, g.port), peer))
	if !lingers(here) {
		t.Error("a waiting connection would end in order")
	}
	g.wait(20 * time.Second)
	_, _, err := g.acceptAnd(false)
	must(t, err)
	if !lingers(here) {
		t.Error("a connection that was given back would end in order")
	}
	g.wait(20 * time.Second)
	conn, _, err := g.accept()
	must(t, err)
	defer conn.Close()
	if lingers(int(conn.Fd())) {
		t.Error("the guest's connection does not end in order")
	}
}

func TestNeverMoreSignalsThanTheBacklog(t *testing.T) {
	l := start(t, func(o *Options) { o.QueueWait = time.Second })
	g := listen(t, l, "0.0.0.0", 0, 2)
	fars := []*net.TCPConn{g.deliver(), g.deliver()}
	here, _ := arrival(t)
	local := netip.AddrPortFrom(overlay, g.port)
	begin := time.Now()
	if err := l.Deliver(context.Background(), here, local, peer); !errors.Is(err, ErrFull) {
		t.Fatalf("third connection on a backlog of two: %v, want ErrFull", err)
	}
	if took := time.Since(begin); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("waited %v", took)
	}
	// With room the same connection is taken.
	done := make(chan error, 1)
	go func() { done <- l.Deliver(context.Background(), here, local, peer) }()
	time.Sleep(20 * time.Millisecond)
	g.serve(fars[0])
	must(t, <-done)
	g.serve(fars[1])
	if !g.wait(20 * time.Second) {
		t.Fatal("not woken for the third")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	conn, _, err := g.accept()
	must(t, err)
	conn.Close()
	g.deliver()
	g.deliver()
	here, _ = arrival(t)
	defer unix.Close(here)
	if err := l.Deliver(ctx, here, local, peer); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestReuseportPairWithOneClosed(t *testing.T) {
	l := start(t, nil)
	share := func(fd int) { must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)) }
	a := listen(t, l, "0.0.0.0", 0, 64, share)
	b := listen(t, l, "0.0.0.0", a.port, 64, share)
	fars := map[*net.TCPConn]bool{}
	for range 20 {
		fars[a.deliver()] = true
	}
	// The kernel spreads the signals over both; what waits at the closed one
	// must reach the other.
	eventually(t, "both listeners are woken", func() bool { return a.wait(0) && b.wait(0) })
	a.close()
	for range 20 {
		if !b.wait(20 * time.Second) {
			t.Fatal("a connection is lost")
		}
		conn, _, err := b.accept()
		if errors.Is(err, errStale) {
			t.Fatal("stale")
		}
		must(t, err)
		conn.Close()
	}
	for far := range fars {
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("far end: %v, want EOF", err)
		}
	}
}

func TestRefusedHandOverIsQueuedAgain(t *testing.T) {
	l := start(t, nil)
	g := listen(t, l, "0.0.0.0", 0, 5)
	first, second := g.deliver(), g.deliver()
	for range 3 {
		if !g.wait(20 * time.Second) {
			t.Fatal("not woken")
		}
		if _, _, err := g.acceptAnd(false); err != nil {
			t.Fatal(err)
		}
	}
	// Still in order.
	g.serve(first)
	g.serve(second)
}

func TestStaleSignalAndGreedyStranger(t *testing.T) {
	l := start(t, nil)
	g := listen(t, l, "0.0.0.0", 0, 5)
	// A signal of an earlier supervisor: nobody knows its token.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 66, 9, 9)}}
	old, err := d.Dial("tcp4", netip.AddrPortFrom(loopback, g.port).String())
	must(t, err)
	defer old.Close()
	if !g.wait(20 * time.Second) {
		t.Fatal("not woken")
	}
	if _, _, err := g.accept(); !errors.Is(err, errStale) {
		t.Errorf("%v, want a stale signal", err)
	}
	// A program without a monitor throws signals away: the connection is
	// reset in the end, not signalled for ever.
	far := g.deliver()
	ended := make(chan error, 1)
	go func() {
		_, err := far.Read(make([]byte, 1))
		ended <- err
	}()
	for seen := 0; ; {
		if g.wait(10 * time.Millisecond) {
			fd, _, err := unix.Accept(g.fd)
			must(t, err)
			seen++
			unix.Close(fd)
			continue
		}
		select {
		case err := <-ended:
			if !errors.Is(err, syscall.ECONNRESET) || seen != maxLost+1 {
				t.Errorf("after %d signals: %v, want ECONNRESET after %d", seen, err, maxLost+1)
			}
			return
		default:
		}
	}
}

// A guest at its limit of descriptors says so: its connections stay queued.
func TestDeclinedSignalsAreNotLost(t *testing.T) {
	l := start(t, nil)
	g := listen(t, l, "0.0.0.0", 0, 5)
	far := g.deliver()
	for range maxLost + 2 {
		if !g.wait(20 * time.Second) {
			t.Fatal("not signalled again")
		}
		fd, _, err := unix.Accept(g.fd)
		must(t, err)
		_, err = unix.Write(fd, []byte(declined))
		must(t, err)
		unix.Close(fd)
	}
	g.serve(far)
}

func TestAdoptsListenersThatExist(t *testing.T) {
	g := listen(t, nil, "0.0.0.0", 0, 5)
	// A guest's listener is not this process's: here the file belongs to a
	// child that inherited it.
	back := holdInChild(t, g)
	l := start(t, func(o *Options) { o.Adopt, o.Exclude = true, []uint16{1} })
	g.l = l
	if !l.Listening(g.port) { // at once: peers may ask already
		t.Error("the listener is not adopted")
	}
	far := g.deliver()
	g.fd = back()
	g.serve(far)
	own := listen(t, nil, "0.0.0.0", 0, 5)
	must(t, l.adopt())
	if l.Listening(own.port) {
		t.Error("a listener of this very process was adopted")
	}
}

func cookieOf(t *testing.T, conn *net.TCPConn) (cookie uint64) {
	t.Helper()
	c, err := conn.SyscallConn()
	must(t, err)
	must(t, c.Control(func(fd uintptr) { cookie = raw.Uint64(int(fd), unix.SO_COOKIE) }))
	return cookie
}

func TestAddressBook(t *testing.T) {
	l := start(t, nil)
	here, far := arrival(t)
	cookie := cookieOf(t, far)
	l.Remember(cookie, netip.AddrPortFrom(overlay, 0), peer, unix.AF_INET6)
	a, err := l.Address(context.Background(), cookie)
	must(t, err)
	port := far.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	if a.Local != netip.AddrPortFrom(overlay, port) || a.Peer != peer || a.Family != unix.AF_INET6 {
		t.Errorf("addresses %+v, want local port %d", a, port)
	}
	if _, err := l.Address(context.Background(), 1); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("unknown cookie: %v, want ENOENT", err)
	}
	reset(here)
	far.Close()
	eventually(t, "the entry is forgotten", func() bool {
		l.readBook(true)
		_, err := l.Address(context.Background(), cookie)
		return errors.Is(err, syscall.ENOENT)
	})
}

// A connection that was reset keeps its names for a while, however often others
// ask for theirs.
func TestNamesOutliveTheConnection(t *testing.T) {
	l := start(t, nil)
	here, far := arrival(t)
	defer unix.Close(here)
	cookie := cookieOf(t, far)
	l.Remember(cookie, netip.AddrPortFrom(overlay, 7), peer, unix.AF_INET)
	other, _ := arrival(t)
	defer unix.Close(other)
	ask := func() {
		l.Remember(raw.Uint64(other, unix.SO_COOKIE), netip.AddrPortFrom(overlay, 0), peer, unix.AF_INET)
		_, err := l.Address(context.Background(), raw.Uint64(other, unix.SO_COOKIE))
		must(t, err)
	}
	ask() // and both are seen
	far.SetLinger(0)
	far.Close()
	for range 4 {
		ask()
	}
	if _, err := l.Address(context.Background(), cookie); err != nil {
		t.Error(err)
	}
}

// Connections that wait for room are queued in the order they came, and a
// second listen() makes room.
func TestWaitingForRoomKeepsTheOrder(t *testing.T) {
	l := start(t, nil)
	g := listen(t, l, "0.0.0.0", 0, 1)
	fars := []*net.TCPConn{g.deliver()}
	for n := range 8 {
		here, far := arrival(t)
		fars = append(fars, far)
		go l.Deliver(context.Background(), here, netip.AddrPortFrom(overlay, g.port), peer)
		eventually(t, "it waits", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.waiting == n+1
		})
	}
	for _, far := range fars[:4] {
		g.serve(far)
	}
	must(t, unix.Listen(g.fd, 16))
	must(t, l.Listen(context.Background(), ipc.ListenRequest{Cookie: g.cookie, Addr: netip.AddrPortFrom(loopback, g.port), Backlog: 16}))
	eventually(t, "all are queued", func() bool { _, queued := l.Usage(); return queued == 5 })
	for _, far := range fars[4:] {
		g.serve(far)
	}
}

func TestNativePeersAndConnecting(t *testing.T) {
	l := start(t, nil)
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer ln.Close()
	conn, err := net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	must(t, err)
	defer conn.Close()
	pair := [2]netip.AddrPort{conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()}
	signal, err := net.DialTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 66, 9, 8)}, ln.Addr().(*net.TCPAddr))
	must(t, err)
	defer signal.Close()
	made, err := l.NativePeers()
	must(t, err)
	if from := signal.LocalAddr().(*net.TCPAddr).AddrPort(); slices.ContainsFunc(made, func(p [2]netip.AddrPort) bool { return p[0] == from }) {
		t.Errorf("the signal from %v is no guest's connection, but is in %v", from, made)
	}
	if !slices.Contains(made, pair) || slices.Contains(made, [2]netip.AddrPort{pair[1], pair[0]}) {
		t.Errorf("%v and only its active end expected in %v", pair, made)
	}
	if l.Connecting(pair[0], pair[1]) {
		t.Error("an established connection is said to be connecting")
	}
	if l.Connecting(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.67.0.1:1")) {
		t.Error("a connection that is not there is said to be connecting")
	}
}

// A list has the sockets of both families, and serves all that look at about the
// same time.
func TestListsAreShared(t *testing.T) {
	l := start(t, nil)
	var open []netip.AddrPort
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", at)
		must(t, err)
		defer ln.Close()
		open = append(open, ln.Addr().(*net.TCPAddr).AddrPort())
	}
	begun, all, err := l.listed.get(0)
	must(t, err)
	for _, at := range open {
		if !slices.ContainsFunc(all, func(s kernelSocket) bool { return s.local == at && s.state == stateListen }) {
			t.Errorf("%s is not in the list", at)
		}
	}
	if again, _, err := l.listed.get(time.Hour); err != nil || again != begun {
		t.Errorf("listed again, %v", err)
	}
	if again, _, err := l.listed.get(0); err != nil || !again.After(begun) {
		t.Errorf("an old list, %v", err)
	}
}

func FuzzParseDiag(f *testing.F) {
	m := make([]byte, diagMessageSize+8)
	m[0], m[diagMessageSize], m[diagMessageSize+2], m[diagMessageSize+4] = unix.AF_INET6, 5, attrV6Only, 1
	f.Add(m)
	f.Add(m[:diagMessageSize])
	f.Add([]byte{unix.AF_INET})
	f.Fuzz(func(t *testing.T, in []byte) { parseDiag(in) })
}

// What waited for a listener that was closed is not for the next one on its
// port, however soon that comes.
func TestNextListenerGetsNoOldConnections(t *testing.T) {
	l := start(t, func(o *Options) { o.Sweep = time.Hour })
	for range 20 {
		g := listen(t, l, "0.0.0.0", 0, 8)
		here, far := arrival(t)
		must(t, l.Deliver(context.Background(), here, netip.AddrPortFrom(overlay, g.port), peer))
		g.wait(20 * time.Second)
		g.close()
		next := listen(t, l, "0.0.0.0", g.port, 8)
		far.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the old connection: %v, want ECONNRESET", err)
		}
		far.Close()
		next.close()
	}
}

// Nor is it when the next listener is there before anybody told the layer.
func TestNextListenerIsNotWokenForOldConnections(t *testing.T) {
	l := start(t, func(o *Options) { o.Sweep = time.Hour })
	for range 5 {
		g := listen(t, l, "0.0.0.0", 0, 8)
		far := g.deliver()
		g.wait(20 * time.Second)
		g.close()
		next := listen(t, nil, "0.0.0.0", g.port, 8)
		if next.wait(5 * retryPause) {
			t.Error("the next listener is woken for it")
		}
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the old connection: %v, want ECONNRESET", err)
		}
		next.close()
	}
}

// A listener that shares the port has the connections that were queued since
// it is there, not those from before.
func TestSharedPortGivesNoOlderConnections(t *testing.T) {
	l := start(t, func(o *Options) { o.Sweep = time.Hour })
	share := func(fd int) { must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)) }
	a := listen(t, l, "0.0.0.0", 0, 64, share)
	older := a.deliver()
	a.wait(20 * time.Second)
	b := listen(t, l, "0.0.0.0", a.port, 64, share)
	var fars []*net.TCPConn
	for !b.wait(10 * time.Millisecond) { // the kernel chooses
		fars = append(fars, a.deliver())
	}
	b.serve(fars[0])
	a.close()
	for _, far := range fars[1:] {
		b.serve(far)
	}
	if _, err := older.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the older connection: %v, want ECONNRESET", err)
	}
}

// What is in a guest's hands when its listener goes is not given to the next
// one either.
func TestRefusedHandOverIsNotForTheNextListener(t *testing.T) {
	l := start(t, func(o *Options) { o.Sweep = time.Hour })
	again := func(fd int) { must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)) }
	g := listen(t, l, "0.0.0.0", 0, 8, again)
	far := g.deliver()
	g.wait(20 * time.Second)
	fd, from, err := unix.Accept(g.fd)
	must(t, err)
	_, done, err := l.Accept(context.Background(), ipc.AcceptRequest{Cookie: g.cookie, Signal: sourceOf(from)})
	must(t, err)
	g.close()
	next := listen(t, l, "0.0.0.0", g.port, 8, again)
	unix.Close(fd)
	done(false)
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || next.wait(5*retryPause) {
		t.Errorf("the old connection: %v, want ECONNRESET and the next listener left alone", err)
	}
}

// Another listen() leaves a listener what waits for it.
func TestListenAgainKeepsWhatWaits(t *testing.T) {
	l := start(t, nil)
	g := listen(t, l, "0.0.0.0", 0, 5)
	far := g.deliver()
	must(t, unix.Listen(g.fd, 7))
	must(t, l.Listen(context.Background(), ipc.ListenRequest{Cookie: g.cookie, Addr: netip.AddrPortFrom(loopback, g.port), Backlog: 7}))
	g.wait(20 * time.Second)
	_, _, err := g.acceptAnd(false) // so that it is signalled once more
	must(t, err)
	g.serve(far)
}
