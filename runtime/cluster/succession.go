// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"time"
)

const (
	launchIDLength = 12          // of LaunchID, with which launchHash begins
	promoteRetry   = time.Second // when the state could not be kept
	maxEnded       = 8           // launches of a slot that are known to have ended
)

// tenant is one of the launches that have a slot.
type tenant struct {
	ID     uint32    `json:"id"`
	Launch string    `json:"launch"`         // hash of its launch token
	Taken  time.Time `json:"taken,omitzero"` // when it joined first
	Once   bool      `json:"once,omitempty"` // does not come back once another launch has the slot
}

// The launches of a slot: the holder, which its name and address stand for; a
// successor, which joined to follow it; and the retired ones before it, which
// let their connections end. What the slot points to is replaced, never changed:
// it may be on its way to the disk.

// of finds the tenant with this launch.
func (sl *slot) of(hash string) *tenant {
	switch {
	case sl.Launch == hash:
		return &sl.tenant
	case sl.Next != nil && sl.Next.Launch == hash:
		return sl.Next
	}
	for i := range sl.Retired {
		if sl.Retired[i].Launch == hash {
			return &sl.Retired[i]
		}
	}
	return nil
}

// tenants are all launches of the slot, the holder first; it may have left.
func (sl *slot) tenants() []tenant {
	all := []tenant{sl.tenant}
	if sl.Next != nil {
		all = append(all, *sl.Next)
	}
	return append(all, sl.Retired...)
}

// has tells whether node id is one of the slot's.
func (sl *slot) has(id uint32) bool {
	return slices.ContainsFunc(sl.tenants(), func(t tenant) bool { return t.ID == id })
}

// promote makes the successor the holder.
func (sl *slot) promote() {
	sl.tenant, sl.Next = *sl.Next, nil
	sl.Left, sl.Spent = time.Time{}, false
}

// vacant makes it a slot without a holder.
func (sl *slot) vacant() { sl.tenant, sl.Left, sl.Spent = tenant{}, time.Now(), false }

// retire takes the holder aside.
func (sl *slot) retire() { sl.Retired = append(slices.Clone(sl.Retired), sl.tenant) }

// forgetRetired drops node id from those that were taken aside.
func (sl *slot) forgetRetired(id uint32) {
	sl.Retired = slices.DeleteFunc(slices.Clone(sl.Retired), func(t tenant) bool { return t.ID == id })
}

// end notes that a launch is over, which it is when it has ended in order (spent)
// or is of the kind that is launched once: a repeated event does not start it again.
func (sl *slot) end(t tenant, spent bool) {
	if !spent && !t.Once {
		return
	}
	sl.Ended = append(slices.Clone(sl.Ended), t.Launch[:min(len(t.Launch), launchIDLength)])
	sl.Ended = sl.Ended[max(0, len(sl.Ended)-maxEnded):]
}

func (sl *slot) ended(hash string) bool {
	return sl.Spent && sl.Launch == hash || slices.Contains(sl.Ended, hash[:min(len(hash), launchIDLength)])
}

// keepOnly drops the tenants beside the holder that are no members: nobody is
// left to say that they have gone.
func (sl *slot) keepOnly(member func(id uint32) bool) {
	if sl.Next != nil && !member(sl.Next.ID) {
		sl.Next = nil
	}
	sl.Retired = slices.DeleteFunc(slices.Clone(sl.Retired), func(t tenant) bool { return !member(t.ID) })
	if sl.Next != nil && !member(sl.ID) {
		sl.promote()
	}
}

// assume gives m the part that it has in its slot.
func (sl *slot) assume(m *Member) (changed bool) {
	succeeds := uint32(0)
	if sl.Next != nil && sl.Next.ID == m.ID {
		succeeds = sl.ID
	}
	retired := slices.ContainsFunc(sl.Retired, func(t tenant) bool { return t.ID == m.ID })
	changed = m.Succeeds != succeeds || m.Retired != retired
	m.Succeeds, m.Retired = succeeds, retired
	return changed
}

// follows tells whether r succeeds the holder of sl: it asks to, or the holder
// stands in for it.
func (s *Seed) follows(r joinRequest, sl *slot) bool {
	holder := s.members[sl.ID]
	if holder != nil && holder.member.Standby && !r.Hello.Standby && holder.member.State != StateLost {
		return true
	}
	return holder != nil && holder.member.Kind != kindSeed &&
		r.Hello.Succeeds != "" && r.Hello.Succeeds == sl.Launch[:min(len(sl.Launch), launchIDLength)]
}

// settle tells everybody which part the slot's members have now. Callers hold mu.
func (s *Seed) settle(sl *slot) {
	for _, t := range sl.tenants() {
		if rec := s.members[t.ID]; rec != nil && sl.assume(&rec.member) {
			s.touch(rec)
		}
	}
}

// vacate takes node id, which is no member any more, out of its slot. A holder's
// successor takes its place at once. Callers hold mu.
func (s *Seed) vacate(sl *slot, id uint32, spent bool) {
	switch {
	case sl.ID == id && sl.Next != nil:
		sl.end(sl.tenant, spent)
		sl.promote()
	case sl.ID == id:
		sl.Left, sl.Spent = time.Now(), spent
		s.recall(sl)
	case sl.Next != nil && sl.Next.ID == id:
		sl.end(*sl.Next, spent)
		sl.Next = nil
	default:
		for _, t := range sl.Retired {
			if t.ID == id {
				sl.end(t, spent)
			}
		}
		sl.forgetRetired(id)
	}
	s.settle(sl)
}

// recall makes the launch before the one that ended the holder again, if it was
// not told yet that it has retired. Callers hold mu.
func (s *Seed) recall(sl *slot) {
	for _, t := range sl.Retired {
		if rec := s.members[t.ID]; rec != nil && !rec.member.Retired {
			sl.end(sl.tenant, sl.Spent)
			sl.tenant, sl.Left, sl.Spent = t, time.Time{}, false
			sl.forgetRetired(t.ID)
			return
		}
	}
}

// watchSuccessor makes a successor that runs the holder. Callers hold mu.
func (s *Seed) watchSuccessor(rec *record) {
	sl, id := s.slots[rec.member.Slot], rec.member.ID
	if rec.status.State == StateRunning && sl != nil && sl.Next != nil && sl.Next.ID == id && !s.promoting[id] {
		s.promoting[id] = true
		go s.succeed(rec.member.Slot, id, s.term)
	}
}

// succeed makes successor id the holder of its slot: durably first, then for
// everybody, both changes in one delta.
func (s *Seed) succeed(slotName string, id uint32, term uint64) {
	for {
		s.mu.Lock()
		sl := s.slots[slotName]
		if s.closed || s.term != term || s.members[id] == nil || sl == nil || sl.Next == nil || sl.Next.ID != id {
			if s.term == term {
				delete(s.promoting, id)
			}
			s.mu.Unlock()
			return
		}
		before := *sl
		sl.retire()
		sl.promote()
		s.dirty[slotName] = true
		s.mu.Unlock()

		err := s.keep(term)
		s.mu.Lock()
		if s.term != term || !s.leading {
			s.mu.Unlock()
			return
		}
		now := s.slots[slotName]
		if err == nil {
			if now != nil {
				s.settle(now)
			}
			delete(s.promoting, id)
			s.log.Info().Uint32("node", id).Uint32("succeeds", before.ID).Str("slot", slotName).Msg("successor holds the slot")
			s.mu.Unlock()
			return
		}
		if now == sl && now.ID == id && s.members[before.ID] != nil { // nobody was told
			*now = before
			now.keepOnly(func(id uint32) bool { return s.members[id] != nil })
			s.dirty[slotName] = true
		}
		s.mu.Unlock()
		s.log.Error().Err(err).Uint32("node", id).Str("slot", slotName).Msg("the successor waits: the state cannot be kept")
		time.Sleep(promoteRetry)
	}
}
