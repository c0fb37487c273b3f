// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"context"
	"net/netip"
	"os"
)

// Handler answers process monitors. An error that wraps a syscall.Errno
// reaches the guest as that errno, any other one as EIO. The context ends with
// the monitor's connection or its deadline.
type Handler interface {
	// Table is the sealed memory file; it stays the handler's. Must not wait.
	Table(ctx context.Context) (*os.File, error)
	// Listen announces a kernel listener of the guest.
	Listen(ctx context.Context, r ListenRequest) error
	// Connect plans a connection.
	Connect(ctx context.Context, r ConnectRequest) (Plan, error)
	// Prompt plans a connection if that needs no waiting, with a plan that has
	// no functions. Must not wait.
	Prompt(r ConnectRequest) (Plan, bool)
	// Accept fetches the connection that a signal connection stands for. The
	// descriptor is only lent: done is called exactly once, with true when the
	// monitor has taken it over and with false when it must stay queued. Neither
	// may wait.
	Accept(ctx context.Context, r AcceptRequest) (a Accepted, done func(taken bool), err error)
	// Address is what the guest should see for a socket; ENOENT: what the
	// kernel says.
	Address(ctx context.Context, cookie uint64) (Addresses, error)
}

// ListenRequest says that listen() succeeded on a guest's socket.
type ListenRequest struct {
	Cookie  uint64
	Addr    netip.AddrPort // as bound
	Backlog int
	PID     int
	V6      bool // an AF_INET6 socket
	V6Only  bool
}

// ConnectRequest asks how to reach an overlay address.
type ConnectRequest struct {
	Cookie   uint64
	To       netip.AddrPort
	PID      int
	Nonblock bool
	V6       bool
	Fallback bool // the preface of a direct plan could not be queued
	Bound    bool // the socket has an address or a port
}

// Plan is the answer. If the functions are set (both are, or none), exactly
// one of them is called, once.
type Plan struct {
	Action  Action
	Addr    netip.AddrPort
	Preface []byte // of a direct plan
	Local   uint16 // of a direct plan: the local port to use; 0: any
	Syns    uint16 // of a held one: how often the kernel sends the SYN again; 0: as usual
	// Held: the guest's socket is bound to local and about to connect to Addr.
	// Must not block.
	Held func(local netip.AddrPort)
	// Ended: the monitor went away.
	Ended func()
}

// AcceptRequest says that a signal connection was accepted.
type AcceptRequest struct {
	Cookie uint64         // of the listener
	Signal netip.AddrPort // the signal connection's source: its token
	PID    int
	V6     bool
}

// Accepted is a real connection for the guest.
type Accepted struct {
	FD int
	Addresses
}

// Addresses are both ends of a connection as the guest should see them. A
// port of 0 stands for the kernel's.
type Addresses struct {
	Local, Peer netip.AddrPort
	Family      uint16 // AF_INET or AF_INET6: what the guest expects; 0 unknown
}
