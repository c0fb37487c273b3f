// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/events"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// A probe asks a node that relays (a *witness*: a seed, or a VM that can be
// dialled) where a connection comes from: a preface of kind
// kindProbe, answered by an answer. Its flags:
const (
	probeKeep uint16 = 1 << 0 // the witness keeps the connection, and a NAT the mapping
	probeDial uint16 = 1 << 1 // the witness dials the source address first, at the preface's src port
)

// verdict is what came of that dial.
type verdict uint8

const (
	verdictNone    verdict = 0 // not asked for, or too often
	verdictOpen    verdict = 1
	verdictRefused verdict = 2
	verdictSilent  verdict = 3
)

// Bounds of probing.
const (
	probeTimeout  = 2 * time.Second
	probeDialTime = 800 * time.Millisecond // one SYN, and time to answer it
	maxProbeDials = 256                    // at once
	maxKept       = 8192                   // connections that hold mappings open,
	maxKeptOf     = 512                    // for one member
)

// answerSize is the length of an answer:
//
//	"BXA1" | version u8 | verdict u8 | second port u16 | ip u32 | port u16 | 0 u16 |
//	HMAC-SHA256 of the preface's nonce and all before it [32]
const answerSize = 48

// answer to a probe.
type answer struct {
	observed netip.AddrPort // the source of the connection
	second   uint16         // another port of the witness that answers probes, or 0
	verdict  verdict
}

var errAnswer = errors.New("not an answer to this probe")

func (a answer) seal(key []byte, nonce [16]byte) []byte {
	b := make([]byte, answerSize)
	copy(b, "BXA1")
	b[4], b[5] = 1, byte(a.verdict)
	binary.BigEndian.PutUint16(b[6:], a.second)
	putIP(b[8:], a.observed.Addr())
	binary.BigEndian.PutUint16(b[12:], a.observed.Port())
	copy(b[16:], answerCode(key, nonce, b[:16]))
	return b
}

// openAnswer reads the answer to the probe with this nonce.
func openAnswer(key []byte, nonce [16]byte, b []byte) (answer, error) {
	if len(b) != answerSize || string(b[:5]) != "BXA1\x01" || !hmac.Equal(b[16:], answerCode(key, nonce, b[:16])) {
		return answer{}, errAnswer
	}
	return answer{
		observed: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[8:])), binary.BigEndian.Uint16(b[12:])),
		second:   binary.BigEndian.Uint16(b[6:]),
		verdict:  verdict(b[5]),
	}, nil
}

func answerCode(key []byte, nonce [16]byte, b []byte) []byte {
	return code(key, append(nonce[:], b...))
}

// probes is the witness's side.
type probes struct {
	second atomic.Uint32 // the other port
	// dialing bounds what is dialled for others at once.
	dialing chan struct{}

	mu     sync.Mutex
	kept   map[int]*mark // by descriptor
	of     map[uint32]int
	dials  map[uint32]*rate.Limiter
	closed bool
}

// mark is a connection that holds a mapping open for a member.
type mark struct {
	member uint32
	stop   func()
}

// ServeProbes is Serve for a second port of a seed: who is told the same place
// at both has a NAT whose mapping does not depend on whom it writes to.
func (l *Layer) ServeProbes(ctx context.Context, ln *net.TCPListener) error {
	l.probes.second.Store(uint32(ln.Addr().(*net.TCPAddr).Port))
	unproven := events.Server{Greet: l.greet, Silent: l.o.unproven, Patience: firstBytes}
	if err := unproven.Serve(ctx, ln); err != nil {
		return fmt.Errorf("serve the probe port %s: %w", ln.Addr(), err)
	}
	return nil
}

// answerProbe takes conn over.
func (l *Layer) answerProbe(conn *net.TCPConn, p preface) {
	a := answer{observed: remote(conn), second: uint16(l.probes.second.Load())}
	if p.flags&probeDial != 0 {
		// Nowhere but where the asker proves to be: nobody can have others dialled.
		a.verdict = l.tryDial(p.id, netip.AddrPortFrom(a.observed.Addr(), p.src.Port()))
	}
	conn.SetWriteDeadline(time.Now().Add(firstBytes))
	_, err := conn.Write(a.seal(*l.key.Load(), p.nonce))
	if err != nil || p.flags&probeKeep == 0 {
		conn.Close()
		return
	}
	if fd, err := plain(conn, true); err != nil {
		conn.Close()
	} else if !l.descriptors.take(1) {
		raw.Close(fd)
	} else if !l.probes.keep(fd, p.id, func() { l.descriptors.give(1) }) {
		l.descriptors.give(1)
		raw.Close(fd)
	}
}

// tryDial tells what an uninvited SYN gets there.
func (l *Layer) tryDial(member uint32, to netip.AddrPort) verdict {
	if to.Port() == 0 || !l.probes.mayDial(member) || !enter(l.probes.dialing) {
		return verdictNone
	}
	defer leave(l.probes.dialing)
	d := net.Dialer{Timeout: probeDialTime, KeepAlive: -1}
	conn, err := d.DialContext(l.ctx, "tcp4", to.String())
	switch {
	case err == nil:
		reset(conn.(*net.TCPConn))
		return verdictOpen
	case errors.Is(err, syscall.ECONNREFUSED):
		return verdictRefused
	}
	return verdictSilent
}

func (p *probes) mayDial(member uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dials[member] == nil {
		if len(p.dials) >= 4096 {
			clear(p.dials)
		}
		p.dials[member] = rate.NewLimiter(1, 4)
	}
	return p.dials[member].Allow()
}

// keep holds a connection until the other side ends it; false: there are too many.
func (p *probes) keep(fd int, member uint32, ended func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.kept) >= maxKept || p.of[member] >= maxKeptOf {
		return false
	}
	m := &mark{member: member}
	var err error
	m.stop, err = events.Watch(fd, unix.EPOLLIN|unix.EPOLLRDHUP, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.kept[fd] == m {
			p.drop(fd, m)
			ended()
		}
	})
	if err != nil {
		return false
	}
	p.kept[fd] = m
	p.of[member]++
	return true
}

// drop ends a kept connection. Callers hold mu.
func (p *probes) drop(fd int, m *mark) {
	m.stop()
	raw.Close(fd)
	delete(p.kept, fd)
	if p.of[m.member]--; p.of[m.member] == 0 {
		delete(p.of, m.member)
	}
}

func (p *probes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for fd, m := range p.kept {
		p.drop(fd, m)
	}
}

// Mapping is a local port whose place outside is known, and kept there by a
// connection to a witness.
type Mapping struct {
	Local  uint16
	Mapped netip.AddrPort

	witness RelayNode // that keeps it
	second  uint16    // its other port
	conn    *net.TCPConn
	gone    chan struct{}
}

// Close gives the mapping up.
func (m *Mapping) Close() {
	reset(m.conn) // no TIME_WAIT in the way of the next one from this port
	<-m.gone
}

// Gone is closed when the connection has ended: the port may be mapped
// elsewhere now.
func (m *Mapping) Gone() <-chan struct{} { return m.gone }

// mapPort learns where a local port (0: any free one) is seen from outside. The
// socket that keeps it has SO_REUSEADDR: another one that has it too can be
// bound to the same port and connect elsewhere.
func (l *Layer) mapPort(ctx context.Context, local uint16) (*Mapping, error) {
	err := fmt.Errorf("no node to probe with: %w", syscall.EHOSTUNREACH)
	for _, w := range l.witnesses() {
		var conn *net.TCPConn
		var a answer
		from := local
		for try := 0; ; try++ {
			if local == 0 {
				from = l.turn.take()
			}
			conn, a, err = l.probe(ctx, w.Endpoint, from, preface{flags: probeKeep})
			taken := errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
			if !taken || local != 0 || try == portTries {
				break
			}
		}
		if err != nil {
			continue
		}
		m := &Mapping{
			Local:  conn.LocalAddr().(*net.TCPAddr).AddrPort().Port(),
			Mapped: a.observed, witness: w, second: a.second, conn: conn, gone: make(chan struct{}),
		}
		go func() {
			defer close(m.gone)
			_, _ = conn.Read(make([]byte, 1))
			reset(conn)
		}()
		return m, nil
	}
	return nil, fmt.Errorf("map port %d: %w", local, err)
}

// probe asks a witness from a local port; the connection stays open.
func (l *Layer) probe(ctx context.Context, endpoint string, local uint16, p preface) (*net.TCPConn, answer, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dialFrom(ctx, local, endpoint)
	if err != nil {
		return nil, answer{}, err
	}
	a, err := l.exchange(ctx, conn, p)
	if err != nil {
		reset(conn)
		return nil, answer{}, fmt.Errorf("probe at %s: %w", endpoint, err)
	}
	return conn, a, nil
}

// exchange sends the probe and reads the answer.
func (l *Layer) exchange(ctx context.Context, conn *net.TCPConn, p preface) (answer, error) {
	key, self := *l.key.Load(), l.o.Members.Self()
	p.kind, p.id = kindProbe, self.ID
	p.src = netip.AddrPortFrom(self.OverlayAddress, p.src.Port())
	p = p.fresh()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(p.seal(key)); err != nil {
		return answer{}, err
	}
	var b [answerSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return answer{}, err
	}
	a, err := openAnswer(key, p.nonce, b[:])
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	return a, err
}

// dialFrom connects from a local port that others share.
func dialFrom(ctx context.Context, local uint16, endpoint string) (*net.TCPConn, error) {
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4zero, Port: int(local)}, KeepAliveConfig: keepAlive,
		Control: func(_, _ string, c syscall.RawConn) error { return c.Control(sharePort) },
	}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp4", endpoint)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

func sharePort(fd uintptr) {
	raw.Set(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	raw.Set(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// Share lets connections be made from the port of a listener of this package.
// Said only now, it is no way for two of them to have the same port.
func Share(ln *net.TCPListener) error {
	c, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(sharePort)
}

// at is another port of a host:port.
func at(endpoint string, port uint16) string {
	host, _, _ := net.SplitHostPort(endpoint)
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
