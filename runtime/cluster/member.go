// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"time"
)

// States of a member.
const (
	StateStarting = "starting" // joined; the guest does not run yet (or waits at its barrier)
	StateRunning  = "running"  // the guest runs and is ready
	StateExited   = "exited"   // the guest ended and is not restarted
	StateFailed   = "failed"   // the guest could not be started
	StateLost     = "lost"     // no sign of life, lease not yet over
	StateLeft     = "left"     // gone for good (left or dead): only seen in deltas
	StateDormant  = "dormant"  // nobody is there, but who connects starts it: only of Dormant
)

// NAT kinds as seen when joining.
const (
	NATNone   = "none"   // the seed saw the declared underlay or public address
	NATBehind = "behind" // the seed saw another one: cannot be dialled from outside its site
)

// States of a guest.
const (
	GuestWaiting = "waiting" // start barrier not met
	GuestRunning = "running"
	GuestExited  = "exited"
	GuestFailed  = "failed" // could not be started: see Guest.Error
)

// Guest is what a member says of the program it runs.
type Guest struct {
	State    string `json:"state"`
	PID      int    `json:"pid,omitempty"`
	ExitCode *int   `json:"exit_code,omitempty"`
	Restarts int    `json:"restarts"`
	Error    string `json:"error,omitempty"`
	WaitsFor string `json:"waits_for,omitempty"` // what is missing at its start barrier
}

// Member is one node as every other node knows it (INTERFACES, "nodes --json").
type Member struct {
	ID              uint32         `json:"id"`
	Name            string         `json:"name"`
	Service         string         `json:"service"`
	Slot            string         `json:"slot"`
	Kind            string         `json:"kind"`
	State           string         `json:"state"`
	OverlayAddress  netip.Addr     `json:"overlay_address"`
	UnderlayAddress netip.AddrPort `json:"underlay_address"` // where its overlay port can be dialled, if NAT is "none"
	// PublicAddress is where it is dialled from outside its site, through a NAT of one
	// address outside for one inside; 0.0.0.0: nowhere. None: where it is from inside.
	PublicAddress netip.Addr `json:"public_address,omitzero"`
	Site          string     `json:"site"`
	NAT           string     `json:"nat"`
	NATReport     *NATReport `json:"nat_report,omitempty"` // of a member behind NAT that has probed it
	Version       string     `json:"version"`
	Since         time.Time  `json:"since"`
	Guest         Guest      `json:"guest"`
	Listeners     []uint16   `json:"listeners,omitempty"` // ports of the guest, ascending; a hint
	LaunchID      string     `json:"launch_id,omitempty"` // LaunchID(token): tells one launch of a slot from the next
	Leader        bool       `json:"leader,omitempty"`    // the seed that admits members
	Relay         *Relay     `json:"relay,omitempty"`     // others may meet at its overlay port
	Ends          time.Time  `json:"ends,omitzero"`       // when its platform makes it leave
	Standby       bool       `json:"standby,omitempty"`   // it has the slot only while the slot's own node is gone
	Leaving       bool       `json:"leaving,omitempty"`   // it was asked to, and lets its connections end first
	Load          *Load      `json:"load,omitempty"`      // of those that were asked for it

	// Two members of one slot have one address: name and address stand for the holder.
	Succeeds uint32 `json:"succeeds,omitempty"` // the holder that this one takes over from as soon as it runs
	Retired  bool   `json:"retired,omitempty"`  // its slot is another's or nobody's: it lets its connections end, and leaves
}

// Holds tells whether the slot's name and address stand for this member.
func (m *Member) Holds() bool { return m.Succeeds == 0 && !m.Retired }

// Place is where its overlay port is dialled, from inside its site or from outside.
func (m *Member) Place(inside bool) netip.AddrPort {
	switch {
	case inside || !m.PublicAddress.IsValid():
		return m.UnderlayAddress
	case m.PublicAddress.IsUnspecified():
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(m.PublicAddress, m.UnderlayAddress.Port())
}

// Relay is what a member says that lets others meet at its overlay port.
type Relay struct {
	Pairs    int  `json:"pairs"` // connections it carries, about
	Draining bool `json:"draining,omitempty"`
}

// Load is what a member's guest has to do, about.
type Load struct {
	CPU         float64 `json:"cpu"`          // CPUs that its processes use
	Connections int     `json:"connections"`  // open ones into its listeners
	AcceptQueue int     `json:"accept_queue"` // those of them that it has not accepted
}

// Path counts the connections one node made to another over one transport.
type Path struct {
	From      uint32 `json:"from"`
	To        uint32 `json:"to"`
	Transport string `json:"transport"` // native, direct, punch, relay
	Count     uint64 `json:"count"`
	Failed    uint64 `json:"failed,omitempty"` // could not be made; refused ones are not among them
	// How long half, and 99 of 100, took at most, if the supervisor made them.
	P50 int64 `json:"setup_p50_us,omitempty"`
	P99 int64 `json:"setup_p99_us,omitempty"`
	// The slots of those that have left, where the seed still knows them.
	FromLeft string `json:"from_left,omitempty"`
	ToLeft   string `json:"to_left,omitempty"`
}
