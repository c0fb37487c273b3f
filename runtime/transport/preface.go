// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// prefaceSize is the length of a preface; what follows belongs to the guests.
const prefaceSize = 96

// version of prefaces and of what is said at a meeting.
const version = 1

// What is said before the guests speak: a relay tells the active half that the
// passive one is there, and the active side tells the passive one, through the
// relay or after a dial-back, that its guest is connected from now on. Who gets the
// preface of another version says otherwise, and no more.
//
// A word is the lower half of a byte; the upper half is the speaker's version, less
// one: each version can be told from every other, and this one's bytes are as they
// were before words had versions.
const (
	start     = (version-1)<<4 | 0x1
	paired    = (version-1)<<4 | 0x2
	otherwise = (version-1)<<4 | 0xf
)

// understand checks a word that was said instead of want.
func understand(said, want byte) error {
	switch theirs := int(said>>4) + 1; {
	case theirs != version || said == otherwise:
		return versionError(theirs)
	case said != want:
		return fmt.Errorf("the other side began with byte %#x and not with %#x", said, want)
	}
	return nil
}

func versionError(theirs int) error {
	return fmt.Errorf("%w: it speaks version %d, this node version %d: use the same Boxer release on both", errVersion, theirs, version)
}

// maxSkew is how far the clocks of two nodes may differ.
const maxSkew = 120 * time.Second

type kind uint8

const (
	kindDirect       kind = 1 // for the guest
	kindDialBack     kind = 2 // asked for by a call
	kindRelayActive  kind = 3
	kindRelayPassive kind = 4
	kindProbe        kind = 5 // where is this connection seen to come from?
)

// session names a pair of connections that belong together.
type session [16]byte

// preface is what a connection to an overlay port begins with:
//
//	"BXP1" | version u8 | kind u8 | flags u16 | time, unix ms u64 | nonce [16] |
//	src id u32 | src ip u32 | src port u16 | dst port u16 | dst ip u32 |
//	session [16] | HMAC-SHA256 of all before it [32]
//
// Integers are big-endian. A src port of 0 is that of the connection itself.
type preface struct {
	kind    kind
	flags   uint16 // of a probe
	time    time.Time
	nonce   [16]byte
	id      uint32
	src     netip.AddrPort
	dst     netip.AddrPort
	session session
}

var (
	errPreface = errors.New("not a preface")
	errMAC     = errors.New("preface with a wrong code: another network's secret")
	errTime    = errors.New("preface out of time: set the clocks of both nodes")
	errReplay  = errors.New("preface seen before")
	errVersion = errors.New("the other side is of another version")
)

// fresh fills in time and nonce.
func (p preface) fresh() preface {
	p.time = time.Now()
	rand.Read(p.nonce[:]) // never fails
	return p
}

func (p preface) seal(key []byte) []byte {
	b := make([]byte, prefaceSize)
	be := binary.BigEndian
	copy(b, "BXP1")
	b[4], b[5] = version, byte(p.kind)
	be.PutUint16(b[6:], p.flags)
	be.PutUint64(b[8:], uint64(p.time.UnixMilli()))
	copy(b[16:], p.nonce[:])
	be.PutUint32(b[32:], p.id)
	putIP(b[36:], p.src.Addr())
	be.PutUint16(b[40:], p.src.Port())
	be.PutUint16(b[42:], p.dst.Port())
	putIP(b[44:], p.dst.Addr())
	copy(b[48:], p.session[:])
	copy(b[64:], code(key, b[:64]))
	return b
}

// open reads a preface and checks its code, and nothing else. One of another version
// comes with errVersion, for who may say so.
func open(key, b []byte) (preface, error) {
	if len(b) != prefaceSize || string(b[:4]) != "BXP1" {
		return preface{}, errPreface
	}
	if !hmac.Equal(b[64:], code(key, b[:64])) {
		return preface{}, errMAC
	}
	be := binary.BigEndian
	p := preface{
		kind:    kind(b[5]),
		flags:   be.Uint16(b[6:]),
		time:    time.UnixMilli(int64(be.Uint64(b[8:]))),
		nonce:   [16]byte(b[16:]),
		id:      be.Uint32(b[32:]),
		src:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[36:])), be.Uint16(b[40:])),
		dst:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[44:])), be.Uint16(b[42:])),
		session: session(b[48:]),
	}
	switch {
	case b[4] != version:
		return p, versionError(int(b[4]))
	case p.kind < kindDirect || p.kind > kindProbe:
		return preface{}, fmt.Errorf("%w: kind %d; use the same release on both nodes", errPreface, p.kind)
	}
	return p, nil
}

func code(key, b []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(b)
	return mac.Sum(nil)
}

func putIP(b []byte, a netip.Addr) {
	if a = a.Unmap(); a.Is4() {
		ip := a.As4()
		copy(b, ip[:])
	}
}
