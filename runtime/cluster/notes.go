// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// Bounds of notes: they travel in one entry of the seeds' log.
const (
	maxNote  = 512 << 10 // bytes of one
	maxNotes = 1024
)

// ErrNotLeading says that another seed admits and decides now.
var ErrNotLeading = errNotLeading

// Leading tells whether this seed decides, and the term in which it does.
func (s *Seed) Leading() (term uint64, leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term, s.leading && !s.closed
}

// Turned receives after Leading has changed; changes coalesce.
func (s *Seed) Turned() <-chan struct{} { return s.turned }

func (s *Seed) turn() {
	select {
	case s.turned <- struct{}{}:
	default:
	}
}

// Notes are values that this or an earlier leading seed was asked to keep.
func (s *Seed) Notes() map[string]json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.notes)
}

// Note keeps values under their keys as the members' slots are kept: when it
// returns nil they are durable, and this seed still led in term. A nil value
// forgets the key. Values are JSON.
func (s *Seed) Note(term uint64, values map[string]json.RawMessage) error {
	s.mu.Lock()
	if !s.leading || s.term != term {
		s.mu.Unlock()
		return errNotLeading
	}
	for key, value := range values {
		_, known := s.notes[key]
		if len(value) > maxNote || value != nil && !known && len(s.notes) >= maxNotes {
			s.mu.Unlock()
			return fmt.Errorf("keep %q: %d bytes, one of %d: a seed keeps %d values of %d bytes at most", key, len(value), len(s.notes)+1, maxNotes, maxNote)
		}
	}
	before := make(map[string]json.RawMessage, len(values))
	for key := range values {
		before[key] = s.notes[key]
	}
	s.put(values)
	s.mu.Unlock()
	err := s.keep(term)
	if err == nil || errors.Is(err, errNotLeading) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leading && s.term == term { // the next write that succeeds shall not bring what was refused
		s.put(before)
	}
	return err
}

// put takes values in; nil forgets. Callers hold mu.
func (s *Seed) put(values map[string]json.RawMessage) {
	for key, value := range values {
		s.dirtyNotes[key] = true
		if value == nil {
			delete(s.notes, key)
		} else {
			s.notes[key] = value
		}
	}
}

// noted takes values from what was kept: null means forgotten.
func noted(notes, values map[string]json.RawMessage) {
	for key, value := range values {
		if len(value) == 0 || bytes.Equal(value, []byte("null")) {
			delete(notes, key)
		} else {
			notes[key] = value
		}
	}
}
