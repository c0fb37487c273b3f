// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/events"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"golang.org/x/sys/unix"
)

// Bounds of what waits at this node's open NAT.
const (
	openFor     = 60 * time.Second  // how long a NAT is held open for a caller's port
	openAtMost  = 110 * time.Second // the kernel gives up after 127 s
	maxOpen     = 320               // ports, by this node,
	maxPrepared = 256               // of which so many for connections to come
	maxOpenEach = 64                // by this node for one caller
	maxPorts    = 32                // in one call
)

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
