// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
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
	lc := net.ListenConfig{KeepAlive: -1}
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
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("serve the overlay port %s: %w", ln.Addr(), err)
		}
		place := l.unproven.enter(conn)
		if !l.spawn(func() { l.greet(conn.(*net.TCPConn), place) }) {
			l.unproven.leave(place)
			conn.Close()
		}
	}
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

// greet looks at the first byte of a connection and sends it where it belongs.
func (l *Layer) greet(conn *net.TCPConn, place *list.Element) {
	stop := context.AfterFunc(l.ctx, func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(firstBytes))
	first, err := peek(conn)
	var p preface
	if err == nil && first == firstPreface {
		p, err = l.readPreface(conn)
	}
	l.unproven.leave(place)
	conn.SetReadDeadline(time.Time{})
	if !stop() {
		return // closing
	}
	switch {
	case err != nil:
		l.complain(conn, err)
		conn.Close()
	case first == firstTLS && l.o.ServeControl != nil:
		go l.o.ServeControl(conn) // its owner ends it
	case first == firstPreface:
		l.arrive(conn, p)
	default:
		conn.Close()
	}
}

// peek waits for the first byte and leaves it where it is.
func peek(conn *net.TCPConn) (first byte, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if !errors.Is(failed, unix.EINTR) {
				return !errors.Is(failed, unix.EAGAIN)
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, failed
	case n == 0:
		return 0, io.EOF
	}
	return b[0], nil
}

// readPreface takes exactly one preface off the connection and checks it.
func (l *Layer) readPreface(conn *net.TCPConn) (preface, error) {
	var b [prefaceSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return preface{}, err
	}
	p, err := open(l.key, b[:])
	if err != nil {
		return p, err
	}
	if err := l.nonces.admit(p.nonce, p.time, time.Now()); err != nil {
		return p, err
	}
	if p.kind == kindRelayActive || p.kind == kindRelayPassive {
		return p, nil
	}
	if own := l.o.Members.Self().OverlayAddress; p.dst.Addr() != own {
		return p, fmt.Errorf("preface for %s reached %s", p.dst.Addr(), own)
	}
	return p, nil
}

// arrive sends a proven connection on.
func (l *Layer) arrive(conn *net.TCPConn, p preface) {
	switch p.kind {
	case kindDirect:
		src := p.src
		if src.Port() == 0 {
			src = netip.AddrPortFrom(src.Addr(), remotePort(conn))
		}
		l.deliver(conn, p.dst, src, p.id != l.o.Members.Self().ID && l.crossesNAT(src.Addr()))
	case kindDialBack:
		l.backs.arrive(p.session, conn)
	case kindRelayActive, kindRelayPassive:
		if !l.o.Relay {
			conn.Close()
			return
		}
		l.relay.join(l.ctx, conn, p)
	}
}

// deliver gives a connection to the guest, or resets it. nat: it crosses one.
func (l *Layer) deliver(conn *net.TCPConn, local, peer netip.AddrPort, nat bool) {
	file, err := plain(conn, nat)
	if err != nil {
		reset(conn)
		return
	}
	if err := l.o.Sockets.Deliver(l.ctx, file, local, peer); err != nil {
		l.o.Logger.Debug().Err(err).Msg("connection for the guest is reset")
		resetFile(file)
	}
}

// crossesNAT tells whether a connection with a peer lives in some NAT's memory.
func (l *Layer) crossesNAT(peer netip.Addr) bool {
	m, ok := l.o.Members.Lookup(peer)
	return l.o.Members.Self().NAT == cluster.NATBehind || (ok && m.NAT == cluster.NATBehind)
}

// plain takes the socket out of a connection as the kernel makes one, without
// what the Go runtime sets on it; only through a NAT it is kept alive.
func plain(conn *net.TCPConn, nat bool) (*os.File, error) {
	conn.SetDeadline(time.Time{})
	conn.SetNoDelay(false)
	conn.SetKeepAlive(false)
	if nat {
		conn.SetKeepAliveConfig(keepAlive)
	}
	file, err := conn.File()
	if err != nil {
		return nil, err
	}
	conn.Close()
	return file, nil
}

func reset(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

func resetFile(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
	}
	f.Close()
}

func remotePort(conn net.Conn) uint16 { return remote(conn).Port() }

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
