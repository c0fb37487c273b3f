// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
const filesPause = 50 * time.Millisecond

// view is the member set as the transport asks for it.
type view struct {
	underlay netip.Addr // set before the first refresh

	mu      sync.RWMutex
	session *cluster.Session
	byAddr  map[netip.Addr]cluster.Member
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

func (v *view) index(members []cluster.Member) {
	byAddr := make(map[netip.Addr]cluster.Member, len(members))
	for _, m := range members {
		byAddr[m.OverlayAddress] = m
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.byAddr = byAddr
}

// follow keeps table, files and barrier in step with the network: the files after a
// while if much changes, as each time they are written whole.
func (n *node) follow(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Every(filesPause), 2)
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
			if err := n.refresh(); err != nil {
				n.log.Error().Err(err).Msg("membership change not published")
			}
			if !late {
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
	return writeMemberFiles(n.dir, n.session.Self(), n.session.Members())
}

// refresh publishes the member set of now.
func (n *node) refresh() error {
	members := n.session.Members()
	self := n.session.Self()
	n.view.index(holders(self, members))
	err := n.table.Publish(snapshot(n.cfg, self, n.view.underlay, n.session.CIDR(), members))
	if err != nil {
		return fmt.Errorf("publish the node table: %w", err)
	}
	n.checkBarrier(members)
	if self.Retired {
		n.retire()
	}
	return nil
}

func snapshot(cfg config.Node, self cluster.Member, underlay netip.Addr, cidr netip.Prefix, members []cluster.Member) table.Snapshot {
	s := table.Snapshot{
		CIDR: cidr, ID: self.ID, Name: self.Slot, Network: cfg.Network,
		Overlay: self.OverlayAddress, Underlay: underlay, Port: uint16(cfg.Port),
		Names: names(self, holders(self, members)),
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
		s.Members = append(s.Members, entry)
	}
	return s
}

// names maps what guests may look up to addresses. A service is all members
// that run it; while none does, those that start; else whoever is there: a
// lost member's address still is its slot's.
func names(self cluster.Member, members []cluster.Member) map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	rank := map[string]int{}
	for _, m := range members {
		better := rankOf(m.State)
		switch {
		case better > rank[m.Service]:
			rank[m.Service] = better
			all[m.Service] = []netip.Addr{m.OverlayAddress}
		case better == rank[m.Service]:
			all[m.Service] = append(all[m.Service], m.OverlayAddress)
		}
	}
	for _, m := range members {
		for _, name := range []string{m.Slot, fmt.Sprintf("node-%d", m.ID)} {
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

func rankOf(state string) int {
	switch state {
	case cluster.StateRunning:
		return 3
	case cluster.StateStarting:
		return 2
	}
	return 1
}
