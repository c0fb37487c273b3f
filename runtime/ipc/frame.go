// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Sizes of the frames of lib/wire.h.
const (
	RequestSize  = 96
	ResponseSize = 256
	PrefaceMax   = 128

	requestMagic  = 0x51525842 // "BXRQ"
	responseMagic = 0x53525842 // "BXRS"
	wireVersion   = 1
	tokenLen      = 16
)

// Op is what a monitor asks for.
type Op uint16

// The operations of lib/wire.h.
const (
	OpTable   Op = 1
	OpListen  Op = 2
	OpConnect Op = 3
	OpHeld    Op = 4
	OpAccept  Op = 5
	OpAck     Op = 6
	OpNak     Op = 7
	OpAddress Op = 8
)

// Flags of a request.
const (
	FlagNonblock uint32 = 1
	FlagV6       uint32 = 2
	FlagV6Only   uint32 = 4
	FlagFallback uint32 = 8
	FlagBound    uint32 = 16
)

// Action is how a monitor is to connect.
type Action uint32

// The actions of lib/wire.h.
const (
	ActionNative Action = 1
	ActionDirect Action = 2
	ActionHold   Action = 3
)

// Token proves one end of the local connection to the other.
type Token [tokenLen]byte

// Request is a frame from a process monitor.
type Request struct {
	Op      Op
	Token   Token
	Cookie  uint64 // SO_COOKIE of the guest's socket
	Flags   uint32
	Addr    netip.AddrPort
	Backlog uint32
	PID     uint32
	CPU     uint16 // the asker's, counted from 1; 0: unknown
}

// Response is a frame to a process monitor.
type Response struct {
	Op      Op
	Token   Token
	Err     syscall.Errno
	Action  Action
	Addr    netip.AddrPort // where to connect, as the kernel sees it
	Family  uint16         // AF_INET, AF_INET6 or 0
	Local   netip.AddrPort // what the guest should see; of OpConnect the port to use
	Peer    netip.AddrPort
	Preface []byte
	Syns    uint16 // of OpConnect: how often the kernel sends the SYN again; 0: as usual
}

// ErrFrame is the error of every frame that cannot be read.
var ErrFrame = errors.New("malformed frame")

// AppendRequest appends the frame of r to b.
func AppendRequest(b []byte, r Request) []byte {
	start := len(b)
	b = append(b, make([]byte, RequestSize)...)
	f := b[start:]
	le := binary.LittleEndian
	le.PutUint32(f[0:], requestMagic)
	le.PutUint16(f[4:], wireVersion)
	le.PutUint16(f[6:], uint16(r.Op))
	copy(f[8:24], r.Token[:])
	le.PutUint64(f[24:], r.Cookie)
	le.PutUint32(f[32:], r.Flags)
	le.PutUint32(f[36:], ipv4(r.Addr))
	le.PutUint16(f[40:], r.Addr.Port())
	le.PutUint16(f[42:], r.CPU)
	le.PutUint32(f[44:], r.Backlog)
	le.PutUint32(f[48:], r.PID)
	return b
}

// ParseRequest reads one frame.
func ParseRequest(f []byte) (Request, error) {
	if err := check(f, RequestSize, requestMagic); err != nil {
		return Request{}, fmt.Errorf("request: %w", err)
	}
	le := binary.LittleEndian
	r := Request{
		Op:      Op(le.Uint16(f[6:])),
		Token:   Token(f[8:24]),
		Cookie:  le.Uint64(f[24:]),
		Flags:   le.Uint32(f[32:]),
		Addr:    addrPort(le.Uint32(f[36:]), le.Uint16(f[40:])),
		Backlog: le.Uint32(f[44:]),
		PID:     le.Uint32(f[48:]),
		CPU:     le.Uint16(f[42:]),
	}
	if r.Op < OpTable || r.Op > OpAddress {
		return Request{}, fmt.Errorf("request: %w: operation %d", ErrFrame, r.Op)
	}
	return r, nil
}

// AppendResponse appends the frame of r to b. A preface that is too long is a
// mistake of the program.
func AppendResponse(b []byte, r Response) []byte {
	if len(r.Preface) > PrefaceMax {
		panic("ipc: preface longer than a frame holds")
	}
	start := len(b)
	b = append(b, make([]byte, ResponseSize)...)
	f := b[start:]
	le := binary.LittleEndian
	le.PutUint32(f[0:], responseMagic)
	le.PutUint16(f[4:], wireVersion)
	le.PutUint16(f[6:], uint16(r.Op))
	copy(f[8:24], r.Token[:])
	le.PutUint32(f[24:], uint32(r.Err))
	le.PutUint32(f[28:], uint32(r.Action))
	le.PutUint32(f[32:], ipv4(r.Addr))
	le.PutUint16(f[36:], r.Addr.Port())
	le.PutUint16(f[38:], r.Family)
	le.PutUint32(f[40:], ipv4(r.Local))
	le.PutUint16(f[44:], r.Local.Port())
	le.PutUint16(f[46:], r.Peer.Port())
	le.PutUint32(f[48:], ipv4(r.Peer))
	le.PutUint16(f[52:], uint16(len(r.Preface)))
	le.PutUint16(f[54:], r.Syns)
	copy(f[56:], r.Preface)
	return b
}

// ParseResponse reads one frame; the monitor's side of AppendResponse.
func ParseResponse(f []byte) (Response, error) {
	if err := check(f, ResponseSize, responseMagic); err != nil {
		return Response{}, fmt.Errorf("response: %w", err)
	}
	le := binary.LittleEndian
	r := Response{
		Op:     Op(le.Uint16(f[6:])),
		Token:  Token(f[8:24]),
		Err:    syscall.Errno(le.Uint32(f[24:])),
		Action: Action(le.Uint32(f[28:])),
		Addr:   addrPort(le.Uint32(f[32:]), le.Uint16(f[36:])),
		Family: le.Uint16(f[38:]),
		Local:  addrPort(le.Uint32(f[40:]), le.Uint16(f[44:])),
		Peer:   addrPort(le.Uint32(f[48:]), le.Uint16(f[46:])),
		Syns:   le.Uint16(f[54:]),
	}
	n := int(le.Uint16(f[52:]))
	if n > PrefaceMax || r.Err > 0x7fffffff {
		return Response{}, fmt.Errorf("response: %w: preface of %d bytes, error number %d", ErrFrame, n, uint32(r.Err))
	}
	if n > 0 {
		r.Preface = append([]byte(nil), f[56:56+n]...)
	}
	return r, nil
}

func check(f []byte, size int, magic uint32) error {
	le := binary.LittleEndian
	switch {
	case len(f) != size:
		return fmt.Errorf("%w: %d bytes, want %d", ErrFrame, len(f), size)
	case le.Uint32(f) != magic:
		return fmt.Errorf("%w: magic %#x", ErrFrame, le.Uint32(f))
	case le.Uint16(f[4:]) != wireVersion:
		return fmt.Errorf("%w: version %d, want %d", ErrFrame, le.Uint16(f[4:]), wireVersion)
	}
	return nil
}

// ipv4 is the host-order integer of an address; what is not IPv4 becomes 0,
// as frames carry nothing else.
func ipv4(a netip.AddrPort) uint32 {
	if ip := a.Addr().Unmap(); ip.Is4() {
		b := ip.As4()
		return binary.BigEndian.Uint32(b[:])
	}
	return 0
}

func addrPort(ip uint32, port uint16) netip.AddrPort {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], ip)
	return netip.AddrPortFrom(netip.AddrFrom4(b), port)
}
