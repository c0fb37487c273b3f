// SPDX-License-Identifier: Apache-2.0

package table

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Member is one node as process monitors see it. Underlay may be the zero
// Addr when the node cannot be dialled.
type Member struct {
	Overlay   netip.Addr
	Underlay  netip.Addr
	ID        uint32
	Port      uint16
	Transport uint8
	Near      bool // its native connections come from Underlay
	Aside     bool // Overlay stands for another member: only what it connects is known
}

// Snapshot is all that a table says.
type Snapshot struct {
	CIDR              netip.Prefix
	ID                uint32
	Name, Network     string
	Overlay, Underlay netip.Addr
	Port              uint16
	Members           []Member
	Names             map[string][]netip.Addr // lower-cased when published
}

// address gives an IPv4 address as the host-order integer of lib/table.h; an
// absent one is 0.
func address(a netip.Addr, what string) (uint32, error) {
	a = a.Unmap()
	switch {
	case !a.IsValid():
		return 0, nil
	case !a.Is4():
		return 0, fmt.Errorf("node table: %s %s is not an IPv4 address", what, a)
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:]), nil
}

// image is a copy of the table being filled, field by field; the first failure
// stays.
type image struct {
	b   []byte // of Size bytes
	err error
}

func (m *image) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *image) u32(off int, v uint32) { binary.LittleEndian.PutUint32(m.b[off:], v) }
func (m *image) u16(off int, v uint16) { binary.LittleEndian.PutUint16(m.b[off:], v) }

func (m *image) ip(off int, a netip.Addr, what string) uint32 {
	v, err := address(a, what)
	if err != nil {
		m.fail(err)
	}
	m.u32(off, v)
	return v
}

func (m *image) text(off int, s, what string) {
	if len(s) >= nameLen || strings.IndexByte(s, 0) >= 0 {
		m.fail(fmt.Errorf("node table: %s %q: at most %d bytes fit, none of them NUL", what, s, nameLen-1))
		return
	}
	clear(m.b[off : off+nameLen])
	copy(m.b[off:], s)
}

// spans are the used parts of an image behind the header.
type spans struct{ members, natives, names, addrs int }

// encode writes s into b (Size bytes) except sequence and heartbeat.
func encode(b []byte, s Snapshot) (spans, error) {
	m := &image{b: b}
	var n spans
	m.header(s)
	n.members, n.natives = m.members(s.Members)
	n.names, n.addrs = m.names(s.Names)
	m.u32(offMemberCount, uint32(n.members))
	m.u32(offNativeCount, uint32(n.natives))
	m.u32(offNameCount, uint32(n.names))
	m.u32(offAddrCount, uint32(n.addrs))
	return n, m.err
}

func (m *image) header(s Snapshot) {
	binary.LittleEndian.PutUint64(m.b[offMagic:], magic)
	m.u32(offVersion, version)
	m.u32(offSize, Size)
	if s.CIDR.IsValid() && s.CIDR.Addr().Is4() {
		m.ip(offCIDR, s.CIDR.Masked().Addr(), "CIDR")
		m.u32(offMask, ^uint32(0)<<(32-s.CIDR.Bits()))
	} else {
		m.fail(fmt.Errorf("node table: CIDR %s is not an IPv4 network", s.CIDR))
	}
	m.ip(offOwnOverlay, s.Overlay, "own overlay address")
	m.ip(offOwnUnderlay, s.Underlay, "own underlay address")
	m.u32(offOwnID, s.ID)
	m.u16(offPort, s.Port)
	m.u32(offMemberOff, memberOff)
	m.u32(offNameOff, nameOff)
	m.u32(offAddrOff, addrOff)
	m.u32(offNativeOff, nativeOff)
	m.text(offOwnName, s.Name, "own name")
	m.text(offNetwork, s.Network, "network name")
}

// members writes the members sorted by overlay address and, sorted by underlay
// address, the index of those whose native connections are translated.
func (m *image) members(members []Member) (count, natives int) {
	if len(members) > MaxMembers {
		m.fail(fmt.Errorf("node table: %d members are too many; a network holds at most %d", len(members), MaxMembers))
		return 0, 0
	}
	sorted := slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.Aside })
	slices.SortStableFunc(sorted, func(a, b Member) int { return a.Overlay.Unmap().Compare(b.Overlay.Unmap()) })
	type native struct{ underlay, overlay uint32 }
	var index []native
	last := uint32(0)
	for i, member := range sorted {
		off := memberOff + i*memberSize
		clear(m.b[off : off+memberSize])
		overlay := m.ip(off, member.Overlay, "overlay address")
		underlay := m.ip(off+4, member.Underlay, "underlay address")
		if overlay == 0 || overlay == last {
			m.fail(fmt.Errorf("node table: overlay address %s of node %d is empty or held twice", member.Overlay, member.ID))
		}
		last = overlay
		m.u32(off+8, member.ID)
		m.u16(off+12, member.Port)
		m.b[off+14] = member.Transport
		if member.Near && underlay != 0 {
			index = append(index, native{underlay, overlay})
		}
	}
	for _, member := range members {
		underlay, err := address(member.Underlay, "underlay address")
		overlay, err2 := address(member.Overlay, "overlay address")
		if member.Aside && member.Near && underlay != 0 && errors.Join(err, err2) == nil {
			index = append(index, native{underlay, overlay})
		}
	}
	slices.SortStableFunc(index, func(a, b native) int { return cmp.Compare(a.underlay, b.underlay) })
	// One underlay address translates to one node; the lowest overlay address
	// stands for it where a configuration breaks that rule.
	index = slices.CompactFunc(index, func(a, b native) bool { return a.underlay == b.underlay })
	for i, e := range index {
		m.u32(nativeOff+i*nativeSize, e.underlay)
		m.u32(nativeOff+i*nativeSize+4, e.overlay)
	}
	return len(sorted), len(index)
}

func (m *image) names(given map[string][]netip.Addr) (names, addrs int) {
	lower := make(map[string][]netip.Addr, len(given))
	for name, list := range given {
		if key := strings.ToLower(name); len(list) > 0 {
			lower[key] = append(lower[key], list...)
			addrs += len(list)
		}
	}
	if len(lower) > MaxNames || addrs > MaxAddrs {
		m.fail(fmt.Errorf("node table: %d names with %d addresses are too many; at most %d and %d fit", len(lower), addrs, MaxNames, MaxAddrs))
		return 0, 0
	}
	keys := make([]string, 0, len(lower))
	for name := range lower {
		keys = append(keys, name)
	}
	slices.Sort(keys)
	addrs = 0
	for i, name := range keys {
		off := nameOff + i*nameSize
		m.text(off, name, "name")
		m.u32(off+nameLen, uint32(addrs))
		m.u32(off+nameLen+4, uint32(len(lower[name])))
		for _, a := range lower[name] {
			m.ip(addrOff+addrs*addrSize, a, "address of "+name)
			addrs++
		}
	}
	return len(keys), addrs
}
