// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

const stateVersion = 1

// slot is a place in the network. It keeps its address from holder to holder.
type slot struct {
	Address netip.Addr `json:"address"`
	tenant             // the holder, or the last one
	Spent   bool       `json:"spent,omitempty"`
	Left    time.Time  `json:"left,omitzero"`
	Next    *tenant    `json:"next,omitempty"`    // the holder's successor
	Retired []tenant   `json:"retired,omitempty"` // that have one, and have not left yet
	Ended   []string   `json:"ended,omitempty"`   // launch ids

	Reserved *reservation `json:"reserved,omitempty"` // it keeps its address while nobody holds it
}

// seedState is what survives a restart of the seed.
type seedState struct {
	Version int              `json:"version"`
	Network string           `json:"network"`
	CIDR    netip.Prefix     `json:"cidr"`
	NextID  uint32           `json:"next_id"`
	Slots   map[string]*slot `json:"slots"`
	Members []Member         `json:"members"`

	Notes map[string]json.RawMessage `json:"notes,omitempty"`
}

// restore reads the state. Members it names count as lost until they
// reconnect, so that a seed's restart takes no name from anybody.
func (s *Seed) restore() error {
	if s.o.StatePath == "" {
		return nil
	}
	data, err := os.ReadFile(s.o.StatePath)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the seed's state: %w", err)
	}
	var st seedState
	if err := json.Unmarshal(data, &st); err != nil {
		return fmt.Errorf("the seed's state %s is damaged (%w): restore it, or remove it to begin a new network", s.o.StatePath, err)
	}
	if st.Version != stateVersion || st.Network != s.o.Network || st.CIDR != s.o.CIDR {
		return fmt.Errorf("the seed's state %s is of network %q, %s, version %d; this seed is of network %q, %s, version %d: use another state directory",
			s.o.StatePath, st.Network, st.CIDR, st.Version, s.o.Network, s.o.CIDR, stateVersion)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID = max(st.NextID, 1)
	noted(s.notes, st.Notes)
	for name, sl := range st.Slots {
		if sl != nil {
			s.slots[name] = sl
		}
	}
	for _, m := range st.Members {
		if rec := s.reinstate(m); rec != nil {
			s.lose(rec, 2*s.o.Lease)
		}
	}
	for _, sl := range s.slots {
		s.complete(sl)
	}
	return nil
}

// reinstate makes m a member again, if it is one of its slot's. Callers hold mu.
func (s *Seed) reinstate(m Member) *record {
	sl := s.slots[m.Slot]
	if sl == nil {
		return nil
	}
	for _, t := range sl.tenants() {
		if t.ID == m.ID {
			rec := &record{member: m, launch: t.Launch, status: Status{State: StateStarting}}
			s.members[m.ID] = rec
			return rec
		}
	}
	return nil
}

// complete is called when all members of a slot are reinstated. Callers hold mu.
func (s *Seed) complete(sl *slot) {
	sl.keepOnly(func(id uint32) bool { return s.members[id] != nil })
	s.settle(sl)
}

// snapshot encodes the state.
func (s *Seed) snapshot() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.dirty) // all of it is written
	st := seedState{Version: stateVersion, Network: s.o.Network, CIDR: s.o.CIDR, NextID: s.nextID, Slots: s.slots, Notes: s.notes}
	clear(s.dirtyNotes)
	for _, rec := range s.members {
		st.Members = append(st.Members, rec.member)
	}
	return json.Marshal(st)
}

// writeState keeps the only seed's state in its file.
func (s *Seed) writeState() error {
	data, err := s.snapshot()
	if err == nil {
		err = renameio.WriteFile(s.o.StatePath, data, 0o600)
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("keep the seed's state: %w: make room on that disk", err)
	case err != nil:
		return fmt.Errorf("keep the seed's state: %w", err)
	}
	return nil
}

// keep returns when all that was decided before the call is durable, and still
// in force: this seed led in term all the time.
func (s *Seed) keep(term uint64) error {
	if err := s.saver.now(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading || s.term != term {
		return errNotLeading
	}
	return nil
}

// saver makes the state durable for all who wait for it, once at a time.
type saver struct {
	on    bool
	write func() error

	mu      sync.Mutex
	waiting []chan error
	busy    bool
	idle    sync.WaitGroup
}

func newSaver(on bool, write func() error) *saver { return &saver{on: on, write: write} }

// now returns when a write that began after the call is done.
func (s *saver) now() error {
	if !s.on {
		return nil
	}
	done := make(chan error, 1)
	s.enqueue(done)
	return <-done
}

// later writes in the background; what it misses, the next write carries.
func (s *saver) later() {
	if s.on {
		s.enqueue(make(chan error, 1))
	}
}

func (s *saver) enqueue(done chan error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, done)
	if !s.busy {
		s.busy = true
		s.idle.Add(1)
		go s.work()
	}
}

func (s *saver) work() {
	defer s.idle.Done()
	for {
		s.mu.Lock()
		batch := s.waiting
		s.waiting = nil
		s.busy = len(batch) > 0
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		err := s.write()
		for _, done := range batch {
			done <- err
		}
	}
}

func (s *saver) close() error {
	err := s.now()
	s.idle.Wait()
	return err
}
