// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"golang.org/x/sys/unix"
)

// reserveFor is how long a port is kept for a guest.
const reserveFor = 500 * time.Millisecond

// confirmWait bounds the question whether anybody listens.
const confirmWait = 2 * time.Second

// Request is a guest's wish to connect.
type Request struct {
	Cookie   uint64         // SO_COOKIE of the guest's socket
	To       netip.AddrPort // overlay
	V6       bool           // the guest's socket is AF_INET6
	Fallback bool           // a direct preface could not be queued
	Bound    bool           // the guest's socket has an address or a port: no other can be chosen
}

// Plan answers it. If they are set (both are, or none), exactly one of Held and
// Ended must be called, once (as ipc.Plan says).
type Plan struct {
	Class   Class
	Addr    netip.AddrPort // where the guest's socket connects
	Preface []byte         // what goes first, for ClassDirect
	Local   uint16         // the local port to use, for ClassDirect; 0: any
	Syns    uint16         // how often the kernel sends the SYN again, for ClassHold; 0: as usual
	Held    func(local netip.AddrPort)
	Ended   func()
}

// Connect plans a guest's connection; one that is refused leads to where the
// kernel refuses it. Errors wrap a syscall.Errno: ETIMEDOUT, EHOSTUNREACH, or
// ENOBUFS at a limit.
func (l *Layer) Connect(ctx context.Context, r Request) (Plan, error) {
	p, err := l.plan(ctx, r)
	if err != nil {
		return Plan{}, fmt.Errorf("connect to %s: %w", r.To, err)
	}
	return p, nil
}

// Prompt plans what needs no waiting: a connection to a listener that is known,
// direct or past a NAT that is open already.
func (l *Layer) Prompt(r Request) (Plan, bool) {
	r.To = netip.AddrPortFrom(r.To.Addr().Unmap(), r.To.Port())
	self := l.o.Members.Self()
	m, ok := l.o.Members.Lookup(r.To.Addr())
	if !ok || !self.OverlayAddress.IsValid() || r.Fallback || m.ID == self.ID || m.State == cluster.StateLost || !listed(m, r.To.Port()) {
		return Plan{}, false
	}
	return l.atOnce(self, m, r)
}

// atOnce lets the guest's own socket dial the peer's overlay port, if it can.
func (l *Layer) atOnce(self, m cluster.Member, r Request) (Plan, bool) {
	switch Classify(self, m, l.o.Reach, l.o.Transports) {
	case ClassNative:
		return Plan{}, false
	case ClassDirect:
		return l.direct(self, m, r, pathDirect), true
	}
	switch l.punches(self, m) {
	case modeDial:
		return l.direct(self, m, r, pathPunch), true
	case modeActiveFirst, modePassiveFirst:
		if r.Bound {
			break
		}
		if k, ok := l.tickets.take(self, m, r.To.Port()); ok {
			return l.spend(self, m, r, k), true
		}
	}
	return Plan{}, false
}

func (l *Layer) plan(ctx context.Context, r Request) (Plan, error) {
	r.To = netip.AddrPortFrom(r.To.Addr().Unmap(), r.To.Port())
	self := l.o.Members.Self()
	m, ok := l.o.Members.Lookup(r.To.Addr())
	if !ok || !self.OverlayAddress.IsValid() {
		return Plan{}, fmt.Errorf("no such node: %w", syscall.EHOSTUNREACH)
	}
	if l.asleep(m) {
		return l.hold(self, m, r)
	}
	class := Classify(self, m, l.o.Reach, l.o.Transports)
	if class == ClassNative {
		// The kernel knows who listens.
		return Plan{Class: class, Addr: netip.AddrPortFrom(l.overlayPort(self, m).Addr(), r.To.Port())}, nil
	}
	if err := l.barred(self, m); err != nil {
		if l.mute.speak(m.OverlayAddress) {
			l.o.Logger.Warn().Err(err).Msg("connects are refused")
		}
		return Plan{}, err
	}
	if err := l.confirm(ctx, m, r.To.Port()); errors.Is(err, syscall.ECONNREFUSED) {
		return l.refuse(self, r, err)
	} else if err != nil {
		return Plan{}, err
	}
	// A lost member's supervisor may be back in a moment: only what is held can
	// be tried again.
	if !r.Fallback && m.State != cluster.StateLost {
		if p, ok := l.atOnce(self, m, r); ok {
			return p, nil
		}
	}
	if r.Fallback {
		l.paths.takeBack(m.ID, map[bool]string{true: pathDirect, false: pathPunch}[class == ClassDirect])
	}
	return l.hold(self, m, r)
}

func (l *Layer) direct(self, m cluster.Member, r Request, path string) Plan {
	local := uint16(0) // nobody knows the guest's port yet, the far end sees it
	if self.NAT == cluster.NATBehind && m.ID != self.ID && !reportOf(self).Preserves {
		local = l.reserve() // or another one
	}
	src := netip.AddrPortFrom(self.OverlayAddress, local)
	l.o.Sockets.Remember(r.Cookie, src, r.To, family(r))
	p := preface{kind: kindDirect, id: self.ID, src: src, dst: r.To}.fresh()
	l.paths.add(m.ID, path) // unless the guest falls back
	return Plan{Class: ClassDirect, Addr: l.placeOf(self, m), Preface: p.seal(*l.key.Load()), Local: local}
}

// reserve gives a port that nobody else gets until the guest had time to bind it
// (one that has it already may share it); 0: there is none, or no descriptor for it.
func (l *Layer) reserve() uint16 {
	if !l.descriptors.take(1) {
		return 0
	}
	fd, err := raw.Stream()
	if err != nil {
		l.descriptors.give(1)
		return 0
	}
	raw.Set(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	_ = raw.Bind(fd, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	time.AfterFunc(reserveFor, func() {
		raw.Close(fd)
		l.descriptors.give(1)
	})
	return raw.LocalPort(fd)
}

// overlayPort is where self dials m.
func (l *Layer) overlayPort(self, m cluster.Member) netip.AddrPort {
	if self.ID == m.ID && l.o.Own != nil {
		return l.o.Own()
	}
	return m.Place(Near(self, m))
}

// call asks the supervisor of another node, or this one.
func (l *Layer) call(ctx context.Context, to uint32, method string, in, out any) error {
	if to != l.o.Members.Self().ID {
		return l.o.Control.Call(ctx, to, method, in, out)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	answer, err := l.Handlers()[method](ctx, to, body)
	if err != nil {
		return err
	}
	if body, err = json.Marshal(answer); err != nil {
		return err
	}
	return json.Unmarshal(body, out)
}

// confirm makes sure that somebody listens: announcements are only a hint, and
// may lag behind a message that the guests exchanged, or behind what this node's
// guest did itself.
func (l *Layer) confirm(ctx context.Context, m cluster.Member, port uint16) error {
	if listed(m, port) && m.ID != l.o.Members.Self().ID {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	var answer listeningAnswer
	err := l.call(ctx, m.ID, methodListening, listeningCall{Port: port}, &answer)
	switch {
	case err == nil && answer.Listening:
		return nil
	case err == nil:
		return fmt.Errorf("node %d: nobody listens: %w", m.ID, syscall.ECONNREFUSED)
	case errors.Is(err, cluster.ErrDisconnected) || errors.Is(err, cluster.ErrClosed):
		return nil // without a seed the data path must do without the question
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("node %d does not answer: %w", m.ID, syscall.ETIMEDOUT)
	}
	return fmt.Errorf("node %d: %w: %w", m.ID, err, syscall.EHOSTUNREACH)
}

func listed(m cluster.Member, port uint16) bool {
	_, found := slices.BinarySearch(m.Listeners, port)
	return found
}

func family(r Request) uint16 {
	if r.V6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
