// SPDX-License-Identifier: Apache-2.0

// Package transport makes TCP connections between nodes: native, direct (an
// authenticated preface to the peer's overlay port), and, for what sits behind
// NAT, relay: the guest's socket is held in SYN_SENT until the far end is
// ready, then released and spliced.
package transport

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/rs/zerolog"
)

// Control reaches the supervisor of another node (cluster.Session does).
type Control interface {
	Call(ctx context.Context, to uint32, method string, in, out any) error
}

// Members tells who is in the network. Self is the zero Member before this
// node has joined.
type Members interface {
	Self() cluster.Member
	Lookup(overlay netip.Addr) (cluster.Member, bool)
}

// Sockets is where connections that arrive for the guest go (socket.Layer).
type Sockets interface {
	// Deliver takes file over when it returns nil; an error that wraps
	// ECONNREFUSED says that nobody listens.
	Deliver(ctx context.Context, file *os.File, local, peer netip.AddrPort) error
	Listening(port uint16) bool
	Remember(cookie uint64, local, peer netip.AddrPort, family uint16)
	Connecting(local, peer netip.AddrPort) bool
}

// RelayNode is a seed that pairs connections, and where this node dials it.
type RelayNode struct {
	ID       uint32
	Endpoint string // host:port
}

// Options of a Layer.
type Options struct {
	Secret  []byte
	Members Members
	Control Control
	Sockets Sockets
	// Reach of this node: config.ReachAny ("any") or config.ReachSeeds
	// ("seeds").
	Reach string
	// Relays are the seeds this node can relay through, best first.
	Relays func() []RelayNode
	// Relay makes this node pair the connections of others (seeds).
	Relay bool
	// ServeControl gets the control connections that arrive on the overlay port
	// (TLS, nothing of it read yet) and owns them; nil: they are closed.
	ServeControl func(net.Conn)
	// HoldTimeout bounds how long a guest's connect is held; default 130 s, the
	// kernel's own limit.
	HoldTimeout time.Duration
	Logger      zerolog.Logger
}

// Layer is the transport layer of one node: endpoint, dialer and relay.
type Layer struct{}

// New makes a Layer.
func New(o Options) *Layer { panic("not yet") }

// ListenOverlay opens the one overlay port, dual-stack, with the socket
// options that a guest's connections should inherit.
func ListenOverlay(ctx context.Context, address string) (*net.TCPListener, error) {
	panic("not yet")
}

// Serve accepts on the overlay port until ctx ends and then closes ln, and
// everything that the Layer holds or relays.
func (l *Layer) Serve(ctx context.Context, ln *net.TCPListener) error { panic("not yet") }

// Publish accepts on a listener that was opened outside and delivers to the
// guest's port, for which it waits up to 5 s, until ctx ends; it closes ln.
func (l *Layer) Publish(ctx context.Context, ln net.Listener, port uint16) error { panic("not yet") }

// Class is how a connection to a member begins; the numbers are those of the
// node table.
type Class uint8

// The classes.
const (
	ClassNative Class = 1
	ClassDirect Class = 2
	ClassHold   Class = 3
)

// Classify tells how self, which has this reach, connects to peer.
func Classify(self, peer cluster.Member, reach string) Class { panic("not yet") }

// Request is a guest's wish to connect.
type Request struct {
	Cookie   uint64         // SO_COOKIE of the guest's socket
	To       netip.AddrPort // overlay
	V6       bool           // the guest's socket is AF_INET6
	Fallback bool           // a direct preface could not be queued
}

// Plan answers it. If they are set, exactly one of Held and Ended must be
// called, once (as ipc.Plan says).
type Plan struct {
	Class   Class
	Addr    netip.AddrPort // where the guest's socket connects
	Preface []byte         // what goes first, for ClassDirect
	Held    func(local netip.AddrPort)
	Ended   func(fallback bool)
}

// Connect plans a guest's connection. Errors wrap a syscall.Errno:
// ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, or ENOBUFS at a limit.
func (l *Layer) Connect(ctx context.Context, r Request) (Plan, error) { panic("not yet") }

// Handlers are the control methods this package answers, by name.
func (l *Layer) Handlers() map[string]func(ctx context.Context, from uint32, in json.RawMessage) (any, error) {
	panic("not yet")
}

// Paths counts the connections made from this node, by peer and transport.
func (l *Layer) Paths() []cluster.Path { panic("not yet") }

// SampleNative counts those native connections of a sample (local and remote
// address of each, socket.Layer.NativePeers) that no earlier one had. Call it
// every 250 ms or so.
func (l *Layer) SampleNative(sample [][2]netip.AddrPort) {}
