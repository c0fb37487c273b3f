// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"sync"
)

// memberSet is a session's view of the network: the last full set and the
// deltas since, with an event for each difference.
type memberSet struct {
	mu sync.Mutex
	full
	staging map[*link]full // full sets arriving
	streams map[*stream]bool
	closed  bool
}

// full is all that a seed tells of.
type full struct {
	members  map[uint32]Member
	reserved map[string]Reserved // by slot
}

func newFull() full { return full{map[uint32]Member{}, map[string]Reserved{}} }

func (s *memberSet) init() {
	s.full = newFull()
	s.staging = map[*link]full{}
	s.streams = map[*stream]bool{}
}

func (s *memberSet) get(id uint32) (Member, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.members[id]
	return m, ok
}

func (s *memberSet) list() []Member {
	members, _ := s.all()
	return members
}

// all are the members and the reserved slots of one moment.
func (s *memberSet) all() ([]Member, []Reserved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	members := make([]Member, 0, len(s.members))
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		members = append(members, s.members[id])
	}
	reserved := make([]Reserved, 0, len(s.reserved))
	for _, slot := range slices.Sorted(maps.Keys(s.reserved)) {
		reserved = append(reserved, s.reserved[slot])
	}
	return members, reserved
}

// apply takes a delta in. end: a full set is complete; changed: something differs.
func (s *memberSet) apply(l *link, d delta) (end, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Begin {
		s.staging[l] = newFull()
	}
	into, staged := s.staging[l]
	for _, raw := range d.Members {
		var m Member
		if json.Unmarshal(raw, &m) != nil || m.ID == 0 {
			continue // of a newer version, or damaged: nothing to go by
		}
		if staged {
			into.members[m.ID] = m
		} else if s.put(m) {
			changed = true
		}
	}
	for _, id := range d.Left {
		if staged {
			delete(into.members, id)
		} else if s.drop(id) {
			changed = true
		}
	}
	if !staged {
		return false, s.book(d.Reserved) || changed
	}
	for slot, r := range d.Reserved {
		if r != nil && slot == r.Slot && r.Address.IsValid() {
			into.reserved[slot] = *r
		}
	}
	if !d.End {
		return false, changed
	}
	delete(s.staging, l)
	return true, s.replace(into)
}

// replace makes a full set the current one. Callers hold mu.
func (s *memberSet) replace(with full) (changed bool) {
	changed = !maps.Equal(s.reserved, with.reserved)
	s.reserved = with.reserved // before the members: no slot that sleeps is unknown
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		if _, stays := with.members[id]; !stays {
			changed = s.drop(id) || changed
		}
	}
	for _, id := range slices.Sorted(maps.Keys(with.members)) {
		changed = s.put(with.members[id]) || changed
	}
	return changed
}

// book takes in what slots are reserved now. Callers hold mu.
func (s *memberSet) book(slots map[string]*Reserved) (changed bool) {
	for slot, r := range slots {
		old, known := s.reserved[slot]
		switch {
		case r == nil && known:
			delete(s.reserved, slot)
			changed = true
		case r != nil && *r != old && slot == r.Slot && r.Address.IsValid():
			s.reserved[slot] = *r
			changed = true
		}
	}
	return changed
}

func (s *memberSet) put(m Member) bool {
	old, known := s.members[m.ID]
	if known && reflect.DeepEqual(old, m) {
		return false
	}
	s.members[m.ID] = m
	kind := EventJoin
	if known {
		kind = EventUpdate
	}
	s.emit(Event{Type: kind, Member: m})
	return true
}

func (s *memberSet) drop(id uint32) bool {
	m, known := s.members[id]
	if !known {
		return false
	}
	delete(s.members, id)
	m.State = StateLeft
	s.emit(Event{Type: EventLeave, Member: m})
	return true
}

func (s *memberSet) emit(e Event) {
	for st := range s.streams {
		st.add(e)
	}
}

// forget drops what a link that ended had begun to send.
func (s *memberSet) forget(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.staging, l)
}

func (s *memberSet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for st := range s.streams {
		st.end()
	}
	clear(s.streams)
}

func (s *memberSet) subscribe() (<-chan Event, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &stream{out: make(chan Event), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		st.add(Event{Type: EventJoin, Member: s.members[id]})
	}
	if s.closed {
		st.end()
	} else {
		s.streams[st] = true
	}
	go st.run()
	var once sync.Once
	return st.out, func() {
		once.Do(func() {
			s.mu.Lock()
			delete(s.streams, st)
			s.mu.Unlock()
			close(st.stop)
		})
	}
}

// stream queues events for one subscriber. A subscriber that falls behind gets
// only the latest of each member's updates, so the queue is bounded by the
// number of members that came and went.
type stream struct {
	mu    sync.Mutex
	queue []Event
	ended bool
	out   chan Event
	wake  chan struct{}
	stop  chan struct{}
}

func (st *stream) add(e Event) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if e.Type == EventUpdate {
		for i := len(st.queue) - 1; i >= 0; i-- {
			if queued := &st.queue[i]; queued.Member.ID == e.Member.ID && queued.Type != EventLeave {
				queued.Member = e.Member
				return
			}
		}
	}
	st.queue = append(st.queue, e)
	st.nudge()
}

func (st *stream) end() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ended = true
	st.nudge()
}

func (st *stream) nudge() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

func (st *stream) run() {
	defer close(st.out)
	for {
		st.mu.Lock()
		queue, ended := st.queue, st.ended
		st.queue = nil
		st.mu.Unlock()
		for _, e := range queue {
			select {
			case st.out <- e:
			case <-st.stop:
				return
			}
		}
		if len(queue) > 0 {
			continue
		}
		if ended {
			return
		}
		select {
		case <-st.wake:
		case <-st.stop:
			return
		}
	}
}
