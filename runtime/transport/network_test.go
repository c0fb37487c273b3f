// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/events"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

var secret = []byte("a secret of a test network")

// network is nodes in one process: real sockets on loopback, calls between
// supervisors by function call (as JSON).
type network struct {
	t  *testing.T
	mu sync.Mutex
	by map[uint32]*node
	on []cluster.Member
}

// node is one of them. It is its own Members, Control and Sockets.
type node struct {
	*network
	*Layer
	id      uint32
	down    error // what calls to it fail with
	late    func(method string) time.Duration
	gone    atomic.Bool  // its guest's sockets connect no more
	short   atomic.Int32 // so many deliveries find no descriptors
	control chan net.Conn
	punched func(punchCall) punchAnswer // answers instead of it, if set

	mu      sync.Mutex
	ports   map[uint16]chan arrived // of the guest's listeners
	noticed map[uint64][2]netip.AddrPort
}

type arrived struct {
	conn        net.Conn
	local, peer netip.AddrPort
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	dropPipes()
	must(t, events.Start()) // once for all
	goroutines, fds := runtime.NumGoroutine(), countFDs(t)
	t.Cleanup(func() {
		var g, f int
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			dropPipes()
			if g, f = runtime.NumGoroutine(), countFDs(t); g <= goroutines && f <= fds {
				return
			}
		}
		stacks := make([]byte, 1<<16)
		t.Errorf("goroutines %d -> %d, descriptors %d -> %d\n%s", goroutines, g, fds, f, stacks[:runtime.Stack(stacks, true)])
	})
	return &network{t: t, by: map[uint32]*node{}}
}

// node adds a member. Option functions may change what it is.
func (n *network) node(change ...func(*cluster.Member, *Options)) *node {
	n.t.Helper()
	id := uint32(len(n.on) + 1)
	ln, err := ListenOverlay(context.Background(), fmt.Sprintf("127.68.0.%d:%d", id, ownPort(n.t)))
	must(n.t, err)
	must(n.t, Share(ln))
	m := cluster.Member{
		ID: id, NAT: cluster.NATNone, State: cluster.StateRunning,
		OverlayAddress:  netip.AddrFrom4([4]byte{100, 80, 0, byte(id)}),
		UnderlayAddress: ln.Addr().(*net.TCPAddr).AddrPort(),
	}
	v := &node{network: n, id: id, ports: map[uint16]chan arrived{}, noticed: map[uint64][2]netip.AddrPort{}, control: make(chan net.Conn, 1)}
	o := Options{Secret: secret, Members: v, Control: v, Sockets: v, Reach: reachAny, Logger: zerolog.Nop(), HoldTimeout: 5 * time.Second,
		ServeControl: func(c net.Conn) { v.control <- c },
		Relays:       func() []RelayNode { return []RelayNode{{ID: 1, Endpoint: n.Members()[0].UnderlayAddress.String()}} }}
	for _, f := range change {
		f(&m, &o)
	}
	v.Layer = New(o)
	n.mu.Lock()
	n.on, n.by[id] = append(n.on, m), v
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- v.Serve(ctx, ln) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	return v
}

// ownPort is a port that until the test ends nobody else on this machine has on
// any address: a node dials from its overlay port on the wildcard address, which
// the kernel refuses when another process uses the port on some address.
func ownPort(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	must(t, unix.Bind(fd, &unix.SockaddrInet4{}))
	name, err := unix.Getsockname(fd)
	must(t, err)
	return name.(*unix.SockaddrInet4).Port
}

func behindNAT(m *cluster.Member, _ *Options) { m.NAT = cluster.NATBehind }
func seed(m *cluster.Member, o *Options)      { m.Kind, o.Relay = "seed", true }

func (n *network) Members() []cluster.Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]cluster.Member(nil), n.on...)
}

func (n *network) Lookup(a netip.Addr) (cluster.Member, bool) {
	for _, m := range n.Members() {
		if m.OverlayAddress == a {
			return m, true
		}
	}
	return cluster.Member{}, false
}

func (n *network) Member(id uint32) (cluster.Member, bool) {
	for _, m := range n.Members() {
		if m.ID == id {
			return m, true
		}
	}
	return cluster.Member{}, false
}

func (v *node) Self() cluster.Member { return v.network.Members()[v.id-1] }

func (v *node) Call(ctx context.Context, to uint32, method string, in, out any) error {
	v.network.mu.Lock()
	other := v.by[to]
	v.network.mu.Unlock()
	if other.down != nil {
		return other.down
	}
	if other.late != nil {
		time.Sleep(other.late(method))
	}
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	var answer any
	if other.punched != nil && method == methodPunch {
		answer = other.punched(in.(punchCall))
	} else if answer, err = other.Handlers()[method](ctx, v.id, b); err != nil {
		return err
	}
	if b, err = json.Marshal(answer); err != nil {
		return err
	}
	return json.Unmarshal(b, out)
}

func (v *node) listen(port uint16) <-chan arrived {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ports[port] = make(chan arrived, 16)
	return v.ports[port]
}

func (v *node) Listening(port uint16) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ports[port] != nil
}

// Deliver also checks that the guest gets a socket as the kernel makes one.
func (v *node) Deliver(_ context.Context, fd int, local, peer netip.AddrPort) error {
	if v.short.Add(-1) >= 0 {
		return fmt.Errorf("in a test: %w", syscall.EMFILE)
	}
	raw.Linger(fd, false) // as when a guest accepts it
	if !v.Listening(local.Port()) {
		return syscall.ECONNREFUSED
	}
	m, _ := v.Lookup(peer.Addr())
	alive := v.Self().NAT == cluster.NATBehind || m.NAT == cluster.NATBehind
	if m.ID == v.id && !allows(v.o.Transports, pathRelay) {
		alive = false
	}
	if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || on != 0 {
		v.t.Errorf("TCP_NODELAY is %d, %v", on, err)
	}
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || (on != 0) != alive {
		v.t.Errorf("SO_KEEPALIVE is %d, %v; through a NAT: %v", on, err, alive)
	}
	if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_TCP {
		v.t.Errorf("protocol %d, %v", protocol, err)
	}
	file := os.NewFile(uintptr(fd), "connection")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	v.ports[local.Port()] <- arrived{conn, local, peer}
	return nil
}

func (v *node) Remember(cookie uint64, local, peer netip.AddrPort, _ uint16) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.noticed[cookie] = [2]netip.AddrPort{local, peer}
}

func (v *node) Connecting(netip.AddrPort, netip.AddrPort) bool { return !v.gone.Load() }

func (v *node) port(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(v.Self().OverlayAddress, port)
}

// guest is a guest's socket, bound as its monitor binds it.
type guest struct {
	t     *testing.T
	fd    int
	v6    bool
	local netip.AddrPort
}

func newGuest(t *testing.T, v6, nonblock bool) *guest { return newGuestAt(t, v6, nonblock, 0) }

func newGuestAt(t *testing.T, v6, nonblock bool, port uint16) *guest {
	t.Helper()
	family, kind := unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC
	if v6 {
		family = unix.AF_INET6
	}
	if nonblock {
		kind |= unix.SOCK_NONBLOCK
	}
	fd, err := unix.Socket(family, kind, 0)
	must(t, err)
	g := &guest{t: t, fd: fd, v6: v6}
	t.Cleanup(g.close)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	must(t, unix.Bind(fd, g.name(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))))
	name, err := unix.Getsockname(fd)
	must(t, err)
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		g.local = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		g.local = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return g
}

func (g *guest) close() {
	if g.fd >= 0 {
		unix.Close(g.fd)
		g.fd = -1
	}
}

func (g *guest) name(a netip.AddrPort) unix.Sockaddr {
	if g.v6 {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func (g *guest) connect(a netip.AddrPort) error { return unix.Connect(g.fd, g.name(a)) }

// events are what poll says within a time.
func (g *guest) events(timeout time.Duration) int16 {
	p := []unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLOUT}}
	for end := time.Now().Add(timeout); ; {
		_, err := unix.Poll(p, int(max(0, time.Until(end).Milliseconds())))
		if !errors.Is(err, unix.EINTR) {
			return p[0].Revents
		}
	}
}

// conn is the guest's socket with deadlines.
func (g *guest) conn() net.Conn {
	g.t.Helper()
	file := os.NewFile(uintptr(g.fd), "guest")
	g.fd = -1
	defer file.Close()
	conn, err := net.FileConn(file)
	must(g.t, err)
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

// talk checks that a and b are the two ends of one connection, and that ends
// travel: it closes both.
func talk(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		_, err := way[0].Write([]byte("hello"))
		must(t, err)
		var got [5]byte
		_, err = io.ReadFull(way[1], got[:])
		must(t, err)
	}
	a.(*net.TCPConn).CloseWrite()
	if n, err := b.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after a half-close: %d bytes, %v", n, err)
	}
	// The other direction still works.
	_, err := b.Write([]byte("late"))
	must(t, err)
	b.Close()
	if got, err := io.ReadAll(a); err != nil || string(got) != "late" {
		t.Errorf("read %q, %v", got, err)
	}
	a.Close()
}

func receive(t *testing.T, ch <-chan arrived) arrived {
	t.Helper()
	select {
	case a := <-ch:
		t.Cleanup(func() { a.conn.Close() })
		return a
	case <-time.After(20 * time.Second):
		t.Fatal("nothing arrives")
		return arrived{}
	}
}

// dropPipes closes those kept for later.
func dropPipes() {
	for {
		select {
		case p := <-idlePipes:
			p.back(false)
		default:
			return
		}
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	// The first file makes the Go runtime open its poller, once for all.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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
