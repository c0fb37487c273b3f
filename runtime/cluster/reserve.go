// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// maxReserved bounds the slots that are reserved: every member knows them all.
const maxReserved = 1024

// WakeMethod is the call to the leading seed that starts the node of a slot which
// nobody holds. Who joined with a token may make it too: it only connects.
const WakeMethod = ControlPrefix + "wake"

// Reserved is a slot that keeps its name and address while nobody holds it: who
// connects there starts its node.
type Reserved struct {
	Slot    string     `json:"slot"`
	Name    string     `json:"name"`
	Service string     `json:"service"`
	Address netip.Addr `json:"address,omitzero"`
}

// Dormant are the reserved slots that nobody holds, as members would be listed.
func Dormant(members []Member, reserved []Reserved) []Member {
	held := make(map[string]bool, len(members))
	for i := range members {
		held[members[i].Slot] = held[members[i].Slot] || members[i].Holds()
	}
	var all []Member
	for _, r := range reserved {
		if !held[r.Slot] {
			all = append(all, Member{
				Name: r.Name, Service: r.Service, Slot: r.Slot, Kind: kindByNeed, State: StateDormant,
				OverlayAddress: r.Address, NAT: NATBehind,
			})
		}
	}
	return all
}

// kindByNeed is config.KindFunction: only those are started on use.
const kindByNeed = "function"

// reservation is what a reserved slot is called, as the seeds keep it.
type reservation struct {
	Name    string `json:"name"`
	Service string `json:"service"`
}

// Reserve makes all, whose addresses are not looked at, the slots that are
// reserved, and no others. When it returns nil that is durable, this seed still
// led in term, and the members are told.
func (s *Seed) Reserve(term uint64, all []Reserved) error {
	s.mu.Lock()
	err := s.reserve(term, all)
	s.mu.Unlock()
	if err == nil {
		err = s.keep(term)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.unsaid {
		s.markSlot(name)
	}
	clear(s.unsaid)
	return nil
}

// reserve notes it. Callers hold mu.
func (s *Seed) reserve(term uint64, all []Reserved) error {
	switch {
	case !s.leading || s.term != term:
		return errNotLeading
	case len(all) > maxReserved:
		return fmt.Errorf("%d slots are to be started on use: a network has %d at most", len(all), maxReserved)
	}
	wanted := make(map[string]reservation, len(all))
	for _, r := range all {
		wanted[r.Slot] = reservation{r.Name, r.Service}
	}
	for name, sl := range s.slots {
		if _, wants := wanted[name]; sl.Reserved == nil || wants {
			continue
		}
		sl.Reserved = nil
		s.dirty[name], s.unsaid[name] = true, true
		if sl.Launch == "" && len(sl.Ended) == 0 && s.empty(sl) { // nobody has ever had it
			delete(s.slots, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		r, sl := wanted[name], s.slots[name]
		if sl == nil {
			address, err := s.allocate()
			if err != nil {
				return err
			}
			sl = &slot{Address: address}
			s.slots[name] = sl
		}
		if sl.Reserved == nil || *sl.Reserved != r {
			sl.Reserved = &r // replaced, never changed: it may be on its way to the disk
			s.dirty[name], s.unsaid[name] = true, true
		}
	}
	return nil
}

// reserved describes slots; nil stands for one that is not. Callers hold mu.
func (s *Seed) reserved(names []string) map[string]*Reserved {
	all := make(map[string]*Reserved, len(names))
	for _, name := range names {
		all[name] = nil
		if sl := s.slots[name]; sl != nil && sl.Reserved != nil {
			all[name] = &Reserved{Slot: name, Name: sl.Reserved.Name, Service: sl.Reserved.Service, Address: sl.Address}
		}
	}
	return all
}

// reservedNames are all slots that are. Callers hold mu.
func (s *Seed) reservedNames() (names []string) {
	for name, sl := range s.slots {
		if sl.Reserved != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// LetGo takes the holder of a slot aside without a successor: nobody is sent to it
// any more, and it leaves as soon as no connection into its guest is open. When
// it returns nil that is durable, and the members are told.
func (s *Seed) LetGo(term uint64, slotName string, id uint32) error {
	s.mu.Lock()
	sl := s.slots[slotName]
	switch {
	case !s.leading || s.term != term:
		s.mu.Unlock()
		return errNotLeading
	case sl == nil || sl.ID != id || s.members[id] == nil || sl.Next != nil:
		s.mu.Unlock()
		return fmt.Errorf("slot %q: node %d does not hold it alone", slotName, id)
	}
	before := *sl
	sl.retire()
	sl.vacant()
	s.dirty[slotName] = true
	s.mu.Unlock()

	err := s.keep(term)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.slots[slotName]
	switch {
	case s.term != term || !s.leading:
		return errNotLeading
	case err != nil && now == sl && now.ID == 0 && s.members[id] != nil: // nobody was told
		now.tenant, now.Retired = before.tenant, before.Retired
		now.keepOnly(func(id uint32) bool { return s.members[id] != nil })
		s.dirty[slotName] = true
	case err == nil && now != nil:
		s.settle(now)
		s.log.Info().Uint32("node", id).Str("slot", slotName).Msg("holder let go")
	}
	return err
}
