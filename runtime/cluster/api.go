// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"time"

	"github.com/rs/zerolog"
)

// Timing of the control network.
const (
	DefaultHeartbeat = 2 * time.Second       // a sign of life at least this often, both ways
	DefaultSilence   = 6 * time.Second       // no sign for so long: the connection is dead
	shortHeartbeat   = 1 * time.Second       // where another seed stands by,
	shortSilence     = 3 * time.Second       // silence is noticed sooner
	DefaultLease     = 5 * time.Second       // a lost member may come back within it
	DefaultBatch     = 5 * time.Millisecond  // changes gathered into one delta
	firstRetry       = 50 * time.Millisecond // reconnecting, and doubling up to
	lastRetry        = 500 * time.Millisecond
	dialTimeout      = 5 * time.Second         // until TCP is connected: a dead host
	shortDial        = 1500 * time.Millisecond // the same, where there is another seed, and to come back
	answerTimeout    = 20 * time.Second        // until the seed has admitted: it may serve a burst
)

// Hello is what a node says of itself when it joins.
type Hello struct {
	Network         string     `json:"network"`
	Name            string     `json:"name"`
	Service         string     `json:"service"`
	Slot            string     `json:"slot"`
	Kind            string     `json:"kind"`
	LaunchToken     string     `json:"launch_token"` // empty: Join makes one
	Site            string     `json:"site,omitempty"`
	Version         string     `json:"version"`
	UnderlayAddress netip.Addr `json:"underlay_address"`        // where this node can be dialled, if it can
	Port            uint16     `json:"port"`                    // its overlay port
	PublicAddress   netip.Addr `json:"public_address,omitzero"` // as in Member
	Reach           string     `json:"reach,omitempty"`
	Succeeds        string     `json:"succeeds,omitempty"` // launch id of the holder that this node follows
	Standby         bool       `json:"standby,omitempty"`  // it has the slot only while the slot's own node is gone
}

// Status is what a member says of itself from time to time.
type Status struct {
	State     string   `json:"state"`
	Guest     Guest    `json:"guest"`
	Listeners []uint16 `json:"listeners,omitempty"`
	Relay     *Relay   `json:"relay,omitempty"`
	// NATReport comes some time after the join; never changed, only replaced.
	NATReport *NATReport `json:"nat_report,omitempty"`
	Ends      time.Time  `json:"ends,omitzero"` // when its platform makes it leave; in UTC
	Leaving   bool       `json:"leaving,omitempty"`
	Load      *Load      `json:"load,omitempty"` // never changed, only replaced
}

// Handler answers the calls of other members.
type Handler func(ctx context.Context, from uint32, in json.RawMessage) (any, error)

// Options of a session. Zero durations mean the defaults.
type Options struct {
	Network  string
	Secret   []byte
	Token    *Token   // instead of Secret
	Seeds    []string // host:port of seed-0, seed-1, ...; tried in turn
	Hello    Hello    // Join only; Network, Name and Service may be empty
	Status   Status   // Join only: the first status; default StateStarting
	Handlers map[string]Handler
	Logger   zerolog.Logger

	Heartbeat time.Duration
	Silence   time.Duration
	Dial      func(ctx context.Context, network, address string) (net.Conn, error) // nil: the kernel
}

// Types of Event.
const (
	EventJoin   = "join"
	EventUpdate = "update"
	EventLeave  = "leave"
)

// Event is one change of the member set.
type Event struct {
	Type   string `json:"type"`
	Member Member `json:"member"`
}

// LaunchID names a launch without giving its token away.
func LaunchID(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:6])
}
