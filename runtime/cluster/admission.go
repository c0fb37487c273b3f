// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net/netip"
	"time"
)

// probeTimeout: a holder that answers within it keeps its slot. It is what a
// successor waits at most when its predecessor's host vanished without a word.
const probeTimeout = time.Second

// admit decides on a join:
//
//	slot unknown, or its last holder left or lost  -> a new id, the slot's address
//	held by the same launch                        -> resumed, the newer connection counts
//	held by another launch that still answers      -> name_taken
//
// It returns the term in which that was decided, for keep.
func (s *Seed) admit(l *link, source netip.Addr, r joinRequest) (*record, uint64, error) {
	hash := launchHash(r.Hello.LaunchToken)
	if err := s.evict(r.Hello.Slot, hash); err != nil {
		return nil, 0, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading {
		return nil, 0, errNotLeading
	}
	sl, holder := s.holder(r.Hello.Slot)
	if holder != nil && holder.launch != hash && (holder.link != nil || holder.awaited != nil) {
		return nil, 0, nameTaken(holder) // somebody was faster
	}
	if err := s.checkLaunch(r, sl, hash); err != nil {
		return nil, 0, err
	}
	if err := l.bound.first(sl); err != nil {
		return nil, 0, err
	}
	if sl == nil {
		address, err := s.allocate()
		if err != nil {
			return nil, 0, err
		}
		sl = &slot{Address: address}
		s.slots[r.Hello.Slot] = sl
	}
	if holder != nil && holder.launch != hash {
		s.remove(holder, false)
		holder = nil
	}
	if sl.Launch != hash || sl.ID == 0 {
		sl.ID, sl.Launch, sl.Taken = s.nextID, hash, time.Now()
		s.nextID++
	}
	sl.Left, sl.Spent = time.Time{}, false
	s.dirty[r.Hello.Slot] = true
	return s.enrol(l, source, r, sl, holder), s.term, nil
}

// enrol makes or renews the record of the slot's holder. Callers hold mu.
func (s *Seed) enrol(l *link, source netip.Addr, r joinRequest, sl *slot, rec *record) *record {
	since := time.Now().UTC().Truncate(time.Millisecond)
	if rec != nil {
		since = rec.member.Since
		if old := rec.link; old != nil && old != l {
			delete(s.links, old)
			go dismiss(old)
		}
		if rec.lease != nil {
			rec.lease.Stop()
		}
		rec.arrived()
	}
	h := r.Hello
	rec = &record{link: l, launch: sl.Launch, status: r.Status}
	rec.member = Member{
		ID: sl.ID, Name: h.Name, Service: h.Service, Slot: h.Slot, Kind: h.Kind,
		State: r.Status.State, OverlayAddress: sl.Address, Site: h.Site, NAT: natOf(h, source),
		Version: h.Version, Since: since, Guest: r.Status.Guest, Listeners: r.Status.Listeners, NATReport: r.Status.NATReport, Relay: r.Status.Relay,
		LaunchID: LaunchID(h.LaunchToken), Leader: s.replica != nil && h.Kind == kindSeed && h.Slot == s.replica.self,
	}
	if h.UnderlayAddress.IsValid() {
		rec.member.UnderlayAddress = netip.AddrPortFrom(h.UnderlayAddress.Unmap(), h.Port)
	}
	s.members[sl.ID] = rec
	s.touch(rec)
	return rec
}

// dismiss ends a connection whose node has another one now. Told so, a second
// process of the same launch gives up instead of taking its turn for ever.
func dismiss(l *link) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	_ = l.notify(methodReplaced, nil)
	l.flush(ctx)
	l.close(errReplaced)
}

// natOf: a node can be dialled where it says only if the seed sees it come
// from there. A seed joins itself over loopback; a laptop's clients come over
// loopback too, but are told not to be dialled.
func natOf(h Hello, source netip.Addr) string {
	switch {
	case h.Reach == "seeds":
		return NATBehind
	case h.Kind == kindSeed && source.IsLoopback():
		return NATNone
	case h.UnderlayAddress.IsValid() && h.UnderlayAddress.Unmap() == source:
		return NATNone
	}
	return NATBehind
}

// evict loses a holder of another launch that has fallen silent. One that the
// seed before this one admitted gets its time to come over.
func (s *Seed) evict(slotName, hash string) error {
	s.mu.Lock()
	_, holder := s.holder(slotName)
	if holder != nil && holder.launch != hash && holder.awaited != nil {
		awaited := holder.awaited
		s.mu.Unlock()
		<-awaited // closed when it came, or its time is over
		s.mu.Lock()
		_, holder = s.holder(slotName)
	}
	var old *link
	var taken error
	if holder != nil && holder.launch != hash {
		old, taken = holder.link, nameTaken(holder)
	}
	s.mu.Unlock()
	if old == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if err := old.call(ctx, methodPing, nil, nil); err == nil {
		return taken
	}
	s.drop(old, errSilent)
	old.close(errSilent)
	return nil
}

func nameTaken(holder *record) error {
	m := holder.member
	return remoteErrorf(CodeNameTaken, "name %q is taken by node %d (%s, since %s): choose another name, or stop that node first",
		m.Slot, m.ID, m.Kind, m.Since.Local().Format(time.DateTime))
}

// holder finds a slot and the live member in it. Callers hold mu.
func (s *Seed) holder(name string) (*slot, *record) {
	sl := s.slots[name]
	if sl == nil {
		return nil, nil
	}
	return sl, s.members[sl.ID]
}

// checkLaunch holds a launch token to its one use and its one slot. Callers hold mu.
func (s *Seed) checkLaunch(r joinRequest, sl *slot, hash string) error {
	switch {
	case sl != nil && sl.Launch == hash && sl.Spent:
		return remoteErrorf(CodeRefused, "this launch of %q has ended already: a repeated event does not start it again", r.Hello.Slot)
	case r.Resume != 0 && (sl == nil || sl.Launch != hash || sl.ID != r.Resume):
		return remoteErrorf(CodeRefused, "node %d is gone for good: slot %q was given to another", r.Resume, r.Hello.Slot)
	}
	for name, other := range s.slots {
		if other.Launch == hash && name != r.Hello.Slot {
			return remoteErrorf(CodeRefused, "this launch token belongs to slot %q, not %q", name, r.Hello.Slot)
		}
	}
	return nil
}

// allocate finds the lowest free address, or takes that of the slot which has
// been empty the longest. Callers hold mu.
func (s *Seed) allocate() (netip.Addr, error) {
	used := make(map[netip.Addr]bool, len(s.slots))
	for _, sl := range s.slots {
		used[sl.Address] = true
	}
	for a := s.o.CIDR.Addr().Next(); s.o.CIDR.Contains(a.Next()); a = a.Next() {
		if !used[a] {
			return a, nil
		}
	}
	oldest := ""
	for name, sl := range s.slots {
		if s.members[sl.ID] == nil && (oldest == "" || sl.Left.Before(s.slots[oldest].Left)) {
			oldest = name
		}
	}
	if oldest == "" {
		return netip.Addr{}, remoteErrorf(CodeAddressSpaceFull, "all %d addresses of %s are in use: stop nodes, or make a network with a larger CIDR", len(used), s.o.CIDR)
	}
	address := s.slots[oldest].Address
	delete(s.slots, oldest)
	s.dirty[oldest] = true
	return address, nil
}
