// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/ipc"
	"golang.org/x/sys/unix"
)

// How long a signal connection may take, and the pauses before another try.
const (
	signalTimeout = 10 * time.Second
	retryPause    = 10 * time.Millisecond
	busyPause     = 200 * time.Millisecond
)

// declined is what a monitor writes that has no descriptor left to ask with
// (lib/wire.h).
const declined = "BXDECLND"

// signal is a connection from a reserved loopback address to the guest's
// listener. Its source is its token. Its life:
//
//	waiting --ACCEPT--> in hand --ACK or NAK--> closed
//	waiting --guest closed it, refused--> closed, and another one is raised
//
// item is the connection it was made for, nil once it is in hand or dropped.
type signal struct {
	q     *queue
	item  *item
	token netip.AddrPort
	conn  net.Conn // nil while connecting
	ended bool
	stop  context.CancelFunc
}

// signalNet are the addresses that signal connections come from (lib/wire.h).
var signalNet = netip.MustParsePrefix("127.66.0.0/16")

// raise makes the signal of an item, after a pause. Call with l.mu held.
func (l *Layer) raise(q *queue, it *item, pause time.Duration) {
	if l.closed {
		return
	}
	ctx, stop := context.WithCancel(l.ctx)
	sig := &signal{q: q, item: it, stop: stop}
	it.sig = sig
	l.running.Go(func() {
		defer stop()
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		}
		l.signal(ctx, sig)
	})
}

// signal connects, sends the one byte that wakes TCP_DEFER_ACCEPT listeners
// too, and waits for the guest to close it.
func (l *Layer) signal(ctx context.Context, sig *signal) {
	conn, err := l.dial(ctx, sig)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			// Nobody listens any more, says the kernel; sweep believes only two
			// looks.
			l.sweep()
			l.sweep()
			l.refused(sig.q.port)
			l.lose(sig, retryPause)
		} else if ctx.Err() == nil {
			l.o.Logger.Debug().Err(err).Uint16("port", sig.q.port).Msg("signal connection failed")
			l.lose(sig, busyPause)
		}
		return
	}
	var b [len(declined) + 1]byte
	n := 0
	conn.SetWriteDeadline(time.Now().Add(signalTimeout))
	if _, err = conn.Write(b[:1]); err == nil {
		n, _ = conn.Read(b[:]) // ends when either side closes or resets
	}
	if string(b[:n]) == declined {
		l.forgive(sig)
		l.lose(sig, busyPause)
		return
	}
	l.lose(sig, retryPause)
}

// forgive takes back what lose is about to count: a guest at its limit of
// descriptors keeps its connections waiting, as it does natively.
func (l *Layer) forgive(sig *signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sig.item != nil {
		sig.item.lost--
	}
}

// refused forgets the listeners of a port where the kernel cannot be asked.
func (l *Layer) refused(port uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.blind {
		return
	}
	for cookie, ls := range l.listeners {
		if ls.local.Port() == port {
			delete(l.listeners, cookie)
		}
	}
	l.settle()
}

// dial binds the signal to a reserved address and makes its token known before
// it connects: the guest may ask at once.
func (l *Layer) dial(ctx context.Context, sig *signal) (net.Conn, error) {
	l.mu.Lock()
	target := l.target(sig.q.port)
	l.mu.Unlock()
	n := l.sources.Add(1)
	source := [4]byte{127, 66, byte(n >> 8), byte(n)}
	d := net.Dialer{Timeout: signalTimeout, KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = l.bind(sig, int(fd), source) }); e != nil {
			return e
		}
		return err
	}}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp4", target.String())
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if sig.ended {
		conn.Close()
		return nil, context.Canceled
	}
	sig.conn = conn
	return conn, nil
}

func (l *Layer) bind(sig *signal, fd int, source [4]byte) error {
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: source}); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	in, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return unix.EAFNOSUPPORT
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if sig.ended {
		return context.Canceled
	}
	sig.token = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
	l.signals[sig.token] = sig
	return nil
}

// lose ends a signal that did not lead to an accept, and raises another one
// for its connection as long as there is somebody to accept it.
func (l *Layer) lose(sig *signal, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	it := sig.item
	if it == nil {
		return // in hand: the NS keeps its end until the monitor acknowledges
	}
	q := sig.q
	l.drop(sig)
	it.sig = nil
	switch it.lost++; {
	case l.closed:
	case l.backlog(q.port) == 0:
		l.reset(q)
	case it.lost > maxLost:
		l.o.Logger.Warn().Uint16("port", q.port).Stringer("peer", it.peer).
			Msg("a connection is reset: whoever accepts on this port does not know Boxer")
		q.remove(it)
		resetFile(it.file)
	default:
		l.raise(q, it, pause)
	}
}

func (q *queue) remove(it *item) {
	for i, other := range q.items {
		if other == it {
			q.items = append(q.items[:i], q.items[i+1:]...)
			q.free()
			return
		}
	}
}

// drop closes a signal. Call with l.mu held.
func (l *Layer) drop(sig *signal) {
	if sig == nil || sig.ended {
		return
	}
	sig.ended, sig.item = true, nil
	if l.signals[sig.token] == sig {
		delete(l.signals, sig.token)
	}
	sig.stop()
	if sig.conn != nil {
		sig.conn.Close()
	}
}

// Accept implements ipc.Handler: it lends the oldest connection of the queue
// that the signal belongs to.
func (l *Layer) Accept(_ context.Context, r ipc.AcceptRequest) (ipc.Accepted, func(taken bool), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	token := unmapped(r.Signal)
	sig := l.signals[token]
	if sig == nil || sig.item == nil {
		return ipc.Accepted{}, nil, syscall.ENOENT // stale: of a supervisor before, or of a queue that was reset
	}
	delete(l.signals, token)
	q := sig.q
	it := q.take(sig)
	family := uint16(unix.AF_INET)
	if ls := l.listeners[r.Cookie]; r.V6 || (ls != nil && ls.v6) {
		family = unix.AF_INET6
	}
	abortive(it.file, false)
	a := ipc.Accepted{File: it.file, Addresses: ipc.Addresses{Local: it.local, Peer: it.peer, Family: family}}
	l.rememberFile(it.file, a.Addresses)
	return a, func(taken bool) { l.handed(sig, it, taken) }, nil
}

// handed ends a hand-over. After it the supervisor has no duplicate, which
// would swallow the FIN of the guest's close.
func (l *Layer) handed(sig *signal, it *item, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := sig.q
	q.inHand--
	l.drop(sig)
	switch {
	case taken:
		it.file.Close()
		q.free()
	case l.closed || l.backlog(q.port) == 0:
		resetFile(it.file)
		q.free()
	default:
		if l.queues[q.port] == nil {
			l.queues[q.port] = q
		} else if other := l.queues[q.port]; other != q {
			q = other // the port was closed and opened again meanwhile
		}
		abortive(it.file, true)
		q.items = append([]*item{it}, q.items...)
		l.raise(q, it, retryPause)
	}
}
