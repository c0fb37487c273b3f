// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/events"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// First bytes on an overlay port.
const (
	firstTLS     = 0x16 // a handshake record
	firstPreface = 'B'
)

// ListenOverlay opens the one overlay port, dual-stack, with the socket
// options that a guest's connections should inherit.
func ListenOverlay(ctx context.Context, address string) (*net.TCPListener, error) {
	// What is accepted has it from the listener: a connection that this process has
	// when it dies is reset. It would end in order, like one that has been served.
	linger := func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { raw.Linger(int(fd), true) })
	}
	lc := net.ListenConfig{KeepAlive: -1, Control: linger}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on the overlay port: %w", err)
	}
	return ln.(*net.TCPListener), nil
}

// Serve accepts on the overlay port until ctx ends; then it closes ln and the
// Layer and returns nil.
func (l *Layer) Serve(ctx context.Context, ln *net.TCPListener) error {
	defer l.Close()
	l.openings.begin(ln.Addr().(*net.TCPAddr).AddrPort())
	l.spawn(func() { l.tickets.tend(l.ctx) })
	unproven := events.Server{Greet: l.greet, Silent: l.o.unproven, Patience: firstBytes}
	if err := unproven.Serve(ctx, ln); err != nil {
		return fmt.Errorf("serve the overlay port %s: %w", ln.Addr(), err)
	}
	return nil
}

// accept waits out a shortage of descriptors or memory.
func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	for {
		conn, err := ln.Accept()
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		if !shortage(err) && !errors.Is(err, syscall.ECONNABORTED) {
			return nil, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// shortage tells whether an error may pass when others let go of something.
func shortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// greet looks at the first bytes of a connection and sends it where it belongs.
func (l *Layer) greet(fd int) bool {
	var b [prefaceSize]byte
	n, err := raw.Receive(fd, b[:], unix.MSG_PEEK)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false
	case err != nil || n == 0 || (b[0] == firstTLS && l.o.ServeControl == nil) || (b[0] != firstTLS && b[0] != firstPreface):
		l.strangers.Add(1)
		raw.Close(fd)
	case b[0] == firstTLS && !wholeRecord(fd, b[:n]):
		if !ended(fd) {
			return false
		}
		l.strangers.Add(1)
		raw.Close(fd)
	case b[0] == firstTLS:
		l.adopt(fd, func(c *net.TCPConn) { go l.o.ServeControl(c) }) // its owner ends it
	case n < prefaceSize && !ended(fd):
		return false
	default:
		l.examine(fd, b[:])
	}
	return true
}

// wholeRecord tells whether the record that b begins has come: who does not even
// say hello waits among the silent, not for a handshake.
func wholeRecord(fd int, b []byte) bool {
	const head = 5
	if len(b) < head {
		return false
	}
	has, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err != nil || has >= head+int(binary.BigEndian.Uint16(b[3:]))
}

// ended tells whether no more bytes will come.
func ended(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return n > 0 && err == nil
}

// adopt gives a connection to the Go runtime's poller, and to its user, which may
// end it in order.
func (l *Layer) adopt(fd int, use func(*net.TCPConn)) {
	raw.Linger(fd, false)
	if !l.spawn(func() {
		if conn, err := pollable(fd); err == nil {
			use(conn)
		}
	}) {
		raw.Close(fd)
	}
}

// pollable takes a connection over.
func pollable(fd int) (*net.TCPConn, error) {
	file := os.NewFile(uintptr(fd), "connection")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// examine takes a preface off the connection and checks it.
func (l *Layer) examine(fd int, b []byte) {
	if n, err := raw.Receive(fd, b, 0); err != nil || n != len(b) { // half a preface, and the end
		raw.Close(fd)
		return
	}
	p, err := l.check(b)
	switch {
	case errors.Is(err, errVersion) && p.kind != kindDirect: // there it would be a guest's answer
		l.adopt(fd, func(c *net.TCPConn) {
			l.complain(c, err)
			_ = say(c, otherwise)
			c.Close()
		})
	case err != nil:
		l.strangers.Add(1)
		l.adopt(fd, func(c *net.TCPConn) {
			l.complain(c, err)
			reset(c) // an end in order would be a guest's answer
		})
	case p.kind == kindDirect:
		l.receive(fd, p)
	default:
		l.adopt(fd, func(c *net.TCPConn) { l.arrive(c, p) })
	}
}

func (l *Layer) check(b []byte) (preface, error) {
	p, err := open(*l.key.Load(), b)
	if err != nil && !errors.Is(err, errVersion) {
		return p, err
	}
	if err := l.nonces.admit(p.nonce, p.time, time.Now()); err != nil {
		return p, err
	}
	if err != nil {
		return p, err
	}
	if p.kind == kindRelayActive || p.kind == kindRelayPassive || p.kind == kindProbe {
		return p, nil // for whichever seed
	}
	if own := l.o.Members.Self().OverlayAddress; p.dst.Addr() != own {
		return p, fmt.Errorf("preface for %s reached %s", p.dst.Addr(), own)
	}
	return p, nil
}

// receive gives a direct connection to the guest, as the kernel made it.
func (l *Layer) receive(fd int, p preface) {
	src := p.src
	if src.Port() == 0 {
		src = netip.AddrPortFrom(src.Addr(), raw.PeerPort(fd))
	}
	if self := l.o.Members.Self(); (p.id != self.ID || l.loops(self)) && l.crossesNAT(src.Addr()) {
		setKeepAlive(fd)
	}
	err := l.o.Sockets.Deliver(over, fd, p.dst, src)
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled) && l.spawn(func() { l.deliverPlain(fd, p.dst, src) }): // the guest's queue is full
	case errors.Is(err, syscall.EMFILE) && l.waitShort(fd, p.dst, src):
	default:
		l.resetPlain(fd, err)
	}
}

// waitShort delivers as soon as there are descriptors again: the far end takes the
// connection for made.
func (l *Layer) waitShort(fd int, local, peer netip.AddrPort) bool {
	if !enter(l.short) {
		return false
	}
	if !l.spawn(func() {
		defer leave(l.short)
		l.deliverPlain(fd, local, peer, syscall.EMFILE)
	}) {
		leave(l.short)
		return false
	}
	return true
}

// over is the context of a call that must not wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// arrive sends a proven connection on that is for the supervisor.
func (l *Layer) arrive(conn *net.TCPConn, p preface) {
	switch p.kind {
	case kindDialBack:
		l.backs.arrive(p.session, conn)
	case kindRelayActive, kindRelayPassive:
		if !l.o.Relay {
			conn.Close()
			return
		}
		l.relay.join(l.ctx, conn, p, l.owner(p))
	case kindProbe:
		if !l.o.Relay {
			conn.Close()
			return
		}
		l.answerProbe(conn, p)
	default:
		conn.Close()
	}
}

// deliverPlain gives a connection to the guest, or resets it; these reasons pass.
func (l *Layer) deliverPlain(fd int, local, peer netip.AddrPort, passing ...syscall.Errno) {
	if err := l.deliverSoon(l.ctx, fd, local, peer, passing...); err != nil {
		l.resetPlain(fd, err)
	}
}

func (l *Layer) resetPlain(fd int, err error) {
	level := zerolog.DebugLevel
	if errors.Is(err, syscall.EMFILE) && l.mute.speak(netip.Addr{}) {
		level = zerolog.WarnLevel
	}
	l.o.Logger.WithLevel(level).Err(err).Msg("connection for the guest is reset")
	resetPlain(fd)
}

// crossesNAT tells whether a connection with a peer lives in some NAT's memory.
func (l *Layer) crossesNAT(peer netip.Addr) bool {
	self := l.o.Members.Self()
	m, ok := l.o.Members.Lookup(peer)
	if !ok {
		return translated(self)
	}
	return !sameSite(self, m) && (translated(self) || translated(m))
}

// plain takes the socket out of a connection as the kernel makes one, without
// what the Go runtime sets on it; only through a NAT it is kept alive.
func plain(conn *net.TCPConn, nat bool) (fd int, err error) {
	conn.SetNoDelay(false)
	conn.SetKeepAlive(false)
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return -1, e
	}
	if err != nil {
		return -1, err
	}
	conn.Close()
	if nat {
		setKeepAlive(fd)
	}
	return fd, nil
}

func reset(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

func resetPlain(fd int) {
	raw.Linger(fd, true)
	raw.Close(fd)
}

func remote(conn net.Conn) netip.AddrPort {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// quiet keeps one source from filling the log.
type quiet struct {
	mu      sync.Mutex
	sources map[netip.Addr]time.Time
}

// speak allows one line for a source and minute.
func (q *quiet) speak(a netip.Addr) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if now.Sub(q.sources[a]) < time.Minute {
		return false
	}
	if len(q.sources) >= 1024 {
		clear(q.sources)
	}
	q.sources[a] = now
	return true
}

func (l *Layer) complain(conn net.Conn, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return // somebody knocked
	}
	if a := remote(conn).Addr(); l.quiet.speak(a) {
		l.o.Logger.Warn().Err(err).Stringer("source", a).Msg("connection to the overlay port refused")
	}
}
