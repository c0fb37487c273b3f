// SPDX-License-Identifier: Apache-2.0

package consensus

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream is Raft's way to the other replicas: streams that somebody else dials,
// accepts and authenticates. Replicas are addressed by name.
type stream struct {
	self     string
	dial     func(ctx context.Context, voter string) (net.Conn, error)
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newStream(self string, dial func(context.Context, string) (net.Conn, error)) *stream {
	return &stream{self: self, dial: dial, incoming: make(chan net.Conn), closed: make(chan struct{})}
}

func (s *stream) serve(conn net.Conn) {
	c := &served{Conn: conn, done: make(chan struct{})}
	defer c.Close()
	select {
	case s.incoming <- c:
		<-c.done // Raft ends every connection when it is closed
	case <-s.closed:
	}
}

// Accept implements net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.incoming:
		return c, nil
	case <-s.closed:
		return nil, errClosed
	}
}

// Close implements net.Listener.
func (s *stream) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// Addr implements net.Listener.
func (s *stream) Addr() net.Addr { return name(s.self) }

// Dial implements raft.StreamLayer.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.dial(ctx, string(address))
}

type name string

func (name) Network() string  { return "seed" }
func (n name) String() string { return string(n) }

// served tells when its connection is closed.
type served struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

func (c *served) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}
