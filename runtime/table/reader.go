// SPDX-License-Identifier: Apache-2.0

package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Reader reads a table as a process monitor does; it is there for tests and
// for debugging.
type Reader struct{ mem []byte }

// NewReader maps the table in file, which stays the caller's.
func NewReader(file *os.File) (*Reader, error) {
	mem, err := unix.Mmap(int(file.Fd()), 0, Size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("node table: map for reading: %w", err)
	}
	return &Reader{mem: mem}, nil
}

// Close unmaps the table.
func (r *Reader) Close() error { return unix.Munmap(r.mem) }

// Heartbeat is the CLOCK_MONOTONIC time of the writer's last sign of life, in
// nanoseconds.
func (r *Reader) Heartbeat() uint64 { return atomic.LoadUint64(word64(r.mem, offHeartbeat)) }

// Read returns a consistent snapshot, waiting at most a second for a writer to
// finish.
func (r *Reader) Read() (Snapshot, error) {
	draft := make([]byte, Size)
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		before := atomic.LoadUint32(word32(r.mem, offSeq))
		if before%2 == 1 {
			continue
		}
		copy(draft, r.mem)
		if atomic.LoadUint32(word32(r.mem, offSeq)) == before {
			return decode(draft)
		}
	}
	return Snapshot{}, errors.New("node table: the writer does not finish")
}

var errDamaged = errors.New("node table: damaged")

// decode checks every offset and count: a table is trusted no more than a
// message.
func decode(b []byte) (Snapshot, error) {
	if len(b) < headerSize || binary.LittleEndian.Uint64(b) != magic {
		return Snapshot{}, fmt.Errorf("%w: not a node table", errDamaged)
	}
	if v := get32(b, offVersion); v != version {
		return Snapshot{}, fmt.Errorf("%w: version %d, want %d", errDamaged, v, version)
	}
	s := Snapshot{
		CIDR:    netip.PrefixFrom(getIP(b, offCIDR), bits.OnesCount32(get32(b, offMask))),
		ID:      get32(b, offOwnID),
		Name:    getText(b[offOwnName:]),
		Network: getText(b[offNetwork:]),
		Overlay: getIP(b, offOwnOverlay), Underlay: getIP(b, offOwnUnderlay),
		Port:  binary.LittleEndian.Uint16(b[offPort:]),
		Names: map[string][]netip.Addr{},
	}
	members, err := span(b, offMemberOff, offMemberCount, memberSize, MaxMembers)
	if err != nil {
		return s, err
	}
	names, err := span(b, offNameOff, offNameCount, nameSize, MaxNames)
	if err != nil {
		return s, err
	}
	addrs, err := span(b, offAddrOff, offAddrCount, addrSize, MaxAddrs)
	if err != nil {
		return s, err
	}
	index, err := natives(b)
	if err != nil {
		return s, err
	}
	near := make(map[[2]netip.Addr]bool, len(index))
	for _, pair := range index {
		near[pair] = true
	}
	for ; len(members) > 0; members = members[memberSize:] {
		m := Member{Overlay: getIP(members, 0), Underlay: getIP(members, 4), ID: get32(members, 8),
			Port: binary.LittleEndian.Uint16(members[12:]), Transport: members[14]}
		m.Near = near[[2]netip.Addr{m.Underlay, m.Overlay}]
		s.Members = append(s.Members, m)
	}
	for ; len(names) > 0; names = names[nameSize:] {
		first, count := uint64(get32(names, nameLen)), uint64(get32(names, nameLen+4))
		if (first+count)*addrSize > uint64(len(addrs)) {
			return s, fmt.Errorf("%w: addresses of a name lie outside", errDamaged)
		}
		name := getText(names)
		for i := first; i < first+count; i++ {
			s.Names[name] = append(s.Names[name], getIP(addrs, int(i*addrSize)))
		}
	}
	return s, nil
}

// natives returns the index from underlay to overlay address, in its order.
func natives(b []byte) ([][2]netip.Addr, error) {
	part, err := span(b, offNativeOff, offNativeCount, nativeSize, MaxMembers)
	var index [][2]netip.Addr
	for ; len(part) > 0; part = part[nativeSize:] {
		index = append(index, [2]netip.Addr{getIP(part, 0), getIP(part, 4)})
	}
	return index, err
}

// span returns the array whose offset and count stand in the header.
func span(b []byte, offset, count, size, most int) ([]byte, error) {
	start, n := uint64(get32(b, offset)), uint64(get32(b, count))
	end := start + n*uint64(size)
	if n > uint64(most) || start < headerSize || end > uint64(len(b)) {
		return nil, fmt.Errorf("%w: %d entries of %d bytes at %d lie outside", errDamaged, n, size, start)
	}
	return b[start:end], nil
}

func get32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }

// getIP reads an address; 0 is the absent one.
func getIP(b []byte, off int) netip.Addr {
	v := get32(b, off)
	if v == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func getText(b []byte) string {
	b = b[:nameLen]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
