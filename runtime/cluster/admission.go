// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// probeTimeout: a holder that answers within it keeps its slot. It is what a
// successor waits at most when its predecessor's host vanished without a word.
const probeTimeout = time.Second

// admit decides on a join:
//
//	slot unknown, or its last holder left or lost  -> a new id, the slot's address
//	by the same launch, which lost its connection  -> resumed, the newer connection counts
//	by the same launch, begun anew, that answers   -> refused: its event was repeated
//	held by the launch that this one succeeds      -> its successor: a new id, the slot's address
//	held by another launch that still answers      -> name_taken
//
// It returns the term in which that was decided, for keep.
func (s *Seed) admit(l *link, source netip.Addr, r joinRequest) (*record, uint64, error) {
	hash := launchHash(r.Hello.LaunchToken)
	silent, err := s.evict(r, hash)
	if err != nil {
		return nil, 0, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading {
		return nil, 0, errNotLeading
	}
	rival, taken := s.rival(r, hash)
	if rival != nil && (rival.link != nil && rival.link != silent || rival.awaited != nil) {
		return nil, 0, taken // somebody was faster
	}
	sl := s.slots[r.Hello.Slot]
	if err := l.bound.first(sl); err != nil {
		return nil, 0, err
	}
	if err := s.checkClaim(r, sl, hash); err != nil {
		return nil, 0, err
	}
	if err := s.checkLaunch(r, sl, hash); err != nil {
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
	s.dirty[r.Hello.Slot] = true
	if rival != nil && rival.launch != hash {
		s.remove(rival, false)
		if holder := s.members[sl.ID]; holder != nil && !s.follows(r, sl) { // its successor was there first
			return nil, 0, nameTaken(holder)
		}
	}
	return s.enrol(l, source, r, sl, s.settleIn(r, sl, hash)), s.term, nil
}

// settleIn gives a launch its place in the slot. Callers hold mu.
func (s *Seed) settleIn(r joinRequest, sl *slot, hash string) tenant {
	t := sl.of(hash)
	if t == nil || t.ID == 0 {
		t = &tenant{ID: s.nextID, Launch: hash, Taken: time.Now(), Once: once(r)}
		s.nextID++
		if s.follows(r, sl) {
			sl.Next = t
			return *t
		}
		sl.end(sl.tenant, sl.Spent)
		sl.tenant = *t
	}
	if sl.ID == t.ID {
		sl.Left, sl.Spent = time.Time{}, false
	}
	return *t
}

// enrol makes or renews the record of one of the slot's launches. Callers hold mu.
func (s *Seed) enrol(l *link, source netip.Addr, r joinRequest, sl *slot, t tenant) *record {
	rec := s.members[t.ID]
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
	rec = &record{link: l, launch: t.Launch, status: r.Status}
	rec.member = Member{
		ID: t.ID, Name: h.Name, Service: h.Service, Slot: h.Slot, Kind: h.Kind, Standby: h.Standby,
		State: r.Status.State, OverlayAddress: sl.Address, Site: h.Site, NAT: natOf(h, source),
		Version: h.Version, Since: since, Guest: r.Status.Guest, Listeners: r.Status.Listeners, NATReport: r.Status.NATReport, Relay: r.Status.Relay,
		Ends: r.Status.Ends, Leaving: r.Status.Leaving, Load: r.Status.Load, LaunchID: LaunchID(h.LaunchToken), Leader: s.replica != nil && h.Kind == kindSeed && h.Slot == s.replica.self,
	}
	if h.UnderlayAddress.IsValid() {
		rec.member.UnderlayAddress = netip.AddrPortFrom(h.UnderlayAddress.Unmap(), h.Port)
	}
	if h.Kind != kindByToken { // which nobody dials
		rec.member.PublicAddress = h.PublicAddress
	}
	sl.assume(&rec.member)
	s.members[t.ID] = rec
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
// from there: from its public address or, inside its site, from the underlay's. A
// seed joins itself over loopback; a laptop's clients come over
// loopback too, but are told not to be dialled.
func natOf(h Hello, source netip.Addr) string {
	switch {
	case h.Reach == "seeds", h.PublicAddress.IsUnspecified():
		return NATBehind
	case h.Kind == kindSeed && source.IsLoopback():
		return NATNone
	case source.IsValid() && (h.UnderlayAddress.Unmap() == source || h.PublicAddress == source):
		return NATNone
	}
	return NATBehind
}

// rival finds the member that must be gone, or silent, before r is admitted, and
// what r is told otherwise. Callers hold mu.
func (s *Seed) rival(r joinRequest, hash string) (*record, error) {
	sl, holder := s.holder(r.Hello.Slot)
	if sl == nil || sl.ended(hash) {
		return nil, nil
	}
	if own := sl.of(hash); own != nil {
		rec := s.members[own.ID]
		if rec == nil || r.Resume != 0 || rec.awaited != nil && !once(r) {
			return nil, nil // this is its newer connection
		}
		return rec, remoteErrorf(CodeRefused, "this launch of %q runs already, as node %d: a repeated event does not start it again", r.Hello.Slot, own.ID)
	}
	switch {
	case holder == nil:
		return nil, nil
	case !s.follows(r, sl):
		return holder, nameTaken(holder)
	case sl.Next == nil || s.members[sl.Next.ID] == nil:
		return nil, nil
	}
	next := s.members[sl.Next.ID]
	return next, nameTaken(next)
}

// once: a supervisor of this kind is not started again for the same launch, so
// that who joins anew is a repeated event.
func once(r joinRequest) bool { return r.Hello.Kind == "function" }

// evict makes way for r: it loses a rival that has fallen silent. Of a rival that
// is a process before this one, of the same launch, it returns the connection. One
// that the seed before this one admitted, and a function that has just lost its
// connection, get time to come.
func (s *Seed) evict(r joinRequest, hash string) (silent *link, err error) {
	for end := time.Now().Add(probeTimeout); ; {
		s.mu.Lock()
		rival, taken := s.rival(r, hash)
		if rival == nil {
			s.mu.Unlock()
			return nil, nil
		}
		old, awaited, same := rival.link, rival.awaited, rival.launch == hash
		s.mu.Unlock()
		switch {
		case awaited != nil:
			<-awaited // closed when it came, or its time is over
		case old != nil:
			return s.probe(old, same, taken)
		case same && once(r) && time.Now().Before(end):
			time.Sleep(leaderTick)
		default:
			return nil, nil
		}
	}
}

// probe asks a rival for a sign of life. Without one, another launch is lost.
func (s *Seed) probe(old *link, same bool, taken error) (silent *link, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if err := old.call(ctx, methodPing, nil, nil); err == nil {
		return nil, taken
	}
	if same {
		return old, nil
	}
	s.drop(old, errSilent)
	old.close(errSilent)
	return nil, nil
}

func nameTaken(holder *record) error {
	m := holder.member
	return remoteErrorf(CodeNameTaken, "name %q is taken by node %d (%s, since %s): choose another name, or stop that node first",
		m.Slot, m.ID, m.Kind, m.Since.Local().Format(time.DateTime))
}

// checkClaim keeps the slots of function nodes for their replicas. Who was there
// before may come back. Callers hold mu.
func (s *Seed) checkClaim(r joinRequest, sl *slot, hash string) error {
	if s.o.Claimed == nil || r.Hello.Kind == kindByNeed || sl != nil && sl.of(hash) != nil {
		return nil
	}
	if name := s.o.Claimed(s.notes, r.Hello.Slot); name != "" {
		return remoteErrorf(CodeNameTaken, "name %q is that of a replica of function node %q: choose another name", r.Hello.Slot, name)
	}
	return nil
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
	case sl != nil && sl.ended(hash):
		return remoteErrorf(CodeRefused, "this launch of %q has ended already: a repeated event does not start it again", r.Hello.Slot)
	case r.Resume != 0 && (sl == nil || sl.of(hash) == nil || sl.of(hash).ID != r.Resume):
		return remoteErrorf(CodeRefused, "node %d is gone for good: slot %q was given to another", r.Resume, r.Hello.Slot)
	}
	for name, other := range s.slots {
		if name != r.Hello.Slot && other.of(hash) != nil {
			return remoteErrorf(CodeRefused, "this launch token belongs to slot %q, not %q", name, r.Hello.Slot)
		}
	}
	return nil
}

// empty: none of the slot's launches is a member. Callers hold mu.
func (s *Seed) empty(sl *slot) bool {
	return !slices.ContainsFunc(sl.tenants(), func(t tenant) bool { return s.members[t.ID] != nil })
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
		if s.empty(sl) && sl.Reserved == nil && (oldest == "" || sl.Left.Before(s.slots[oldest].Left)) {
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
