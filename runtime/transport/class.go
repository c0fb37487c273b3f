// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// Class is how a connection to a member begins; the numbers are those of the
// node table.
type Class uint8

// The classes.
const (
	ClassNative Class = 1
	ClassDirect Class = 2
	ClassHold   Class = 3
)

// Names of transports in paths and in Options.Transports.
const (
	pathNative = "native"
	pathDirect = "direct" // to the peer's overlay port, nobody in between
	pathPunch  = "punch"  // past a NAT, nobody in between
	pathRelay  = "relay"  // met at a third node
)

// probePatience is how long a node may take to find out about its NAT.
const probePatience = 10 * time.Second

const reachAny = "any" // config.ReachAny; this package knows cluster only

// Classify tells how self, which has this reach and uses only these transports
// (none given: all), connects to peer. What it cannot reach is held as well:
// the supervisor then says no, and why.
func Classify(self, peer cluster.Member, reach string, only []string) Class {
	switch {
	case allows(only, pathNative) && Near(self, peer):
		return ClassNative
	case allows(only, pathDirect) && canDial(self, peer, reach):
		return ClassDirect
	}
	return ClassHold
}

// Near tells whether self and peer see each other's native connections.
func Near(self, peer cluster.Member) bool { return self.ID == peer.ID || sameSite(self, peer) }

// sameSite tells whether the underlay address of one is the other's to dial.
func sameSite(self, peer cluster.Member) bool {
	return self.Site != "" && self.Site == peer.Site && sited(self) && sited(peer)
}

// sited: it is where it says, or a platform that knows has said whether it can be
// seen elsewhere as well.
func sited(m cluster.Member) bool { return m.NAT == cluster.NATNone || m.PublicAddress.IsValid() }

// translated: what it exchanges with others than its site lives in some NAT's memory.
func translated(m cluster.Member) bool {
	return m.NAT == cluster.NATBehind || m.PublicAddress.IsValid()
}

// Place is where self dials m's overlay port, if it can.
func Place(self, m cluster.Member) (netip.AddrPort, bool) {
	inside := sameSite(self, m)
	at := m.Place(inside)
	return at, (inside || m.NAT == cluster.NATNone) && at.IsValid() && at.Port() != 0
}

func allows(only []string, name string) bool {
	return len(only) == 0 || slices.Contains(only, name)
}

// canDial tells whether self can dial peer's overlay port: its own always.
func canDial(self, peer cluster.Member, reach string) bool {
	return self.ID == peer.ID || dialable(self, peer) && reach == reachAny
}

// barred says why no transport that this node may use reaches peer, if so.
func (l *Layer) barred(self, peer cluster.Member) error {
	only := l.o.Transports
	if allows(only, pathRelay) || Classify(self, peer, l.o.Reach, only) != ClassHold || l.punches(self, peer) != modeNone {
		return nil
	}
	var why string
	switch {
	case allows(only, pathPunch) && l.o.Reach == reachAny:
		if unprobed(self) || unprobed(peer) {
			return nil // held until it is known
		}
		why = "nothing passes the two NATs"
	case allows(only, pathDirect):
		why = "its overlay port cannot be dialled from here (NAT, or a client)"
	default:
		why = "it is not in this node's site"
	}
	return fmt.Errorf("node %d cannot be reached with transports = %q: %s: %w", peer.ID, only, why, syscall.EHOSTUNREACH)
}

// unprobed: it is too early to know all about a member's NAT.
func unprobed(m cluster.Member) bool {
	return m.NAT == cluster.NATBehind && reportOf(m).Filtering == "" && time.Since(m.Since) < probePatience
}

func dialable(self, m cluster.Member) bool {
	_, ok := Place(self, m)
	return ok
}
