// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"golang.org/x/sys/unix"
)

// far is a connection to the peer's supervisor, whose guest gets it with start. One
// that is given up before was never seen by that guest.
type far struct {
	conn  *net.TCPConn
	start func() error
	path  string // the transport it counts as
}

// begin gives the connection to the peer's guest, which from then on may not take the
// death of this process for an end in order.
func (f far) begin() error {
	f.conn.SetLinger(0)
	return f.start()
}

// keepAlive holds NAT mappings open.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 45 * time.Second, Interval: 15 * time.Second, Count: 4}

func setKeepAlive(fd int) {
	raw.Set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle.Seconds()))
	raw.Set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval.Seconds()))
	raw.Set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count)
	raw.Set(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

// reach makes the far end of a spliced connection, in the first way that the
// two nodes' places in the network allow.
func (l *Layer) reach(ctx context.Context, self, m cluster.Member, src, dst netip.AddrPort) (far, error) {
	only := l.o.Transports
	if allows(only, pathDirect) && canDial(self, m, l.o.Reach) {
		return l.reachOut(ctx, self, m, src, dst)
	}
	how := l.punches(self, m)
	switch {
	case how == modeNone && !allows(only, pathRelay):
		return far{}, fmt.Errorf("node %d: no way past the NATs: %w", m.ID, syscall.EHOSTUNREACH)
	case !allows(only, pathRelay):
		return l.reachPunch(ctx, self, m, src, dst, how, func() {})
	case how == modeNone || l.failed.has(self, m):
		return l.reachRelay(ctx, self, m, src, dst)
	}
	return l.race(ctx, self, m, src, dst, how)
}

// latest is this node and the one at m's address as they are known now: NATs, above
// all, are probed while somebody waits.
func (l *Layer) latest(m cluster.Member) (self, now cluster.Member) {
	if found, ok := l.o.Members.Lookup(m.OverlayAddress); ok {
		m = found
	}
	return l.o.Members.Self(), m
}

// dial connects to an overlay port and sends a preface.
func (l *Layer) dial(ctx context.Context, endpoint string, p preface) (*net.TCPConn, error) {
	conn, err := l.dialOnly(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	if err := l.sendPreface(conn, p); err != nil {
		conn.Close()
		return nil, fmt.Errorf("send the preface to %s: %w", endpoint, err)
	}
	return conn, nil
}

func (l *Layer) dialOnly(ctx context.Context, endpoint string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	if translated(l.o.Members.Self()) {
		d.KeepAliveConfig = keepAlive
	}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp", endpoint)
	if err != nil {
		// Nobody on an overlay port means a node that is gone, not a guest's
		// port without a listener.
		return nil, fmt.Errorf("dial overlay port %s: %v: %w", endpoint, err, syscall.EHOSTUNREACH) //nolint:errorlint // err may wrap ECONNREFUSED
	}
	tcp := conn.(*net.TCPConn)
	concludeConnect(tcp)
	// The other side may have begun when this process dies: its guest is told so by a reset.
	tcp.SetLinger(0)
	return tcp, nil
}

func (l *Layer) sendPreface(conn *net.TCPConn, p preface) error {
	conn.SetWriteDeadline(time.Now().Add(dialTimeout))
	_, err := conn.Write(p.fresh().seal(*l.key.Load()))
	conn.SetWriteDeadline(time.Time{})
	return err
}

// concludeConnect calls connect again. The first call returned before the
// connection was made, and until another one the kernel takes the socket for a
// connecting one; a guest that gets it would be told so.
func concludeConnect(conn *net.TCPConn) {
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Connect(int(fd), &unix.SockaddrInet4{}) })
	}
}

func (l *Layer) reachOut(ctx context.Context, self, m cluster.Member, src, dst netip.AddrPort) (far, error) {
	conn, err := l.dialOnly(ctx, l.overlayPort(self, m).String())
	if err != nil {
		return far{}, err
	}
	return l.farAt(conn, self, src, dst, pathDirect), nil
}

// farAt is the far end at the peer's overlay port: the preface is its start.
func (l *Layer) farAt(conn *net.TCPConn, self cluster.Member, src, dst netip.AddrPort, path string) far {
	return far{conn, func() error {
		return l.sendPreface(conn, preface{kind: kindDirect, id: self.ID, src: src, dst: dst})
	}, path}
}

// reachBack asks the peer to dial this node.
func (l *Layer) reachBack(ctx context.Context, self, m cluster.Member, src, dst netip.AddrPort) (far, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	id, arrived := l.backs.expect()
	defer l.backs.forget(id, arrived)
	call := meetCall{Session: id[:], Port: dst.Port(), From: src, Endpoint: l.placeOf(m, self).String(), Version: version}
	failed := make(chan error, 1)
	if !l.spawn(func() { // it comes before it has said so
		if err := l.ask(ctx, m.ID, methodDialBack, call); err != nil {
			failed <- err
		}
	}) {
		return far{}, fmt.Errorf("this node is leaving: %w", syscall.EHOSTUNREACH)
	}
	select {
	case err := <-failed:
		return far{}, err
	case conn := <-arrived:
		conn.SetNoDelay(true)
		conn.SetKeepAliveConfig(keepAlive)
		return far{conn, func() error { return say(conn, start) }, pathPunch}, nil
	case <-ctx.Done():
		return far{}, fmt.Errorf("node %d did not dial back: %w", m.ID, syscall.ETIMEDOUT)
	}
}

// ask calls a method that makes the peer come to a meeting.
func (l *Layer) ask(ctx context.Context, to uint32, method string, call meetCall) error {
	var answer meetAnswer
	if err := l.call(ctx, to, method, call, &answer); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return answer.err(to)
}

// errUnable: the peer goes to no meeting now, wherever it is.
var errUnable = errors.New("it cannot meet anybody now")

// err is what an answer of node to means.
func (a meetAnswer) err(to uint32) error {
	switch a.Status {
	case statusOK:
		return nil
	case statusRefused:
		return fmt.Errorf("node %d: nobody listens: %w", to, syscall.ECONNREFUSED)
	case statusUnable:
		return fmt.Errorf("node %d: %w: %s: %w", to, errUnable, a.Reason, syscall.EHOSTUNREACH)
	}
	return fmt.Errorf("node %d cannot come: %s: %w", to, a.Reason, syscall.EHOSTUNREACH)
}

// await waits for the byte that says that the other side is there.
func await(ctx context.Context, conn *net.TCPConn, word byte) error {
	deadline := time.Now().Add(startWait)
	conn.SetReadDeadline(deadline)
	// Before the deadline the end of ctx ends the wait.
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	var b [1]byte
	_, err := io.ReadFull(conn, b[:])
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("the other side did not come: %w", err)
	}
	if err := understand(b[0], word); err != nil {
		return err
	}
	return conn.SetReadDeadline(time.Time{})
}

func say(conn *net.TCPConn, word byte) error {
	conn.SetWriteDeadline(time.Now().Add(firstBytes))
	_, err := conn.Write([]byte{word})
	conn.SetWriteDeadline(time.Time{})
	return err
}

// rendezvous pairs the dial-backs that arrive with those who wait for them.
type rendezvous struct {
	mu      sync.Mutex
	waiting map[session]chan *net.TCPConn
}

func (r *rendezvous) expect() (session, <-chan *net.TCPConn) {
	var id session
	rand.Read(id[:]) // never fails
	arrived := make(chan *net.TCPConn, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[id] = arrived
	return id, arrived
}

func (r *rendezvous) arrive(id session, conn *net.TCPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if arrived, ok := r.waiting[id]; ok {
		delete(r.waiting, id)
		arrived <- conn
		return
	}
	conn.Close()
}

// forget stops waiting; who came too late is sent away.
func (r *rendezvous) forget(id session, arrived <-chan *net.TCPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
	select {
	case conn := <-arrived:
		conn.Close()
	default:
	}
}
