// SPDX-License-Identifier: Apache-2.0

package transport

import (
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

// Names of transports in paths.
const (
	pathNative = "native"
	pathDirect = "direct"
	pathRelay  = "relay" // every connection that somebody splices
)

const reachAny = "any" // config.ReachAny; this package knows cluster only

// Classify tells how self, which has this reach, connects to peer.
func Classify(self, peer cluster.Member, reach string) Class {
	switch {
	case self.ID == peer.ID:
		return ClassNative
	case self.Site != "" && self.Site == peer.Site && self.NAT == cluster.NATNone && peer.NAT == cluster.NATNone:
		return ClassNative
	case dialable(peer) && reach == reachAny:
		return ClassDirect
	}
	return ClassHold
}

func dialable(m cluster.Member) bool {
	return m.NAT == cluster.NATNone && m.UnderlayAddress.IsValid() && m.UnderlayAddress.Port() != 0
}
