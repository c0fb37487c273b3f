// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/consensus"
)

const (
	kindSeed = "seed" // config.KindSeed: this package knows no configuration

	// leaderWait is how long a seed lets a node wait for a leader to be found
	// before it says that there is none.
	leaderWait = 3 * time.Second
	leaderTick = 20 * time.Millisecond
)

// Replica makes a seed one of several that keep one state.
type Replica struct {
	Number    int      // of this seed, from 0: it is the one at Endpoints[Number]
	Endpoints []string // host:port of all seeds, in the order of their numbers
	Dir       string   // what must survive a restart

	// Known are the members as this seed's own session saw them last: what a
	// leader that is gone can tell no more. May be nil.
	Known    func() []Member
	Election time.Duration // 0: the default of runtime/consensus
}

// SeedName is the slot of the seed with this number.
func SeedName(number int) string { return fmt.Sprintf("seed-%d", number) }

// replica is a seed's part in the log of all seeds.
type replica struct {
	Replica
	self   string
	ledger ledger
	log    *consensus.Log
}

// replicate joins the other seeds. This one admits while it leads.
func (s *Seed) replicate(r Replica) error {
	if r.Number < 0 || r.Number >= len(r.Endpoints) {
		return fmt.Errorf("seed number %d of %d: want 0 to %d", r.Number, len(r.Endpoints), len(r.Endpoints)-1)
	}
	single := filepath.Join(filepath.Dir(r.Dir), "seed.json")
	if _, err := os.Stat(single); err == nil {
		return fmt.Errorf("%s is the state of a network with one seed: this one has %d; use another state directory", single, len(r.Endpoints))
	}
	s.replica = &replica{Replica: r, self: SeedName(r.Number)}
	s.replica.ledger.state = change{Network: s.o.Network, CIDR: s.o.CIDR, NextID: 1, Slots: map[string]*place{}, Notes: map[string]json.RawMessage{}}
	s.saver = newSaver(true, s.propose)
	names := make([]string, len(r.Endpoints))
	for i := range names {
		names[i] = SeedName(i)
	}
	s.mu.Lock() // nobody leads before all is set
	defer s.mu.Unlock()
	log, err := consensus.Open(consensus.Options{
		Dir: r.Dir, Self: s.replica.self, Voters: names, Dial: s.dialSeed, Machine: &s.replica.ledger,
		Lead: s.lead, Follow: s.follow, Broken: s.breakOff, Election: r.Election, Logger: s.log,
	})
	s.replica.log = log
	return err
}

// dialSeed makes a stream of the log to another seed.
func (s *Seed) dialSeed(ctx context.Context, name string) (net.Conn, error) {
	number := s.replica.number(name)
	if number == 0 {
		return nil, fmt.Errorf("%q is none of the network's %d seeds", name, len(s.replica.Endpoints))
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.replica.Endpoints[number-1])
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, s.identity.config(x509.ExtKeyUsageServerAuth, alpnSeeds))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

// number of the seed with this name, from 1; 0 if there is none.
func (r *replica) number(name string) int {
	for i := range r.Endpoints {
		if SeedName(i) == name {
			return i + 1
		}
	}
	return 0
}

func (s *Seed) breakOff(err error) {
	s.log.Error().Err(err).Msg("this seed cannot go on")
	s.broken <- err
}

// lead begins to admit, with what a majority of the seeds knows. Members of
// the leader before count as they were last seen until they had time to come.
func (s *Seed) lead(term uint64) {
	state := s.replica.ledger.copy()
	known := map[uint32]Member{}
	if s.replica.Known != nil {
		for _, m := range s.replica.Known() {
			known[m.ID] = m
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	s.nextID = state.NextID
	for name, p := range state.Slots {
		s.slots[name] = &p.slot
		for _, m := range p.members() {
			if now, ok := known[m.ID]; ok {
				m = now
			}
			m.Leader = false
			if rec := s.reinstate(m); rec != nil {
				s.expect(rec)
			}
		}
		s.complete(&p.slot)
	}
	s.notes = state.Notes
	s.leading, s.term = true, term
	s.turn()
	s.log.Info().Uint64("term", term).Int("members", len(s.members)).Msg("this seed leads")
}

// expect gives a member time to come over before it counts as lost. Callers hold mu.
func (s *Seed) expect(rec *record) {
	if rec.member.State == StateLost {
		s.lose(rec, s.o.Lease)
		return
	}
	rec.awaited = make(chan struct{})
	awaited := rec.awaited
	rec.lease = time.AfterFunc(s.o.Lease/2, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if rec.awaited == awaited && s.members[rec.member.ID] == rec && !s.closed {
			s.lose(rec, s.o.Lease)
		}
	})
}

// follow ends what only a leader does. The members find the next one.
func (s *Seed) follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading, s.term = false, 0
	s.turn()
	if s.flush != nil {
		s.flush.Stop()
		s.flush = nil
	}
	for _, rec := range s.members {
		if rec.lease != nil {
			rec.lease.Stop()
		}
		rec.arrived()
	}
	for l := range s.links {
		go l.close(errNotLeading)
	}
	s.forget()
	s.log.Warn().Msg("this seed does not lead any more")
}

// here returns nil when this seed admits, or where to go instead. A node that
// cannot reach the leader waits for the next.
func (s *Seed) here(lost int) error {
	if s.replica == nil {
		return nil
	}
	for deadline := time.Now().Add(leaderWait); ; time.Sleep(leaderTick) {
		s.mu.Lock()
		leading, closed := s.leading, s.closed
		s.mu.Unlock()
		if leading {
			return nil
		}
		leader := s.replica.number(s.replica.log.Leader())
		other := leader != 0 && leader != s.replica.Number+1
		if other && leader != lost || closed || time.Now().After(deadline) {
			return s.elsewhere(lost)
		}
	}
}

// elsewhere says where to join instead, or that nobody can.
func (s *Seed) elsewhere(lost int) error {
	r := s.replica
	leader := r.log.Leader()
	switch number := r.number(leader); {
	case number != 0 && number == lost:
		return remoteErrorf(CodeNotLeader, "%s follows %s, which this node cannot reach: check the network between them", r.self, leader)
	case number != 0 && leader != r.self:
		err := remoteErrorf(CodeNotLeader, "%s follows %s, which admits nodes", r.self, leader)
		err.Leader = number
		return err
	}
	return remoteErrorf(CodeUnavailable, "%s is in touch with no majority of the network's %d seeds, so no node can join or return; running nodes go on: start the other seeds, or see their logs", r.self, len(r.Endpoints))
}

// propose makes what changed since the last time durable.
func (s *Seed) propose() error {
	s.mu.Lock()
	if !s.leading {
		s.mu.Unlock()
		return errNotLeading
	}
	term := s.term
	c := change{Network: s.o.Network, CIDR: s.o.CIDR, NextID: s.nextID, Slots: map[string]*place{}}
	names := slices.Collect(maps.Keys(s.dirty))
	clear(s.dirty)
	for _, name := range names {
		c.Slots[name] = nil
		if sl := s.slots[name]; sl != nil {
			p := &place{slot: *sl}
			for _, t := range sl.tenants() {
				if rec := s.members[t.ID]; rec != nil {
					p.add(rec.member)
				}
			}
			c.Slots[name] = p
		}
	}
	for key := range s.dirtyNotes {
		if c.Notes == nil {
			c.Notes = map[string]json.RawMessage{}
		}
		c.Notes[key] = s.notes[key] // null when forgotten
	}
	clear(s.dirtyNotes)
	s.mu.Unlock()
	data, err := c.encode()
	if err == nil {
		err = s.replica.log.Propose(term, data)
	}
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leading && s.term == term {
		for key := range c.Notes {
			s.dirtyNotes[key] = true
		}
		for _, name := range names {
			s.dirty[name] = true // the next proposal says it again
		}
	}
	if errors.Is(err, consensus.ErrDeposed) {
		return errNotLeading
	}
	return err
}

// change is an entry of the seeds' log: the new values of what it names. The
// whole state has the same form.
type change struct {
	Version  int               `json:"version"`
	Protocol int               `json:"protocol"` // of the seed that decided it
	Network  string            `json:"network"`
	CIDR     netip.Prefix      `json:"cidr"`
	NextID   uint32            `json:"next_id"`
	Slots    map[string]*place `json:"slots"` // nil: given up

	Notes map[string]json.RawMessage `json:"notes,omitempty"` // null: forgotten
}

// place is a slot and the members that have it.
type place struct {
	slot
	Member *Member  `json:"member,omitempty"`
	Beside []Member `json:"beside,omitempty"` // its successor, and those that have retired
}

func (p *place) add(m Member) {
	if m.ID == p.ID {
		p.Member = &m
	} else {
		p.Beside = append(p.Beside, m)
	}
}

func (p *place) members() []Member {
	if p.Member == nil || p.Member.ID != p.ID {
		return p.Beside
	}
	return append([]Member{*p.Member}, p.Beside...)
}

func (c change) encode() ([]byte, error) {
	c.Version, c.Protocol = stateVersion, protocolVersion
	return json.Marshal(c)
}

// decodeChange understands what a seed of this version, or one apart, decided
// for the same network.
func (l *ledger) decodeChange(data []byte) (change, error) {
	var c change
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("an entry of the seeds' log is damaged: %w", err)
	}
	if c.Version != stateVersion || c.Protocol < 1 || c.Protocol > protocolVersion+1 {
		return c, fmt.Errorf("an entry of the seeds' log is of version %d, protocol %d; this seed understands version %d, protocol %d: use the same Boxer release on all seeds",
			c.Version, c.Protocol, stateVersion, protocolVersion)
	}
	if c.Network != l.state.Network || c.CIDR != l.state.CIDR {
		return c, fmt.Errorf("the seeds' log is of network %q, %s; this seed is of network %q, %s: use another state directory",
			c.Network, c.CIDR, l.state.Network, l.state.CIDR)
	}
	return c, nil
}

// ledger is what the log adds up to.
type ledger struct {
	mu    sync.Mutex
	state change
}

// Apply implements consensus.Machine.
func (l *ledger) Apply(data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, err := l.decodeChange(data)
	if err != nil {
		return err
	}
	l.state.NextID = max(l.state.NextID, c.NextID)
	for name, p := range c.Slots {
		if p == nil {
			delete(l.state.Slots, name)
		} else {
			l.state.Slots[name] = p
		}
	}
	noted(l.state.Notes, c.Notes)
	return nil
}

// Snapshot implements consensus.Machine.
func (l *ledger) Snapshot() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.encode()
}

// Restore implements consensus.Machine.
func (l *ledger) Restore(data []byte) error {
	l.mu.Lock()
	l.state.NextID, l.state.Slots, l.state.Notes = 1, map[string]*place{}, map[string]json.RawMessage{}
	l.mu.Unlock()
	return l.Apply(data)
}

// copy of the state, which is changed as a whole only.
func (l *ledger) copy() change {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.state
	c.Notes = maps.Clone(l.state.Notes)
	c.Slots = make(map[string]*place, len(l.state.Slots))
	for name, p := range l.state.Slots {
		q := *p
		c.Slots[name] = &q
	}
	return c
}
