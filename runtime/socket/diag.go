// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The library finds the byte order out at the first request, without a lock;
// here before there are two goroutines.
var _ = nl.NativeEndian()

// States of TCP sockets as bits of a request to the kernel (tcp_states.h).
const (
	stateSynSent  = 2
	stateListen   = 10
	maskListen    = 1 << stateListen
	maskConnected = 1<<1 | 1<<4 | 1<<5 | 1<<6 | 1<<8 | 1<<9 | 1<<11 // established to closing
	maskAll       = 0xfff &^ maskListen
)

const (
	diagRequestSize = 56
	diagMessageSize = 72
	attrV6Only      = 11 // INET_DIAG_SKV6ONLY
)

// kernelSocket is a TCP socket as the kernel lists it.
type kernelSocket struct {
	cookie      uint64
	state       uint8
	v6, v6only  bool
	device      uint32 // bound to, or 0
	backlog     uint32 // of a listener
	queued      uint32 // of a listener: connections not accepted
	inode       uint32
	local, peer netip.AddrPort // v4-mapped addresses unmapped
}

// diagRequest is an inet_diag_req_v2 (linux/inet_diag.h).
type diagRequest [diagRequestSize]byte

func newDiagRequest(family uint8, states uint32) *diagRequest {
	var r diagRequest
	r[0], r[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], states)
	for i := 48; i < 56; i++ {
		r[i] = 0xff // no cookie
	}
	return &r
}

// kernelSockets lists the TCP sockets of this network namespace that are in
// one of states.
func kernelSockets(states uint32) ([]kernelSocket, error) {
	lists.mu.Lock()
	defer lists.mu.Unlock()
	var all []kernelSocket
	err := lists.dump(states, func(m []byte) {
		if s, ok := parseDiag(m); ok {
			all = append(all, s)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list the kernel's TCP sockets: %w", err)
	}
	return all, nil
}

// kernelSocketAt looks one IPv4 connection up.
func kernelSocketAt(local, peer netip.AddrPort) (kernelSocket, error) {
	r := newDiagRequest(unix.AF_INET, maskAll)
	binary.BigEndian.PutUint16(r[8:], local.Port())
	binary.BigEndian.PutUint16(r[10:], peer.Port())
	copy(r[12:], local.Addr().Unmap().AsSlice())
	copy(r[28:], peer.Addr().Unmap().AsSlice())
	at, err := kernelSocket{}, error(unix.ENOENT)
	failed := lookups.find(r, func(m []byte) {
		if s, ok := parseDiag(m); ok && s.peer == peer {
			at, err = s, nil
		}
	})
	if failed != nil {
		err = fmt.Errorf("look up the connection from %s to %s: %w", local, peer, failed)
	}
	return at, err
}

// kernelListens asks for the listener that a connection to this IPv4 address
// would reach.
func kernelListens(at netip.AddrPort) (bool, error) {
	r := newDiagRequest(unix.AF_INET, maskListen)
	binary.BigEndian.PutUint16(r[8:], at.Port())
	copy(r[12:], at.Addr().AsSlice())
	listens := false
	err := lookups.find(r, func(m []byte) {
		s, ok := parseDiag(m)
		listens = listens || ok && s.state == stateListen
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("look up the listener at %s: %w", at, err)
	}
	return listens, nil
}

// parseDiag reads an inet_diag_msg with its attributes.
func parseDiag(m []byte) (kernelSocket, bool) {
	if len(m) < diagMessageSize || (m[0] != unix.AF_INET && m[0] != unix.AF_INET6) {
		return kernelSocket{}, false
	}
	ne := binary.NativeEndian
	s := kernelSocket{
		state:   m[1],
		v6:      m[0] == unix.AF_INET6,
		local:   diagAddr(m[0], m[8:], binary.BigEndian.Uint16(m[4:])),
		peer:    diagAddr(m[0], m[24:], binary.BigEndian.Uint16(m[6:])),
		device:  ne.Uint32(m[40:]),
		cookie:  uint64(ne.Uint32(m[44:])) | uint64(ne.Uint32(m[48:]))<<32,
		backlog: ne.Uint32(m[60:]),
		queued:  ne.Uint32(m[56:]),
		inode:   ne.Uint32(m[68:]),
	}
	for rest := m[diagMessageSize:]; len(rest) >= 4; {
		size, kind := int(ne.Uint16(rest)), ne.Uint16(rest[2:])
		if size < 4 || size > len(rest) {
			break
		}
		if kind == attrV6Only && size > 4 {
			s.v6only = rest[4] != 0
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
	return s, true
}

func diagAddr(family uint8, b []byte, port uint16) netip.AddrPort {
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), port)
}
