// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

const (
	handshakeTimeout = 10 * time.Second // once its turn has come
	joinTimeout      = 10 * time.Second // from the handshake to join or observe
	maxHandshakes    = 256              // at once; more wait
)

// SeedOptions of NewSeed. Zero durations mean the defaults.
type SeedOptions struct {
	Network   string
	Secret    []byte
	CIDR      netip.Prefix
	StatePath string   // file; empty: nothing is kept
	Replica   *Replica // this seed is one of several; StatePath is not used then
	Lease     time.Duration
	Heartbeat time.Duration
	Silence   time.Duration
	Batch     time.Duration
	Logger    zerolog.Logger

	// Claimed tells, by the notes, which function node a slot is kept for: only
	// functions get it. "": none. nil: no slot is kept.
	Claimed func(notes map[string]json.RawMessage, slot string) string
}

// Seed admits members and spreads the member set.
type Seed struct {
	o        SeedOptions
	log      zerolog.Logger
	identity *identity
	failures *failureLimit
	shakes   *shakes
	pace     *rate.Limiter // of deltas
	saver    *saver
	replica  *replica // nil: the only seed
	broken   chan error

	mu        sync.Mutex
	leading   bool            // this seed admits; always so for the only one
	term      uint64          // in which it leads
	dirty     map[string]bool // slots that changed since the last proposal
	nextID    uint32
	slots     map[string]*slot
	members   map[uint32]*record
	links     map[*link]uint32           // joined (id) and observing (0) connections
	changed   map[uint32]bool            // members the next delta speaks of
	moved     map[string]bool            // slots whose reservation it speaks of
	unsaid    map[string]bool            // and those that are to be durable first
	lastWords map[uint32]json.RawMessage // what leavers said after the last delta
	flush     *time.Timer
	paths     map[uint32][]Path
	promoting map[uint32]bool // successors that are being made holders
	conns     map[net.Conn]bool

	notes      map[string]json.RawMessage
	dirtyNotes map[string]bool // as dirty is for slots
	turned     chan struct{}

	closed  bool
	serving sync.WaitGroup
}

// record is a member as the seed keeps it.
type record struct {
	member  Member
	status  Status // what it last said; member.State differs while it is lost
	launch  string // hash of the launch token
	link    *link  // nil while lost
	lease   *time.Timer
	awaited chan struct{} // not nil: an earlier leader's member that may come over; closed when that is settled
	encoded []byte        // cached JSON of member
}

func (r *record) arrived() {
	if r.awaited != nil {
		close(r.awaited)
		r.awaited = nil
	}
}

// NewSeed takes up the state at StatePath, if there is one, or joins the other seeds.
func NewSeed(o SeedOptions) (*Seed, error) {
	setDefault(&o.Lease, DefaultLease)
	setTiming(&o.Heartbeat, &o.Silence, o.Replica != nil)
	setDefault(&o.Batch, DefaultBatch)
	if !isLabel(o.Network) {
		return nil, fmt.Errorf("seed: network name %q is not valid", o.Network)
	}
	if !o.CIDR.IsValid() || !o.CIDR.Addr().Is4() || o.CIDR.Bits() > 30 {
		return nil, fmt.Errorf("seed of network %q: CIDR %s: want an IPv4 network of /30 or larger", o.Network, o.CIDR)
	}
	o.CIDR = o.CIDR.Masked()
	id, err := newIdentity(o.Network, o.Secret)
	if err != nil {
		return nil, fmt.Errorf("seed of network %q: %w", o.Network, err)
	}
	s := &Seed{
		o: o, log: o.Logger, identity: id,
		failures: newFailureLimit(), shakes: newShakes(), pace: newPace(o.Batch),
		broken: make(chan error, 1), conns: map[net.Conn]bool{}, turned: make(chan struct{}, 1),
	}
	s.forget()
	if o.Replica != nil {
		err = s.replicate(*o.Replica)
	} else {
		s.leading = true
		s.saver = newSaver(o.StatePath != "", s.writeState)
		err = s.restore()
	}
	if err != nil {
		return nil, fmt.Errorf("seed of network %q: %w", o.Network, err)
	}
	return s, nil
}

// forget begins with nobody and nothing. Callers hold mu, or are alone.
func (s *Seed) forget() {
	s.nextID = 1
	s.slots, s.members, s.dirty = map[string]*slot{}, map[uint32]*record{}, map[string]bool{}
	s.links, s.changed = map[*link]uint32{}, map[uint32]bool{}
	s.lastWords, s.paths = map[uint32]json.RawMessage{}, map[uint32][]Path{}
	s.promoting = map[uint32]bool{}
	s.moved, s.unsaid = map[string]bool{}, map[string]bool{}
	s.notes, s.dirtyNotes = map[string]json.RawMessage{}, map[string]bool{}
}

// Broken receives why this seed cannot go on, if that happens.
func (s *Seed) Broken() <-chan error { return s.broken }

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// setTiming of signs of life: where several seeds stand by, one that is gone is
// missed sooner.
func setTiming(heartbeat, silence *time.Duration, several bool) {
	if several {
		setDefault(heartbeat, shortHeartbeat)
		setDefault(silence, shortSilence)
	}
	setDefault(heartbeat, DefaultHeartbeat)
	setDefault(silence, DefaultSilence)
}

// ServeConn serves one connection, on which TLS has not begun yet, until it ends.
func (s *Seed) ServeConn(conn net.Conn) {
	conn = keepVigil(conn)
	defer conn.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.conns[conn] = true
	s.serving.Add(1)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		s.serving.Done()
	}()

	source := addrOf(conn.RemoteAddr())
	secured, err := s.handshake(conn, source)
	if err != nil {
		return
	}
	bound, err := bindingOf(secured.ConnectionState())
	if err != nil {
		s.log.Warn().Stringer("source", source).Err(err).Msg("refused a connection")
		return
	}
	if secured.ConnectionState().NegotiatedProtocol == alpnSeeds {
		if bound == nil { // only offered where there is a replica, and not for tokens
			s.replica.log.Serve(secured)
		}
		return
	}
	l := newLink(secured, s.o.Heartbeat, s.o.Silence, func(l *link, m message) { s.handle(l, source, m) })
	l.bound = bound
	// Whoever knows the secret but never joins is not kept.
	idle := time.AfterFunc(joinTimeout, func() {
		s.mu.Lock()
		_, joined := s.links[l]
		s.mu.Unlock()
		if !joined {
			l.close(errors.New("neither joined nor observed"))
		}
	})
	defer idle.Stop()
	reason := l.run()
	s.drop(l, reason)
}

func (s *Seed) handshake(conn net.Conn, source netip.Addr) (*tls.Conn, error) {
	if s.failures.blocked(source) {
		return nil, errors.New("too many failed handshakes")
	}
	if !s.shakes.begin(conn) {
		return nil, errors.New("too many handshakes at once")
	}
	defer s.shakes.end(conn)
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	protocols := []string{alpn}
	if s.replica != nil {
		protocols = append(protocols, alpnSeeds)
	}
	secured := tls.Server(conn, s.identity.config(x509.ExtKeyUsageClientAuth, protocols...))
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil, err // broke off, proved nothing wrong: a network that fails must not lock nodes out
		}
		s.failures.record(source)
		s.log.Warn().Stringer("source", source).Err(err).Msg("refused a connection: the other side does not prove the network secret")
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return secured, nil
}

// drop forgets a connection. Its member, if it did not leave, is lost.
func (s *Seed) drop(l *link, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.links[l]
	if !ok {
		return
	}
	delete(s.links, l)
	if rec := s.members[id]; rec != nil && rec.link == l {
		s.log.Warn().Uint32("node", id).Str("slot", rec.member.Slot).Err(reason).Msg("member lost")
		s.lose(rec, s.o.Lease)
	}
}

// lose marks rec lost until it comes back or the lease is over. Callers hold mu.
func (s *Seed) lose(rec *record, lease time.Duration) {
	id := rec.member.ID
	rec.link = nil
	rec.arrived()
	rec.member.State = StateLost
	s.touch(rec)
	var timer *time.Timer
	timer = time.AfterFunc(lease, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if rec.lease != timer || s.members[id] != rec || s.closed {
			return // it came back meanwhile
		}
		s.log.Warn().Uint32("node", id).Str("slot", rec.member.Slot).Dur("lease", lease).Msg("member gone: its lease is over")
		s.remove(rec, false)
		s.saver.later()
	})
	rec.lease = timer
}

// remove ends a membership for good. Callers hold mu.
func (s *Seed) remove(rec *record, spent bool) {
	id := rec.member.ID
	if rec.lease != nil {
		rec.lease.Stop()
	}
	rec.link, rec.lease = nil, nil
	rec.arrived()
	if s.changed[id] {
		s.lastWords[id] = rec.encode()
	}
	delete(s.members, id)
	if sl := s.slots[rec.member.Slot]; sl != nil && sl.has(id) {
		s.vacate(sl, id, spent)
		s.dirty[rec.member.Slot] = true
	}
	s.mark(id)
}

// Close ends all connections and keeps the state.
func (s *Seed) Close() error {
	var err error
	if s.replica != nil {
		err = s.replica.log.Close()
	}
	s.mu.Lock()
	s.closed = true
	if s.flush != nil {
		s.flush.Stop()
	}
	for _, rec := range s.members {
		if rec.lease != nil {
			rec.lease.Stop()
		}
		rec.arrived()
	}
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
	if s.replica != nil {
		s.saver.idle.Wait()
		return err
	}
	return s.saver.close()
}

func addrOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
