// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// touch announces a changed member. Callers hold mu.
func (s *Seed) touch(rec *record) {
	rec.encoded = nil
	s.mark(rec.member.ID)
}

// mark puts a member, changed or gone, into the next delta. Callers hold mu.
func (s *Seed) mark(id uint32) {
	s.changed[id] = true
	s.soon()
}

// markSlot does that with a slot's reservation. Callers hold mu.
func (s *Seed) markSlot(name string) {
	s.moved[name] = true
	s.soon()
}

func (s *Seed) soon() {
	if s.flush == nil && !s.closed {
		s.flush = time.AfterFunc(max(s.o.Batch, s.pace.Reserve().Delay()), s.spread)
	}
}

// newPace lets a few deltas out as soon as they are gathered, and then one every so
// many batches: each of them is work for every member, and in a burst, when most of
// them change, what they need the time for is to start.
func newPace(batch time.Duration) *rate.Limiter {
	const atOnce, batches = 3, 5
	return rate.NewLimiter(rate.Every(batches*batch), atOnce)
}

// spread sends what changed to everybody: encoded once, and at most once per
// batch however many nodes join, so that a burst of N costs each member O(N).
func (s *Seed) spread() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush = nil
	if s.closed {
		return
	}
	ids := slices.Sorted(maps.Keys(s.changed))
	clear(s.changed)
	slots := slices.Sorted(maps.Keys(s.moved))
	clear(s.moved)
	frames := map[bool][][]byte{}
	for l := range s.links {
		if frames[l.holders] == nil {
			frames[l.holders] = s.encodeDeltas(ids, slots, false, l.holders)
		}
		for _, frame := range frames[l.holders] {
			_ = l.send(frame) // a dead link is dropped by its reader
		}
	}
	clear(s.lastWords)
}

// encodeDeltas describes the members with these ids, and these slots, as they are
// now. Who is to know of holders only is told that the others have left. Callers
// hold mu.
func (s *Seed) encodeDeltas(ids []uint32, slots []string, full, holders bool) [][]byte {
	var frames [][]byte
	for first := true; first || len(ids)+len(slots) > 0; first = false {
		n, size, k := 0, 0, min(len(slots), deltaChunk)
		d := delta{Reserved: s.reserved(slots[:k])}
		slots = slots[k:]
		for ; n < min(len(ids), deltaChunk) && size < deltaBytes; n++ {
			id := ids[n]
			said := s.lastWords[id]
			rec := s.members[id]
			if stays := rec != nil && (!holders || rec.member.Holds()); stays {
				said = rec.encode()
			} else {
				d.Left = append(d.Left, id)
			}
			if said != nil {
				d.Members = append(d.Members, said)
			}
			size += len(said)
		}
		ids = ids[n:]
		d.Begin, d.End = full && first, full && len(ids)+len(slots) == 0
		if frame, ok := s.encodeDelta(d); ok {
			frames = append(frames, frame)
		}
	}
	return frames
}

func (s *Seed) encodeDelta(d delta) ([]byte, bool) {
	body, err := json.Marshal(d)
	if err == nil {
		var frame []byte
		if frame, err = encodeFrame(message{Method: methodDelta, Body: body}); err == nil {
			return frame, true
		}
	}
	s.log.Error().Err(err).Msg("membership change not sent")
	return nil, false
}

func (r *record) encode() json.RawMessage {
	if r.encoded == nil {
		r.encoded, _ = json.Marshal(r.member) // plain data: cannot fail
	}
	return r.encoded
}

// welcome answers a join or observation and sends the full set. Doing both
// under the lock puts them before every later delta.
func (s *Seed) welcome(l *link, request uint64, rec *record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading || rec != nil && s.members[rec.member.ID] != rec {
		return errNotLeading // any more
	}
	var self Member
	if rec != nil {
		self = rec.member
	}
	s.links[l] = self.ID
	reply := joinReply{Protocol: protocolVersion, Self: self, CIDR: s.o.CIDR}
	if l.bound != nil {
		reply.PrefaceKey = PrefaceKey(s.o.Secret)
	}
	l.respond(request, reply, nil)
	for _, frame := range s.encodeDeltas(slices.Sorted(maps.Keys(s.members)), s.reservedNames(), true, l.holders) {
		_ = l.send(frame)
	}
	return nil
}
