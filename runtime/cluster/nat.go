// SPDX-License-Identifier: Apache-2.0

package cluster

import "net/netip"

// How a NAT maps, filters, and answers what it does not let in.
const (
	MappingIndependent = "independent" // one port outside, whoever is written to
	MappingDependent   = "dependent"   // on the destination's address or port
	FilteringOpen      = "open"        // anybody reaches a mapped port
	FilteringClosed    = "closed"      // only who was written to
	UnexpectedDrop     = "drop"
	UnexpectedReset    = "reset"
)

// NATReport is what a node behind a NAT has found out about it. What is empty
// is not known.
type NATReport struct {
	Mapped      netip.AddrPort `json:"mapped"`          // where the overlay port is seen from outside
	Mapping     string         `json:"mapping"`         // independent or dependent
	Filtering   string         `json:"filtering"`       // open or closed
	Unexpected  string         `json:"unexpected"`      // what an uninvited SYN gets: drop or reset
	Preserves   bool           `json:"preserves_ports"` // ports outside are those inside
	Hairpin     bool           `json:"hairpin"`         // nodes behind this NAT reach each other through it,
	HairpinOpen bool           `json:"hairpin_open"`    // also uninvited
}

// Kind is the report in a word.
func (r *NATReport) Kind() string {
	kind := ""
	switch {
	case r.Mapping == MappingDependent:
		kind = "symmetric"
	case r.Filtering == FilteringOpen:
		kind = "cone"
	case r.Filtering == FilteringClosed && r.Mapping == MappingIndependent:
		kind = "restricted"
	default:
		return NATBehind
	}
	if r.Unexpected == UnexpectedReset {
		kind += "-rst"
	}
	return kind
}

// check bounds a report. Words that only a newer version knows are let through.
func (r *NATReport) check() error {
	if r != nil && (!r.Mapped.IsValid() || max(len(r.Mapping), len(r.Filtering), len(r.Unexpected)) > 32) {
		return remoteErrorf(CodeBadRequest, "NAT report %+v is not one", *r)
	}
	return nil
}
