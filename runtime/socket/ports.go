// SPDX-License-Identifier: Apache-2.0

package socket

import "net/netip"

// On a node that shares its machine's loopback with others the guest's
// listeners are at the node's own address alone, and ports below 1024, which
// ordinary users may not bind, are at the top of the range (lib/shared.h).
const (
	lowPorts   = 1024
	lowPortsAt = 64512
)

// KernelPort is where a port of the guest is to the kernel, here and on every
// node that is reached natively.
func (l *Layer) KernelPort(port uint16) uint16 {
	if l.o.Shared && port != 0 && port < lowPorts {
		return port + lowPortsAt
	}
	return port
}

// guestPort is the way back.
func (l *Layer) guestPort(port uint16) uint16 {
	if l.o.Shared && port > lowPortsAt {
		return port - lowPortsAt
	}
	return port
}

// shown is a listener's address with the port that the guest gave it.
func (l *Layer) shown(a netip.AddrPort) netip.AddrPort {
	a = unmapped(a)
	return netip.AddrPortFrom(a.Addr(), l.guestPort(a.Port()))
}
