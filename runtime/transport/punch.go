// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
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
	openFor     = 60 * time.Second        // how long a NAT is held open for a caller's port
	openAtMost  = 110 * time.Second       // the kernel gives up after 127 s
	maxOpen     = 320                     // ports, by this node,
	maxPrepared = 256                     // of which so many for connections to come
	maxOpenEach = 64                      // by this node for one caller
	maxPorts    = 32                      // in one call
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

// answerPunch opens this node's NAT for the caller's ports.
func (l *Layer) answerPunch(_ context.Context, from uint32, in json.RawMessage) (any, error) {
	var call punchCall
	if err := json.Unmarshal(in, &call); err != nil {
		return nil, fmt.Errorf("%s: %w", methodPunch, err)
	}
	if len(call.Ports) == 0 || len(call.Ports) > maxPorts {
		return nil, fmt.Errorf("%s: %d ports, want 1 to %d", methodPunch, len(call.Ports), maxPorts)
	}
	if !l.o.Sockets.Listening(call.Port) {
		return punchAnswer{meetAnswer: meetAnswer{Status: statusRefused}}, nil
	}
	m, ok := l.o.Members.Member(from)
	seen := outside(l.o.Members.Self(), m)
	if !ok || !seen.Is4() {
		return punchAnswer{meetAnswer: meetAnswer{Status: statusUnreachable, Reason: "the caller's address is not known here"}}, nil
	}
	var why error
	answer := punchAnswer{meetAnswer: meetAnswer{Status: statusOK}}
	most := maxOpen
	if len(call.Ports) > 1 { // nobody connects from several
		most = maxPrepared
	}
	for _, port := range call.Ports {
		if err := l.openings.open(l, from, netip.AddrPortFrom(seen, port), call.Keep, most); err != nil {
			answer.Shut, why = append(answer.Shut, port), err
		}
	}
	if len(answer.Shut) == len(call.Ports) {
		answer.meetAnswer = meetAnswer{Status: statusUnreachable, Reason: why.Error()}
	}
	return answer, nil
}

// openings are the sockets that hold this node's NAT open.
type openings struct {
	mu     sync.Mutex
	local  netip.AddrPort // the overlay port
	by     map[netip.AddrPort]*opening
	each   map[uint32]int
	closed bool
}

// opening is a socket that waits at the overlay port for one port of a caller.
type opening struct {
	caller uint32
	to     netip.AddrPort
	fd     int
	since  time.Time
	asked  time.Time // for the last time
	stop   func()
	expiry *time.Timer
}

// open dials to, or lets what waits there already wait on, if fewer than most wait.
func (o *openings) open(l *Layer, caller uint32, to netip.AddrPort, keep bool, most int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.by[to]; w != nil {
		if keep {
			w.asked = time.Now()
			w.expiry.Reset(min(openFor, openAtMost-time.Since(w.since)))
			return nil
		}
		if w.met() {
			return nil
		}
		o.drop(l, w)
		raw.Close(w.fd)
	} else if keep {
		return errors.New("it is not open any more")
	}
	if o.each[caller] >= maxOpenEach {
		o.makeRoom(l, caller)
	}
	switch {
	case o.closed || !o.local.IsValid():
		return errors.New("this node's overlay port is closed")
	case len(o.by) >= most || o.each[caller] >= maxOpenEach || !l.descriptors.take(1):
		return errors.New("too many ports are held open")
	}
	w := &opening{caller: caller, to: to, since: time.Now(), asked: time.Now()}
	var err error
	if w.fd, err = dialOut(o.local, to); err == nil {
		raw.Linger(w.fd, true) // as what the overlay port's listener accepts
		err = o.watch(l, w)
		if err != nil {
			raw.Close(w.fd)
		}
	}
	if err != nil {
		l.descriptors.give(1)
		return err
	}
	w.expiry = time.AfterFunc(openFor, func() { o.expire(l, w) })
	o.by[to] = w
	o.each[caller]++
	return nil
}

// makeRoom closes what a caller that wants more than it may has not asked for longest:
// it forgets its tickets when one went bad, and does not say so.
func (o *openings) makeRoom(l *Layer, caller uint32) {
	var oldest *opening
	for _, w := range o.by {
		if w.caller == caller && (oldest == nil || w.asked.Before(oldest.asked)) {
			oldest = w
		}
	}
	if oldest != nil && !oldest.met() {
		o.drop(l, oldest)
		raw.Close(oldest.fd)
	}
}

// tend closes what waits for callers that have left.
func (o *openings) tend(l *Layer) {
	present := map[uint32]bool{}
	for _, m := range l.o.Members.Members() {
		present[m.ID] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.by {
		if !present[w.caller] && !w.met() {
			o.drop(l, w)
			raw.Close(w.fd)
		}
	}
}

// met: somebody comes this very moment, and must not be hung up on.
func (w *opening) met() bool {
	info, err := unix.GetsockoptTCPInfo(w.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State != unix.BPF_TCP_SYN_SENT && info.State != unix.BPF_TCP_CLOSE
}

// dialOut sends a SYN from a port that another socket of this node has, too.
func dialOut(from, to netip.AddrPort) (int, error) {
	fd, err := raw.Stream()
	if err != nil {
		return -1, err
	}
	raw.Set(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	raw.Set(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) // as a listener has it
	if err = raw.Bind(fd, from); err != nil {
		err = fmt.Errorf("bind to %s: %w", from, err)
	} else if err = raw.Connect(fd, to); errors.Is(err, unix.EINPROGRESS) {
		return fd, nil
	}
	if err != nil {
		raw.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (o *openings) watch(l *Layer, w *opening) (err error) {
	w.stop, err = events.Watch(w.fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET, func() { o.speaks(l, w) })
	return err
}

// speaks is called when somebody came, or nobody ever will. What came has to
// prove itself as on every connection to the overlay port.
func (o *openings) speaks(l *Layer, w *opening) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by[w.to] != w {
		return
	}
	if err := raw.Connect(w.fd, w.to); err != nil && !errors.Is(err, unix.EISCONN) {
		if !errors.Is(err, unix.EALREADY) {
			o.drop(l, w)
			raw.Close(w.fd)
		}
		return
	}
	w.stop() // the descriptor may be another one's after greet
	raw.Block(w.fd)
	if l.greet(w.fd) {
		o.drop(l, w)
	} else if o.watch(l, w) != nil {
		o.drop(l, w)
		raw.Close(w.fd)
	}
}

func (o *openings) expire(l *Layer, w *opening) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by[w.to] == w {
		o.drop(l, w)
		raw.Close(w.fd)
	}
}

// drop forgets an opening, whose socket is the caller's then.
func (o *openings) drop(l *Layer, w *opening) {
	w.stop()
	w.expiry.Stop()
	delete(o.by, w.to)
	if o.each[w.caller]--; o.each[w.caller] == 0 {
		delete(o.each, w.caller)
	}
	l.descriptors.give(1)
}

// begin is told where the overlay port is.
func (o *openings) begin(local netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ip := local.Addr().Unmap()
	if !ip.Is4() {
		ip = netip.IPv4Unspecified()
	}
	o.local = netip.AddrPortFrom(ip, local.Port())
}

func (o *openings) close(l *Layer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, w := range o.by {
		o.drop(l, w)
		raw.Close(w.fd)
	}
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
