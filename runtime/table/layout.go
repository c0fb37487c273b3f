// SPDX-License-Identifier: Apache-2.0

package table

// The layout of lib/table.h; tested against the same golden bytes.
const (
	magic   = 0x3130424154584f42 // "BOXTAB01"
	version = 1

	// Size of the shared memory.
	Size = 1280 * 1024
	// MaxMembers, MaxNames and MaxAddrs are what one table can hold.
	MaxMembers = 4096
	MaxNames   = 12288
	MaxAddrs   = 16384
	nameLen    = 64 // with the terminating NUL

	headerSize = 256
	memberSize = 24
	nativeSize = 8
	nameSize   = 72
	addrSize   = 4

	memberOff = headerSize
	nativeOff = memberOff + MaxMembers*memberSize
	nameOff   = nativeOff + MaxMembers*nativeSize
	addrOff   = nameOff + MaxNames*nameSize
)

// Offsets in the header.
const (
	offMagic       = 0
	offVersion     = 8
	offSize        = 12
	offSeq         = 16
	offHeartbeat   = 24
	offCIDR        = 32
	offMask        = 36
	offOwnOverlay  = 40
	offOwnUnderlay = 44
	offOwnID       = 48
	offPort        = 52
	offMemberCount = 56
	offNameCount   = 60
	offAddrCount   = 64
	offNativeCount = 68
	offMemberOff   = 72
	offNameOff     = 76
	offAddrOff     = 80
	offNativeOff   = 84
	offOwnName     = 128
	offNetwork     = 192
)

// Transports of a member: how a connection to it begins (enum
// boxer_transport).
const (
	TransportNone   uint8 = 0
	TransportNative uint8 = 1
	TransportDirect uint8 = 2
	TransportHold   uint8 = 3
)
