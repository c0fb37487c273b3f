// SPDX-License-Identifier: Apache-2.0

// Package socket is the guest's sockets as the guest sees them: which kernel
// listeners it has, the connections that arrived for them another way and
// wait in queues, the signal connections that make the kernel wake the guest
// for these, and both addresses of every connection that the kernel shows
// differently.
package socket

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/boxer-overlay/boxer/runtime/ipc"
	"github.com/rs/zerolog"
)

// Options of a Layer.
type Options struct {
	// Underlay is the address natively arriving connections are addressed to;
	// signal connections go there as well. The zero Addr: loopback.
	Underlay netip.Addr
	// Adopt takes up the listeners that exist already when Run starts: those of
	// a guest that outlived the supervisor before this one. Listeners of this
	// process are left alone. Off on a machine shared with other programs.
	Adopt bool
	// Exclude are ports that no guest's listener is taken up on (the overlay
	// port).
	Exclude []uint16
	// Sweep is the time between looks at the kernel's list of sockets; default
	// 250 ms.
	Sweep time.Duration
	// QueueWait bounds how long Deliver waits while a queue is full; default
	// 10 s.
	QueueWait time.Duration
	Logger    zerolog.Logger
}

// ErrRefused says that nobody listens. It wraps ECONNREFUSED.
var ErrRefused = errors.New("nobody listens")

// Layer is the socket layer of one node. It answers the socket half of
// ipc.Handler: Listen, Accept and Address.
type Layer struct{}

// New makes a Layer; Run makes it work.
func New(o Options) *Layer { panic("not yet") }

// SetUnderlay replaces Options.Underlay (known only after joining).
func (l *Layer) SetUnderlay(a netip.Addr) {}

// Run adopts existing listeners if asked to and sweeps until ctx ends; then it
// resets what is still queued.
func (l *Layer) Run(ctx context.Context) error { panic("not yet") }

// Deliver queues a connection for the guest's listener at local (an overlay
// address) and returns. With a nil error the Layer owns file; else it stays
// the caller's (to reset): ErrRefused when nobody listens on the port, another
// error when the queue stayed full.
func (l *Layer) Deliver(ctx context.Context, file *os.File, local, peer netip.AddrPort) error {
	panic("not yet")
}

// Listening tells whether the guest has a listener on port that Deliver
// reaches.
func (l *Layer) Listening(port uint16) bool { panic("not yet") }

// Listeners are the ports that Deliver reaches, ascending.
func (l *Layer) Listeners() []uint16 { panic("not yet") }

// Changed receives after Listeners has changed; changes are merged. It has
// one reader.
func (l *Layer) Changed() <-chan struct{} { panic("not yet") }

// Remember notes what the guest should see for the socket with this cookie
// until the socket is gone. A port of 0 stands for the kernel's. family is
// AF_INET, AF_INET6 or 0.
func (l *Layer) Remember(cookie uint64, local, peer netip.AddrPort, family uint16) {}

// Connecting tells whether the kernel has a socket that waits in SYN_SENT from
// local to peer. When the kernel cannot say, it says yes.
func (l *Layer) Connecting(local, peer netip.AddrPort) bool { panic("not yet") }

// NativePeers are the local and remote addresses of the connections, open or
// in TIME_WAIT, that were made from this network namespace (their local port
// has no listener).
func (l *Layer) NativePeers() ([][2]netip.AddrPort, error) { panic("not yet") }

// Listen implements ipc.Handler.
func (l *Layer) Listen(ctx context.Context, r ipc.ListenRequest) error { panic("not yet") }

// Accept implements ipc.Handler.
func (l *Layer) Accept(ctx context.Context, r ipc.AcceptRequest) (ipc.Accepted, func(taken bool), error) {
	panic("not yet")
}

// Address implements ipc.Handler.
func (l *Layer) Address(ctx context.Context, cookie uint64) (ipc.Addresses, error) {
	panic("not yet")
}
