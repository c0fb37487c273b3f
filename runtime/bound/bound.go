// SPDX-License-Identifier: Apache-2.0

// Package bound serves on loopback, and keeps who connects there from making its
// process grow.
package bound

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Loopback opens a loopback address, HOST:PORT. Errors say why it must be one, and
// with which flag another is chosen.
func Loopback(ctx context.Context, address, why, flag string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q: want HOST:PORT, as in 127.0.0.1:8000", address)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("address %q: %s", address, why)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w: choose another %s, or leave the choice of the port out with 127.0.0.1:0", err, flag)
	}
	return l, nil
}

// endTime is how long requests under way may take when the server ends.
const endTime = 2 * time.Second

// HTTP lets server answer on l, n connections at a time, until ctx ends; then it
// returns nil.
func HTTP(ctx context.Context, l net.Listener, n int, server *http.Server) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if server.Shutdown(late) != nil {
			server.Close()
		}
	})
	err := server.Serve(Listener(l, n))
	if stop() { // ctx has not ended
		server.Close()
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	<-ended
	return nil
}

// limited is a listener of which so many connections are open at a time at most.
type limited struct {
	net.Listener
	places chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Listener lets n connections be open at a time: those above wait in the kernel's
// queue.
func Listener(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: conn, free: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	free func()
}

func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
