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
	"github.com/boxer-overlay/boxer/runtime/events"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"golang.org/x/sys/unix"
)

// Two nodes behind NATs that let in only what answers connect by two SYNs that
// cross: the passive node dials from its overlay port to the place that the
// active one's port has outside, which opens its NAT, and its socket waits there
// in SYN_SENT for the active one's SYN. The socket must be the one that sent the
// SYN: a listener's answer has another sequence number, and a NAT that follows
// those drops it.
const (
	maxPunching = 8                       // at once, by this node
	portWait    = time.Second             // for a port to punch from
	askWait     = 5 * time.Second         // for the peer's answer; and then
	punchWait   = 1500 * time.Millisecond // for the connection
	headStart   = 300 * time.Millisecond  // before a relay is tried as well
	failedFor   = time.Minute             // before what failed is tried again
)

const methodPunch = "punch"

// punchCall asks the peer to open its NAT for some of the caller's ports. It
// carries no address: that is the caller's own, as the network knows it.
type punchCall struct {
	Ports []uint16 `json:"ports"`          // as seen from outside
	Port  uint16   `json:"port"`           // the guest's, that is to be connected to
	Keep  bool     `json:"keep,omitempty"` // what is open already stays so
}

// race punches, and tries a relay as well when that takes long or fails. Whichever
// is there first is used, and the other one dropped: no guest has seen it.
func (l *Layer) race(ctx context.Context, self, m cluster.Member, src, dst netip.AddrPort, how mode) (far, error) {
	if err := l.gate.take(ctx, m.ID); err != nil {
		return far{}, fmt.Errorf("punch to node %d: its turn has not come: %w", m.ID, err)
	}
	if l.failed.has(self, m) { // meanwhile
		l.gate.give(m.ID)
		return l.reachRelay(ctx, self, m, src, dst)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	punched, asked, ok := l.beginPunch(self, m, src, dst, how)
	if !ok {
		l.gate.give(m.ID)
		return far{}, errLeaving
	}
	if first, over := head(ctx, punched, asked); over {
		if first.settles() || ctx.Err() != nil {
			return first.far, first.err
		}
		f, err := l.reachRelay(ctx, self, m, src, dst)
		if err != nil {
			err = errors.Join(first.err, err)
		}
		return f, err
	}
	relayed, ok := l.begin(func() (far, error) { return l.reachRelay(ctx, self, m, src, dst) })
	if !ok {
		drop(punched)
		return far{}, errLeaving
	}
	var first attempt
	other := relayed
	select {
	case first = <-punched:
	case first = <-relayed:
		other = punched
	}
	if first.settles() {
		drop(other)
		return first.far, first.err
	}
	select {
	case second := <-other:
		if second.err != nil {
			second.err = errors.Join(first.err, second.err)
		}
		return second.far, second.err
	case <-ctx.Done():
		drop(other)
		return far{}, errors.Join(first.err, ctx.Err())
	}
}

// beginPunch punches in the background, to the end, for what that teaches, and gives
// the place at the gate back. asked is closed when the peer has answered.
func (l *Layer) beginPunch(self, m cluster.Member, src, dst netip.AddrPort, how mode) (punched <-chan attempt, asked chan struct{}, ok bool) {
	asked = make(chan struct{})
	punched, ok = l.begin(func() (far, error) {
		defer l.gate.give(m.ID)
		wait := punchWait
		if how.crosses() {
			wait += askWait
		}
		ctx, cancel := context.WithTimeout(l.ctx, wait)
		defer cancel()
		var since time.Time
		f, err := l.reachPunch(ctx, self, m, src, dst, how, func() {
			since = time.Now()
			close(asked)
		})
		if err != nil && !since.IsZero() && time.Since(since) >= punchWait && l.ctx.Err() == nil {
			l.failed.add(self, m)
			l.paths.fail(m.ID, pathPunch)
		}
		return f, err
	})
	return punched, asked, ok
}

// head waits until a punch is over or has had its head start. That counts from the
// peer's answer, without which there is no relay either: beside what is late because
// there is much to do it would be more to do. Who answers late may be so again.
func head(ctx context.Context, punched <-chan attempt, asked <-chan struct{}) (first attempt, over bool) {
	began := time.Now()
	var late <-chan time.Time
	for {
		select {
		case first := <-punched:
			return first, true
		case <-asked:
			asked, late = nil, time.After(max(headStart, min(time.Since(began), punchWait)))
		case <-late:
			return attempt{}, false
		case <-ctx.Done():
			drop(punched)
			return attempt{err: ctx.Err()}, true
		}
	}
}

// attempt is what came of one way to the far end.
type attempt struct {
	far
	err error
}

// settles: there is nothing to wait for any more.
func (a attempt) settles() bool { return a.err == nil || errors.Is(a.err, syscall.ECONNREFUSED) }

// errLeaving: nothing new is begun here.
var errLeaving = fmt.Errorf("this node is leaving: %w", syscall.EHOSTUNREACH)

// begin tries one way in the background; false: this node is leaving.
func (l *Layer) begin(reach func() (far, error)) (<-chan attempt, bool) {
	done := make(chan attempt, 1)
	return done, l.spawn(func() {
		f, err := reach()
		done <- attempt{f, err}
	})
}

// drop ends what comes of an attempt that is not needed.
func drop(other <-chan attempt) {
	go func() {
		if a := <-other; a.conn != nil {
			reset(a.conn)
		}
	}()
}

// punchAnswer names the ports that could not be opened for: a connection from
// there may have ended a moment ago.
type punchAnswer struct {
	meetAnswer
	Shut []uint16 `json:"shut,omitempty"`
}

// reachPunch makes the far end with nobody in between. It calls asked when the peer
// need not be waited for, or has answered.
func (l *Layer) reachPunch(ctx context.Context, self, m cluster.Member, src, dst netip.AddrPort, how mode, asked func()) (f far, err error) {
	var conn *net.TCPConn
	if !how.crosses() {
		asked()
	}
	switch how {
	case modeBack:
		return l.reachBack(ctx, self, m, src, dst)
	case modeDial:
		conn, err = l.dialOnly(ctx, l.placeOf(self, m).String())
	default:
		if conn, err = l.punch(ctx, self, m, dst.Port(), how, asked); err == nil {
			l.tickets.want(self, m, dst.Port())
		}
	}
	if err != nil {
		return far{}, fmt.Errorf("punch to node %d (%s): %w", m.ID, how, err)
	}
	return l.farAt(conn, self, src, dst, pathPunch), nil
}

// punch connects a port of this node, whose place outside is known, with the
// peer's overlay port. Nothing has been said on the connection yet.
func (l *Layer) punch(ctx context.Context, self, m cluster.Member, port uint16, how mode, asked func()) (*net.TCPConn, error) {
	own, err := l.portFor(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	defer l.ports.give(own)
	from, to := netip.AddrPortFrom(netip.IPv4Unspecified(), own.Local), l.placeOf(self, m)
	fd := -1
	if how == modeActiveFirst {
		// The SYN has left when the peer is asked: this node's NAT would reset the
		// peer's if it came before.
		if fd, err = dialOut(from, to); err != nil {
			return nil, err
		}
	}
	err = l.openOne(ctx, m.ID, punchCall{Ports: []uint16{own.Mapped.Port()}, Port: port})
	if err != nil && (fd < 0 || errors.Is(err, syscall.ECONNREFUSED) || !isConnected(fd, to)) {
		if fd >= 0 {
			raw.Close(fd)
		}
		return nil, err
	}
	asked()
	if how == modePassiveFirst {
		if fd, err = dialOut(from, to); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, punchWait)
	defer cancel()
	return connected(ctx, fd, to)
}

func (l *Layer) portFor(ctx context.Context, peer uint32) (*port, error) {
	ctx, cancel := context.WithTimeout(ctx, portWait)
	defer cancel()
	return l.ports.take(ctx, peer)
}

func (l *Layer) openOne(ctx context.Context, to uint32, call punchCall) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	_, err := l.open(ctx, to, call)
	return err
}

// isConnected: the peer's NAT has let the SYN in, so the peer has a connection
// from there and cannot dial it.
func isConnected(fd int, to netip.AddrPort) bool {
	err := raw.Connect(fd, to)
	return err == nil || errors.Is(err, unix.EISCONN)
}

// connected waits until a socket of dialOut is. It takes fd over.
func connected(ctx context.Context, fd int, to netip.AddrPort) (*net.TCPConn, error) {
	ready := make(chan struct{}, 1)
	stop, err := events.Watch(fd, unix.EPOLLOUT|unix.EPOLLET, func() {
		select {
		case ready <- struct{}{}:
		default:
		}
	})
	for err == nil {
		select {
		case <-ready:
		case <-ctx.Done():
			err = ctx.Err()
			continue
		}
		err = raw.Connect(fd, to) // or a guest would be told that it connects
		if err == nil || errors.Is(err, unix.EISCONN) {
			stop()
			conn, err := pollable(fd)
			if err == nil {
				conn.SetKeepAliveConfig(keepAlive)
			}
			return conn, err
		}
		if errors.Is(err, unix.EALREADY) {
			err = nil
		}
	}
	stop()
	raw.Close(fd)
	return nil, fmt.Errorf("connect to %s: %v: %w", to, err, syscall.EHOSTUNREACH) //nolint:errorlint // as in dial
}

// open asks the peer to open its NAT, and says for which ports it did not.
func (l *Layer) open(ctx context.Context, to uint32, call punchCall) (shut []uint16, err error) {
	var answer punchAnswer
	if err := l.call(ctx, to, methodPunch, call, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", methodPunch, err)
	}
	return answer.Shut, answer.err(to)
}

// failures are the pairs that ought to have been punched and were not. What
// either side learns of its NAT afterwards makes it worth another try.
type failures struct {
	mu sync.Mutex
	by map[uint32]failure
}

type failure struct {
	own, peer cluster.NATReport
	until     time.Time
}

func (f *failures) add(self, m cluster.Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.by) >= 4096 {
		clear(f.by)
	}
	f.by[m.ID] = failure{reportOf(self), reportOf(m), time.Now().Add(failedFor)}
}

func (f *failures) has(self, m cluster.Member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	is, known := f.by[m.ID]
	if known && (time.Now().After(is.until) || is.own != reportOf(self) || is.peer != reportOf(m)) {
		delete(f.by, m.ID)
		known = false
	}
	return known
}

func reportOf(m cluster.Member) cluster.NATReport {
	if m.NATReport == nil {
		return cluster.NATReport{}
	}
	return *m.NATReport
}
