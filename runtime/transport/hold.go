// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"golang.org/x/sys/unix"
)

// How long a release is tried (the guest has said that it is about to
// connect), and the pauses between attempts to reach the far end.
const (
	releaseWait = 5 * time.Second
	firstPause  = 200 * time.Millisecond
	longPause   = 5 * time.Second
	watchPause  = 2 * time.Second // between looks whether the guest still waits
)

// holdNet are the addresses where guests are held.
var holdNet = netip.MustParsePrefix("127.67.0.0/16")

// hole is a loopback address whose listener's queue, of length 0, is full:
// SYNs to it vanish, so a guest that connects there waits in SYN_SENT. Closing
// it refuses.
type hole struct {
	addr             netip.AddrPort
	listener, filler int
	once             sync.Once
}

// dig makes a hole at the n-th hold address.
func dig(n uint32) (*hole, error) {
	h := &hole{listener: -1, filler: -1}
	if err := h.dig([4]byte{127, 67, byte(n >> 8), byte(n)}); err != nil {
		h.close()
		return nil, fmt.Errorf("hold address: %w", err)
	}
	return h, nil
}

func (h *hole) dig(ip [4]byte) (err error) {
	const stream = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	if h.listener, err = unix.Socket(unix.AF_INET, stream, 0); err != nil {
		return err
	}
	// The socket that releases the guest shares the address.
	if err := unix.SetsockoptInt(h.listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	if err := unix.Bind(h.listener, &unix.SockaddrInet4{Addr: ip}); err != nil {
		return err
	}
	if err := unix.Listen(h.listener, 0); err != nil {
		return err
	}
	name, err := unix.Getsockname(h.listener)
	if err != nil {
		return err
	}
	at := name.(*unix.SockaddrInet4)
	h.addr = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	if h.filler, err = unix.Socket(unix.AF_INET, stream, 0); err != nil {
		return err
	}
	if err := unix.Connect(h.filler, at); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	// On loopback the connection is made before connect returns; make sure.
	poll := []unix.PollFd{{Fd: int32(h.filler), Events: unix.POLLOUT}}
	for range 3 {
		n, err := unix.Poll(poll, 100)
		if n == 1 && poll[0].Revents&(unix.POLLERR|unix.POLLHUP) == 0 {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return errors.New("the queue does not fill")
}

func (h *hole) close() {
	h.once.Do(func() {
		if h.filler >= 0 {
			// Resets: no TIME_WAIT on the address.
			unix.SetsockoptLinger(h.filler, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(h.filler)
		}
		if h.listener >= 0 {
			unix.Close(h.listener)
		}
	})
}

// awaits waits until the guest, which has said that it is about to, connects.
func (h *hole) awaits(ctx context.Context, guest netip.AddrPort, connecting func(local, peer netip.AddrPort) bool) error {
	for pause := 50 * time.Microsecond; !connecting(guest, h.addr); pause = min(2*pause, 10*time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("the guest's socket %s does not connect: %w", guest, context.Canceled) // not the path's failure
		}
	}
	return nil
}

// release connects to the guest's socket from the hole's address: both sides
// open at the same time. It waits until the guest has connected itself, for a
// socket that is gone may have left its port to a listener; descriptors that are
// short now may not be in a moment.
func (h *hole) release(ctx context.Context, guest netip.AddrPort, connecting func(local, peer netip.AddrPort) bool) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, releaseWait)
	defer cancel()
	err := errors.New("it does not connect")
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		if connecting(guest, h.addr) {
			var conn *net.TCPConn
			if conn, err = h.meet(ctx, guest); err == nil {
				return conn, nil
			}
			if !errors.Is(err, syscall.ECONNREFUSED) && !shortage(err) {
				break
			}
		}
		select {
		case <-time.After(pause):
			continue
		case <-ctx.Done():
		}
		break
	}
	return nil, fmt.Errorf("release the guest's socket %s: %w", guest, err)
}

// meet connects to the guest's socket.
func (h *hole) meet(ctx context.Context, guest netip.AddrPort) (*net.TCPConn, error) {
	fd, err := raw.Stream()
	if err != nil {
		return nil, err
	}
	raw.Set(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err = raw.Bind(fd, h.addr); err == nil {
		err = raw.Connect(fd, guest)
	}
	if err == nil || errors.Is(err, unix.EINPROGRESS) {
		err = opened(ctx, fd)
	}
	if err != nil {
		raw.Close(fd)
		return nil, err
	}
	conn, err := pollable(fd)
	if err == nil {
		err = conn.SetKeepAlive(false)
	}
	return conn, err
}

// opened waits for a connect on loopback, which is mostly over by now. A guest
// may have said all it had to and be gone as well: then it was made, and what
// it sent is there to be read.
func opened(ctx context.Context, fd int) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for ctx.Err() == nil {
		if n, err := unix.Poll(poll, 10); n == 0 || err != nil {
			continue
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if e := syscall.Errno(code); err == nil && code != 0 && e != unix.ECONNRESET && e != unix.EPIPE {
			err = e
		}
		return err
	}
	return ctx.Err()
}

// held is one connect of a guest that waits for its far end.
type held struct {
	*hole
	l       *Layer
	self, m cluster.Member
	r       Request
	began   time.Time
	slept   bool // the peer was not there when it was held
}

// hold plans a connection that waits until the far end is ready.
func (l *Layer) hold(self, m cluster.Member, r Request) (Plan, error) {
	began := time.Now()
	if !enter(l.holds) {
		return Plan{}, fmt.Errorf("%d connects are held already: %w", maxHolds, syscall.ENOBUFS)
	}
	if !l.descriptors.take(holdNeeds) {
		leave(l.holds)
		return Plan{}, fmt.Errorf("no descriptors are left for another relayed connection: raise the limit (ulimit -n): %w", syscall.ENOBUFS)
	}
	at, err := dig(l.places.Add(1))
	if err != nil {
		l.descriptors.give(holdNeeds)
		leave(l.holds)
		// Not the supervisor's own errno: EMFILE would be the guest's fault.
		return Plan{}, fmt.Errorf("%v: %w", err, syscall.ENOBUFS) //nolint:errorlint
	}
	h := &held{hole: at, l: l, self: self, m: m, r: r, began: began, slept: l.asleep(m)}
	// Before the guest can ask; its port is known when it is held.
	l.o.Sockets.Remember(r.Cookie, netip.AddrPortFrom(self.OverlayAddress, 0), r.To, family(r))
	end := sync.OnceFunc(func() {
		h.close()
		leave(l.holds)
		l.descriptors.give(holdNeeds - spliceNeeds)
	})
	over := sync.OnceFunc(func() {
		end()
		l.descriptors.give(spliceNeeds)
	})
	syns := uint16(0)
	if h.slept {
		syns = wakeSyns
	}
	return Plan{
		Class: ClassHold,
		Addr:  h.addr,
		Syns:  syns,
		Held: func(guest netip.AddrPort) {
			if !l.spawn(func() {
				defer over()
				h.run(netip.AddrPortFrom(guest.Addr().Unmap(), guest.Port()), end)
			}) {
				over()
			}
		},
		Ended: over,
	}, nil
}

// run brings the two ends together. end gives the hole up: without a release
// that refuses the guest.
func (h *held) run(guest netip.AddrPort, end func()) {
	l := h.l
	defer end()
	src := netip.AddrPortFrom(h.self.OverlayAddress, guest.Port())
	l.o.Sockets.Remember(h.r.Cookie, src, h.r.To, family(h.r))
	far, err := h.reach(guest, src)
	if err != nil {
		l.gaveUp(h.m, err)
		l.o.Logger.Debug().Err(err).Stringer("to", h.r.To).Msg("connect given up")
		return
	}
	near, err := h.release(l.ctx, guest, l.o.Sockets.Connecting)
	if err != nil {
		l.o.Logger.Debug().Err(err).Stringer("to", h.r.To).Msg("connect given up")
		reset(far.conn)
		return
	}
	end()
	l.paths.made(h.m.ID, far.path, time.Since(h.began))
	splice(l.ctx, near, far.conn)
}

// start tells the peer's guest of the connection, if this one still waits for it, and
// before it goes on: those that it makes one after another arrive like that.
func (h *held) start(ctx context.Context, f far, guest netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, releaseWait)
	defer cancel()
	if err := h.awaits(ctx, guest, h.l.o.Sockets.Connecting); err != nil {
		return err
	}
	return f.begin()
}

// reach tries to make and start the far end until it refuses, the guest gives up, or the
// time is over in which the kernel would have tried: as long as that the guest
// sees what it sees of a host that does not answer.
func (h *held) reach(guest, src netip.AddrPort) (far, error) {
	ctx, cancel := context.WithTimeout(h.l.ctx, h.l.o.HoldTimeout)
	defer cancel()
	go h.watch(ctx, guest, cancel)
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		var f far
		var err error
		h.slept = h.slept || h.l.asleep(h.m)
		if h.self, h.m, err = h.l.awake(ctx, h.m); err == nil && h.slept {
			err = h.l.confirm(ctx, h.m, h.r.To.Port()) // which nobody could before
		}
		if err == nil {
			f, err = h.l.reach(ctx, h.self, h.m, src, h.r.To)
		}
		if err == nil {
			if err = h.start(ctx, f, guest); err != nil {
				reset(f.conn)
			}
		}
		if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			return f, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return far{}, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		if !h.l.o.Sockets.Connecting(guest, h.addr) {
			return far{}, fmt.Errorf("the guest gave up: %w", err)
		}
	}
}

// watch ends the attempt when the guest, which has begun to wait, does so no more.
func (h *held) watch(ctx context.Context, guest netip.AddrPort, giveUp func()) {
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	for began, waits := time.Now(), false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if h.l.o.Sockets.Connecting(guest, h.addr) {
			waits = true
		} else if waits || time.Since(began) > releaseWait {
			giveUp()
			return
		}
	}
}
