// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/events"
	"github.com/boxer-overlay/boxer/runtime/ipc"
	"github.com/boxer-overlay/boxer/runtime/raw"
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
//	waiting --guest closed it, refused--> closed, and another one is raised,
//	          as long as a listener is left that the connection was queued for
//
// item is the connection it was made for, nil once it is in hand or dropped.
type signal struct {
	q       *queue
	item    *item
	token   netip.AddrPort
	fd      int  // -1 while there is none
	knocked bool // the connection is made and the byte sent
	refused bool
	stop    func()      // watching fd; nil while nobody does
	timer   *time.Timer // of a pause, or of a connection that is not made at once
	ended   bool
}

// signalNet are the addresses that signal connections come from (lib/wire.h).
var signalNet = netip.MustParsePrefix("127.66.0.0/16")

// raise makes the signal of an item; after a pause, only if who may have the
// item still listens. Call with l.mu held.
func (l *Layer) raise(q *queue, it *item, pause time.Duration) {
	if l.closed {
		return
	}
	sig := &signal{q: q, item: it, fd: -1}
	it.sig = sig
	if pause == 0 {
		l.signal(sig)
		return
	}
	sig.timer = time.AfterFunc(pause, func() {
		l.makeSure()
		l.mu.Lock()
		defer l.mu.Unlock()
		if !sig.ended {
			l.signal(sig)
		}
	})
}

// signal connects, and watches for the guest to close the connection. On
// loopback it is made when connect returns, unless the guest's queue is full.
// Call with l.mu held.
func (l *Layer) signal(sig *signal) {
	err := l.dial(sig)
	if err == nil {
		err = sig.knock()
	}
	if err == nil {
		which := uint32(unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET)
		if !sig.knocked {
			which |= unix.EPOLLOUT
			sig.timer = time.AfterFunc(signalTimeout, func() { l.hurry(sig) })
		}
		err = l.watch(sig, which)
	}
	if err != nil {
		l.fail(sig, err)
	}
}

func (l *Layer) watch(sig *signal, which uint32) (err error) {
	sig.stop, err = events.Watch(sig.fd, which, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if sig.item != nil {
			l.hear(sig)
		}
	})
	return err
}

// knock sends the one byte that wakes TCP_DEFER_ACCEPT listeners too, once the
// connection is made.
func (sig *signal) knock() error {
	_, err := raw.Send(sig.fd, []byte{0})
	sig.knocked = err == nil
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return err
}

// hear is called when something happened to a signal that waits: the
// connection is made, or the guest or the kernel has closed it. Call with l.mu
// held.
func (l *Layer) hear(sig *signal) {
	if !sig.knocked {
		if err := sig.knock(); err != nil {
			l.fail(sig, err)
		}
		return
	}
	var b [len(declined) + 1]byte
	n, err := raw.Receive(sig.fd, b[:], 0)
	switch {
	case errors.Is(err, unix.EAGAIN):
	case string(b[:max(n, 0)]) == declined:
		// A guest at its limit of descriptors keeps its connections waiting, as
		// it does natively.
		sig.item.lost--
		l.lose(sig, busyPause)
	default:
		l.doubt(sig)
	}
}

// hurry ends a signal whose connection was not made in time.
func (l *Layer) hurry(sig *signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sig.item != nil && !sig.knocked {
		l.fail(sig, syscall.ETIMEDOUT)
	}
}

// fail ends a signal that could not be made. Call with l.mu held.
func (l *Layer) fail(sig *signal, err error) {
	if !errors.Is(err, syscall.ECONNREFUSED) {
		l.o.Logger.Debug().Err(err).Uint16("port", sig.q.port).Msg("signal connection failed")
		l.lose(sig, busyPause)
		return
	}
	sig.refused = true
	l.doubt(sig)
}

// doubt ends a signal that was closed or refused: its listener may be gone.
// Call with l.mu held.
func (l *Layer) doubt(sig *signal) {
	sig.ignore()
	if l.closed {
		return
	}
	l.running.Go(func() {
		l.makeSure()
		l.mu.Lock()
		defer l.mu.Unlock()
		if sig.refused {
			l.forget(sig.q.port)
		}
		l.lose(sig, retryPause)
	})
}

// forget forgets the listeners of a port where nobody listens and the kernel
// cannot be asked. Call with l.mu held.
func (l *Layer) forget(port uint16) {
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
// it connects: the guest may ask at once. Call with l.mu held.
func (l *Layer) dial(sig *signal) error {
	fd, err := raw.Stream()
	if err != nil {
		return err
	}
	sig.fd = fd
	n := l.sources.Add(1)
	source := netip.AddrFrom4([4]byte{127, 66, byte(n >> 8), byte(n)})
	if err := raw.Bind(fd, netip.AddrPortFrom(source, 0)); err != nil {
		return err
	}
	sig.token = netip.AddrPortFrom(source, raw.LocalPort(fd))
	l.signals[sig.token] = sig
	err = raw.Connect(fd, l.target(sig.q.port))
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return err
}

// lose ends a signal that did not lead to an accept, and raises another one
// for its connection as long as there is somebody to accept it. Call with l.mu
// held.
func (l *Layer) lose(sig *signal, pause time.Duration) {
	it := sig.item
	if it == nil {
		return // in hand: the NS keeps its end until the monitor acknowledges
	}
	q := sig.q
	l.drop(sig)
	it.sig = nil
	it.lost++
	switch oldest := l.oldest(q.port); {
	case l.closed:
	case !it.awaited(oldest):
		l.reset(q, oldest)
	case it.lost > maxLost:
		l.o.Logger.Warn().Uint16("port", q.port).Stringer("peer", it.peer).
			Msg("a connection is reset: whoever accepts on this port does not know Boxer")
		q.remove(it)
		reset(it.fd)
		l.giveBack()
		l.admit(q)
	default:
		l.raise(q, it, pause)
	}
}

func (q *queue) remove(it *item) {
	for i, other := range q.items {
		if other == it {
			q.items = append(q.items[:i], q.items[i+1:]...)
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
	sig.ignore()
	if sig.fd >= 0 {
		raw.Close(sig.fd)
		sig.fd = -1
	}
}

// ignore ends all watching of a signal.
func (sig *signal) ignore() {
	if sig.stop != nil {
		sig.stop()
		sig.stop = nil
	}
	if sig.timer != nil {
		sig.timer.Stop()
	}
}

// Accept implements ipc.Handler: it lends the oldest connection of the queue
// that the signal belongs to, of those that are for this listener.
func (l *Layer) Accept(_ context.Context, r ipc.AcceptRequest) (ipc.Accepted, func(taken bool), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	token := unmapped(r.Signal)
	sig := l.signals[token]
	if sig == nil || sig.item == nil {
		return ipc.Accepted{}, nil, syscall.ENOENT // stale: of a supervisor before, or of a queue that was reset
	}
	delete(l.signals, token)
	sig.ignore() // the monitor's answer says more than the end of the signal
	q := sig.q
	family, born := uint16(unix.AF_INET), uint64(0)
	ls := l.listeners[r.Cookie]
	if ls != nil {
		born = ls.born
	}
	if r.V6 || (ls != nil && ls.v6) {
		family = unix.AF_INET6
	}
	it := q.take(sig, born)
	// Until the monitor has it, and gives it what its listener has (SO_LINGER too), it
	// ends with a reset if this process dies.
	a := ipc.Accepted{FD: it.fd, Addresses: ipc.Addresses{Local: it.local, Peer: it.peer, Family: family}}
	l.rememberConn(it.fd, a.Addresses)
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
		raw.Close(it.fd)
		l.giveBack()
		l.admit(q)
	case l.closed || !it.awaited(l.oldest(q.port)):
		reset(it.fd)
		l.giveBack()
		l.admit(q)
	default:
		if l.queues[q.port] == nil {
			l.queues[q.port] = q
		} else if other := l.queues[q.port]; other != q {
			q = other // the port was closed and opened again meanwhile
		}
		q.items = append([]*item{it}, q.items...)
		l.raise(q, it, retryPause)
	}
}
