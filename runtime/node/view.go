// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/table"
	"github.com/boxer-overlay/boxer/runtime/transport"
)

// filesPause is the time between two writes of the members' files.
const filesPause = 100 * time.Millisecond

// view is the member set as the transport asks for it.
type view struct {
	underlay netip.Addr // set before the first refresh

	mu      sync.RWMutex
	session *cluster.Session
	byAddr  map[netip.Addr]cluster.Member
	onUse   map[string]bool // slots that are started when somebody connects
	changed chan struct{}   // closed with the next change
}

func (v *view) join(s *cluster.Session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.session = s
}

func (v *view) current() *cluster.Session {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.session
}

// Self is the zero Member before the join.
func (v *view) Self() cluster.Member {
	if s := v.current(); s != nil {
		return s.Self()
	}
	return cluster.Member{}
}

// Members are all live members.
func (v *view) Members() []cluster.Member {
	if s := v.current(); s != nil {
		return s.Members()
	}
	return nil
}

// Member finds one by id.
func (v *view) Member(id uint32) (cluster.Member, bool) {
	if s := v.current(); s != nil {
		return s.Member(id)
	}
	return cluster.Member{}, false
}

// Lookup finds the member at an overlay address.
func (v *view) Lookup(overlay netip.Addr) (cluster.Member, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	m, ok := v.byAddr[overlay]
	return m, ok
}

// index takes in who names and addresses stand for now.
func (v *view) index(members []cluster.Member, reserved []cluster.Reserved) {
	byAddr := make(map[netip.Addr]cluster.Member, len(members))
	for _, m := range members {
		byAddr[m.OverlayAddress] = m
	}
	onUse := make(map[string]bool, len(reserved))
	for _, r := range reserved {
		onUse[r.Slot] = true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.byAddr, v.onUse = byAddr, onUse
	if v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
}

// asleep tells whether m's slot is started on use and does not run (yet). To
// itself a node is awake.
func (v *view) asleep(m cluster.Member) bool {
	if m.ID == v.Self().ID {
		return false
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	return sleeps(m, v.onUse)
}

func sleeps(m cluster.Member, onUse map[string]bool) bool {
	return onUse[m.Slot] && m.State != cluster.StateRunning
}

// awaits is who is at m's address now, whether that one sleeps, and what is closed
// when it may be another.
func (v *view) awaits(m cluster.Member) (now cluster.Member, changed <-chan struct{}, asleep bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	now, ok := v.byAddr[m.OverlayAddress]
	if !ok {
		return m, v.changed, false // not reserved any more
	}
	return now, v.changed, sleeps(now, v.onUse)
}

// follow keeps table, files and barrier in step with the network: the files after a
// while if much changes, as each time they are written whole.
func (n *node) follow(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Every(filesPause), 1)
	files := time.NewTimer(time.Hour)
	defer files.Stop()
	for late := false; ; {
		select {
		case <-files.C:
			late = false
			if err := n.writeFiles(); err != nil {
				n.log.Error().Err(err).Msg("membership change not written")
			}
		case <-ctx.Done():
			return nil
		case <-n.session.Done():
			if err := n.session.Err(); ctx.Err() == nil && !errors.Is(err, cluster.ErrClosed) {
				return err // given up by the network; not our own leave
			}
			return nil
		case <-n.session.Changed():
			changed, err := n.refresh()
			if err != nil {
				n.log.Error().Err(err).Msg("membership change not published")
			}
			if changed && !late && n.guided.Load() {
				late = true
				files.Reset(pace.Reserve().Delay())
			}
		}
	}
}

// holders are the members that names and addresses stand for: to the others, one
// of each slot; to a node itself, in its own slot, itself.
func holders(self cluster.Member, members []cluster.Member) []cluster.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m cluster.Member) bool { return aside(self, m) })
}

// aside tells whether the name and address of m stand for another member.
func aside(self, m cluster.Member) bool {
	return m.ID != self.ID && (!m.Holds() || m.OverlayAddress == self.OverlayAddress)
}

// writeFiles tells the guest, in files, who is in the network now.
func (n *node) writeFiles() error {
	n.writing.Lock()
	defer n.writing.Unlock()
	self := n.session.Self()
	members, reserved := n.membership()
	if n.written == nil {
		n.written = memberFiles{}
	}
	return n.written.update(n.dir, self, members, dormant(self, members, reserved))
}

// membership is the network as a guest may see it: what others have to do is of no
// use to it, and changes every second.
func (n *node) membership() ([]cluster.Member, []cluster.Reserved) {
	members, reserved := n.session.Network()
	for i := range members {
		members[i].Load = nil
	}
	return members, reserved
}

// refresh publishes the member set of now, if it is another one.
func (n *node) refresh() (changed bool, err error) {
	members, reserved := n.membership()
	if n.shown != nil && reflect.DeepEqual(members, n.shown) && slices.Equal(reserved, n.reserved) {
		return false, nil
	}
	self := n.session.Self()
	dormant := dormant(self, members, reserved)
	n.view.index(slices.Concat(holders(self, members), dormant), reserved)
	err = n.table.Publish(snapshot(n.cfg, self, n.view.underlay, n.session.CIDR(), members, dormant, n.view.asleep))
	if err != nil {
		return true, fmt.Errorf("publish the node table: %w", err)
	}
	n.checkBarrier(members)
	if self.Retired {
		n.retire()
	}
	n.shown, n.reserved = members, reserved
	return true, nil
}

// dormant are the slots that are started on use and have no holder, as far as the
// table has room. One that has retired sees itself in its own.
func dormant(self cluster.Member, members []cluster.Member, reserved []cluster.Reserved) []cluster.Member {
	all := slices.DeleteFunc(cluster.Dormant(members, reserved), func(m cluster.Member) bool { return m.OverlayAddress == self.OverlayAddress })
	return all[:min(len(all), max(0, table.MaxMembers-len(members)))]
}

func snapshot(cfg config.Node, self cluster.Member, underlay netip.Addr, cidr netip.Prefix, members, dormant []cluster.Member, asleep func(cluster.Member) bool) table.Snapshot {
	s := table.Snapshot{
		CIDR: cidr, ID: self.ID, Name: self.Slot, Network: cfg.Network,
		Overlay: self.OverlayAddress, Underlay: underlay, Port: uint16(cfg.Port),
		Names: names(self, slices.Concat(holders(self, members), dormant)),
	}
	for _, m := range dormant {
		s.Members = append(s.Members, table.Member{Overlay: m.OverlayAddress, Transport: table.TransportHold})
	}
	for _, m := range members {
		entry := table.Member{
			Overlay: m.OverlayAddress, Underlay: m.UnderlayAddress.Addr(), ID: m.ID, Port: m.UnderlayAddress.Port(),
			Transport: uint8(transport.Classify(self, m, cfg.Reach, cfg.Transports)),
			// What peers dial is not restricted.
			Near:  transport.Near(self, m),
			Aside: aside(self, m),
		}
		if m.ID == self.ID {
			entry.Underlay, entry.Port = underlay, uint16(cfg.Port)
		}
		if asleep(m) {
			entry.Transport = table.TransportHold
		}
		s.Members = append(s.Members, entry)
	}
	return s
}

// names maps what guests may look up to addresses. A service is all members
// that run it; while none does, those that start; else whoever is there: a
// lost member's address still is its slot's, and a slot that is dormant has one, too.
func names(self cluster.Member, members []cluster.Member) map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	rank := map[string]int{}
	for _, m := range members {
		better := rankOf(m)
		switch {
		case better > rank[m.Service]:
			rank[m.Service] = better
			all[m.Service] = []netip.Addr{m.OverlayAddress}
		case better == rank[m.Service]:
			all[m.Service] = append(all[m.Service], m.OverlayAddress)
		}
	}
	for _, m := range members {
		for _, name := range []string{m.Slot, nodeName(m)} {
			if !slices.Contains(all[name], m.OverlayAddress) {
				all[name] = append(all[name], m.OverlayAddress)
			}
		}
	}
	if self.Name != "" && len(all[self.Name]) == 0 {
		all[self.Name] = []netip.Addr{self.OverlayAddress}
	}
	return all
}

// nodeName is the canonical one; a dormant slot has none but its own.
func nodeName(m cluster.Member) string {
	if m.State == cluster.StateDormant {
		return m.Slot
	}
	return fmt.Sprintf("node-%d", m.ID)
}

func rankOf(m cluster.Member) int {
	switch {
	case m.Leaving:
	case m.State == cluster.StateRunning:
		return 3
	case m.State == cluster.StateStarting:
		return 2
	case m.State == cluster.StateDormant:
		return 0
	}
	return 1
}
