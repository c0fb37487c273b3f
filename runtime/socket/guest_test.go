// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/events"
	"github.com/boxer-overlay/boxer/runtime/ipc"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

var (
	loopback = netip.MustParseAddr("127.0.0.1")
	overlay  = netip.MustParseAddr("100.80.0.3")
	peer     = netip.MustParseAddrPort("100.80.0.4:40000")
)

// start runs a Layer for one test and checks that it leaves nothing.
func start(t *testing.T, change func(*Options)) *Layer {
	t.Helper()
	must(t, events.Start()) // once for all, and so
	_, err := kernelSockets(maskListen)
	must(t, err)
	_, err = kernelListens(netip.MustParseAddrPort("127.0.0.1:1"))
	must(t, err)
	goroutines, fds := runtime.NumGoroutine(), countFDs(t)
	o := Options{Underlay: loopback, Sweep: 50 * time.Millisecond, Logger: zerolog.Nop()}
	if change != nil {
		change(&o)
	}
	l := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() { // registered first, so it runs after the guests are gone
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		var g, f int
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if g, f = runtime.NumGoroutine(), countFDs(t); g <= goroutines && f <= fds {
				return
			}
		}
		stacks := make([]byte, 1<<16)
		t.Errorf("goroutines %d -> %d, descriptors %d -> %d\n%s", goroutines, g, fds, f, stacks[:runtime.Stack(stacks, true)])
	})
	return l
}

func countFDs(t *testing.T) int {
	t.Helper()
	// The first file makes the Go runtime open its poller, once for all.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Errorf("not so within 20 s: %s", what)
}

// guest is a listening program with its process monitor.
type guest struct {
	t      *testing.T
	l      *Layer
	fd     int
	cookie uint64
	port   uint16
	v6     bool
}

// listen opens a kernel listener at address (of any family) and announces it.
// More socket options can be set before.
func listen(t *testing.T, l *Layer, address string, port uint16, backlog int, options ...func(fd int)) *guest {
	t.Helper()
	ip := netip.MustParseAddr(address)
	family, name := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(port)})
	if ip.Is6() {
		family, name = unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}
	} else {
		name.(*unix.SockaddrInet4).Addr = ip.As4()
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	for _, option := range options {
		option(fd)
	}
	must(t, unix.Bind(fd, name))
	must(t, unix.Listen(fd, backlog))
	bound, err := unix.Getsockname(fd)
	must(t, err)
	g := &guest{t: t, l: l, fd: fd, v6: ip.Is6()}
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		g.port = uint16(a.Port)
	case *unix.SockaddrInet6:
		g.port = uint16(a.Port)
	}
	g.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	must(t, err)
	if l != nil {
		must(t, l.Listen(context.Background(), ipc.ListenRequest{Cookie: g.cookie, Addr: netip.AddrPortFrom(ip, g.port), Backlog: backlog, V6: g.v6}))
	}
	t.Cleanup(g.close)
	return g
}

func (g *guest) close() {
	if g.fd >= 0 {
		unix.Close(g.fd)
		g.fd = -1
	}
}

// wait waits for the kernel to say that there is something to accept.
func (g *guest) wait(timeout time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}}
	for end := time.Now().Add(timeout); ; {
		n, err := unix.Poll(p, int(max(0, time.Until(end).Milliseconds())))
		if !errors.Is(err, unix.EINTR) {
			return n == 1
		}
	}
}

// errStale is an accept that must be repeated.
var errStale = errors.New("stale signal")

// accept does what a monitor does in accept(): a connection from a reserved
// address stands for another one.
func (g *guest) accept() (conn *os.File, a ipc.Addresses, err error) {
	return g.acceptAnd(true)
}

func (g *guest) acceptAnd(take bool) (conn *os.File, a ipc.Addresses, err error) {
	fd, from, err := unix.Accept4(g.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, a, err
	}
	defer unix.Close(fd)
	source := sourceOf(from)
	if !netip.MustParsePrefix("127.66.0.0/16").Contains(source.Addr()) {
		return nil, a, errors.New("not a signal: " + source.String())
	}
	got, done, err := g.l.Accept(context.Background(), ipc.AcceptRequest{Cookie: g.cookie, Signal: source, V6: g.v6})
	if errors.Is(err, unix.ENOENT) {
		return nil, a, errStale
	} else if err != nil {
		return nil, a, err
	}
	linger, err := unix.GetsockoptLinger(got.FD, unix.SOL_SOCKET, unix.SO_LINGER)
	if err != nil || linger.Onoff == 0 {
		g.t.Errorf("on its way to the guest a connection would end in order: %v", err)
	}
	if !take {
		done(false)
		return nil, a, nil
	}
	copied, err := unix.Dup(got.FD) // as SCM_RIGHTS does
	if linger, err := unix.GetsockoptLinger(g.fd, unix.SOL_SOCKET, unix.SO_LINGER); err == nil {
		must(g.t, unix.SetsockoptLinger(copied, unix.SOL_SOCKET, unix.SO_LINGER, linger))
	}
	done(true)
	if err != nil {
		return nil, a, err
	}
	unix.SetNonblock(copied, false)
	return os.NewFile(uintptr(copied), "accepted"), got.Addresses, nil
}

func sourceOf(from unix.Sockaddr) netip.AddrPort {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// arrival makes a real connection and returns the end that arrived here and
// the far end.
func arrival(t *testing.T) (here int, far *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer ln.Close()
	far, err = net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	must(t, err)
	conn, err := ln.AcceptTCP()
	must(t, err)
	defer conn.Close()
	raw, err := conn.SyscallConn()
	must(t, err)
	raw.Control(func(fd uintptr) { here, err = unix.Dup(int(fd)) })
	must(t, err)
	t.Cleanup(func() { far.Close() })
	far.SetDeadline(time.Now().Add(20 * time.Second))
	return here, far
}

// deliver hands an arrival to the layer.
func (g *guest) deliver() *net.TCPConn {
	g.t.Helper()
	here, far := arrival(g.t)
	must(g.t, g.l.Deliver(context.Background(), here, netip.AddrPortFrom(overlay, g.port), peer))
	return far
}

// serve accepts one connection and checks that it is the one to far.
func (g *guest) serve(far *net.TCPConn) {
	g.t.Helper()
	if !g.wait(20 * time.Second) {
		g.t.Fatal("the guest is not woken")
	}
	conn, a, err := g.accept()
	must(g.t, err)
	defer conn.Close()
	family := uint16(unix.AF_INET)
	if g.v6 {
		family = unix.AF_INET6
	}
	want := ipc.Addresses{Local: netip.AddrPortFrom(overlay, g.port), Peer: peer, Family: family}
	if a != want {
		g.t.Errorf("addresses %+v, want %+v", a, want)
	}
	_, err = conn.WriteString("hello")
	must(g.t, err)
	var b [5]byte
	if _, err := far.Read(b[:]); err != nil || string(b[:]) != "hello" {
		g.t.Errorf("far end read %q, %v", b, err)
	}
	conn.Close()
	if n, err := far.Read(b[:]); n != 0 || err == nil {
		g.t.Error("the guest's close does not reach the far end: somebody holds a duplicate")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
