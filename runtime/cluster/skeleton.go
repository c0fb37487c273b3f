// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/rs/zerolog"
)

var errTODO = errors.New("not built yet")

// Session is a live membership (Join) or observation (Observe).
type Session struct{}

// Join makes this node a member. The session outlives ctx: end it with Leave or Close.
func Join(ctx context.Context, o Options) (*Session, error) { return nil, errTODO }

// Observe watches the network without being a member.
func Observe(ctx context.Context, o Options) (*Session, error) { return nil, errTODO }

// Self is this node as the seed knows it (the zero Member for an observer).
func (s *Session) Self() Member { return Member{} }

// CIDR is the overlay network.
func (s *Session) CIDR() netip.Prefix { return netip.Prefix{} }

// SeedEndpoint is the seed of the current (or last) connection, as given in Options.Seeds.
func (s *Session) SeedEndpoint() string { return "" }

// Connected reports whether the seed is in reach now.
func (s *Session) Connected() bool { return false }

// Members are all live members, lost ones and this one included, by id.
func (s *Session) Members() []Member { return nil }

// Member finds one by id.
func (s *Session) Member(id uint32) (Member, bool) { return Member{}, false }

// Changed receives after the member set has changed; changes coalesce.
func (s *Session) Changed() <-chan struct{} { return nil }

// Subscribe streams the current members as joins, then every change, until the function is called.
func (s *Session) Subscribe() (<-chan Event, func()) { return nil, func() {} }

// SetStatus announces the latest status; it is repeated after a reconnect.
func (s *Session) SetStatus(ctx context.Context, st Status) error { return errTODO }

// ReportPaths announces this node's counts (all of them, not differences).
func (s *Session) ReportPaths(p []Path) {}

// Paths asks the seed for all nodes' counts.
func (s *Session) Paths(ctx context.Context) ([]Path, error) { return nil, errTODO }

// Call asks node `to`, through the seed.
func (s *Session) Call(ctx context.Context, to uint32, method string, in, out any) error {
	return errTODO
}

// Handle answers other nodes' calls of method.
func (s *Session) Handle(method string, h Handler) {}

// Leave says good-bye and closes.
func (s *Session) Leave(ctx context.Context) error { return errTODO }

// Close ends the session without a word: the seed counts the node as lost.
func (s *Session) Close() error { return nil }

// Done is closed when the session has ended for good; Err then says why.
func (s *Session) Done() <-chan struct{} { return nil }

// Err is nil until Done is closed.
func (s *Session) Err() error { return nil }

// SeedOptions of NewSeed. Zero durations mean the defaults.
type SeedOptions struct {
	Network   string
	Secret    []byte
	CIDR      netip.Prefix
	StatePath string // file; empty: nothing is kept
	Lease     time.Duration
	Heartbeat time.Duration
	Silence   time.Duration
	Logger    zerolog.Logger
}

// Seed admits members and spreads the member set.
type Seed struct{}

// NewSeed takes up the state at StatePath, if there is one.
func NewSeed(o SeedOptions) (*Seed, error) { return nil, errTODO }

// ServeConn serves one TLS connection (not begun yet) until it ends.
func (s *Seed) ServeConn(conn net.Conn) {}

// Close ends all connections.
func (s *Seed) Close() error { return nil }
