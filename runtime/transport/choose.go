// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// mode is how two nodes get a connection with nobody in between.
type mode string

const (
	modeNone         mode = "" // they do not: a relay is needed
	modeDial         mode = "dial"
	modeBack         mode = "dial-back"
	modeActiveFirst  mode = "active-first"
	modePassiveFirst mode = "passive-first"
)

// crosses tells whether the peer is asked to open its NAT.
func (m mode) crosses() bool { return m == modeActiveFirst || m == modePassiveFirst }

// choose tells how active connects to passive. What a NAT answers to a SYN that
// nobody has asked for decides who goes first: a reset that meets a waiting
// socket ends it, so the first SYN goes to the side that drops.
func choose(active, passive cluster.Member) mode {
	switch {
	case dialable(active, passive):
		return modeDial
	case dialable(passive, active):
		return modeBack
	}
	a, b := active.NATReport, passive.NATReport
	neighbours := a != nil && b != nil && a.Mapped.Addr() == b.Mapped.Addr()
	switch {
	case a == nil || b == nil || neighbours && !a.Hairpin:
		return modeNone
	case b.Filtering == cluster.FilteringOpen, neighbours && a.HairpinOpen:
		return modeDial
	case a.Filtering == cluster.FilteringOpen:
		return modeBack
	case a.Mapping != cluster.MappingIndependent || b.Mapping != cluster.MappingIndependent:
		return modeNone
	case b.Unexpected != cluster.UnexpectedReset: // or not known yet
		return modeActiveFirst
	case a.Unexpected != cluster.UnexpectedReset:
		return modePassiveFirst
	}
	return modeNone
}

// waits tells whether passive can wait with an open NAT for one of active's
// sockets, so that the socket needs nobody's help when it dials.
func waits(active, passive cluster.Member) bool {
	switch choose(active, passive) {
	case modeActiveFirst, modePassiveFirst:
		return active.NATReport.Unexpected != cluster.UnexpectedReset
	}
	return false
}

// placeOf is where self dials m's overlay port.
func (l *Layer) placeOf(self, m cluster.Member) netip.AddrPort {
	if !dialable(self, m) && m.NATReport != nil && (self.ID != m.ID || l.loops(self)) {
		return m.NATReport.Mapped
	}
	return l.overlayPort(self, m)
}

// outside is the address that m's connections to self come from, if it is known.
func outside(self, m cluster.Member) netip.Addr {
	at, ok := Place(self, m)
	switch {
	case ok:
		return at.Addr().Unmap()
	case m.NATReport != nil:
		return m.NATReport.Mapped.Addr().Unmap()
	}
	return netip.Addr{}
}

// loops tells whether self reaches itself from outside, past its own NAT: as with
// relay, who may use punch alone meets itself that way, where the NAT lets it.
func (l *Layer) loops(self cluster.Member) bool {
	how := choose(self, self)
	return l.punchAlone() && (how == modeActiveFirst || how == modePassiveFirst)
}

func (l *Layer) punchAlone() bool {
	return l.o.Reach == reachAny && len(l.o.Transports) == 1 && l.o.Transports[0] == pathPunch
}

// punches is the mode between self and m, if this node may use one. Dialling
// back alone is also part of what direct and relay together allow.
func (l *Layer) punches(self, m cluster.Member) mode {
	only := l.o.Transports
	if l.o.Reach != reachAny && self.ID != m.ID {
		return modeNone
	}
	how := choose(self, m)
	if self.ID == m.ID && !l.loops(self) {
		if l.punchAlone() && unprobed(self) {
			return modeNone // yet
		}
		how = modeDial
	}
	if allows(only, pathPunch) || how == modeBack && allows(only, pathDirect) && allows(only, pathRelay) {
		return how
	}
	return modeNone
}
