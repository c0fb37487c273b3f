// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	maxPublished = 256             // connections that wait for a listener, for one port
	publishWait  = 5 * time.Second // for a listener
	publishRetry = 25 * time.Millisecond
)

// Publish accepts on a listener that was opened outside and delivers to the
// guest's port, for which it waits up to 5 s, until ctx ends; then it closes
// ln and returns nil. With from, connections from elsewhere are reset.
func (l *Layer) Publish(ctx context.Context, ln net.Listener, port uint16, from ...netip.Prefix) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	waiting := make(chan struct{}, maxPublished)
	for {
		conn, err := accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("published port %d: %w", port, err)
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			conn.Close()
			return fmt.Errorf("published port %d: the listener is not a TCP one", port)
		}
		if !allowed(from, remote(tcp).Addr()) || !enter(waiting) {
			reset(tcp)
			continue
		}
		running.Go(func() {
			defer leave(waiting)
			l.publish(ctx, tcp, port)
		})
	}
}

func allowed(from []netip.Prefix, peer netip.Addr) bool {
	return len(from) == 0 || slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Contains(peer.Unmap()) })
}

func (l *Layer) publish(ctx context.Context, conn *net.TCPConn, port uint16) {
	peer := remote(conn)
	fd, err := plain(conn, false)
	if err != nil {
		reset(conn)
		return
	}
	local := netip.AddrPortFrom(l.o.Members.Self().OverlayAddress, port)
	if err := l.deliverSoon(ctx, fd, local, peer, syscall.ECONNREFUSED, syscall.EMFILE); err != nil {
		l.o.Logger.Debug().Err(err).Uint16("port", port).Msg("connection to a published port is reset")
		resetPlain(fd)
	}
}

// deliverSoon delivers, and tries again while that fails for one of these reasons.
func (l *Layer) deliverSoon(ctx context.Context, fd int, local, peer netip.AddrPort, reasons ...syscall.Errno) error {
	for end := time.Now().Add(publishWait); ; {
		err := l.o.Sockets.Deliver(ctx, fd, local, peer)
		passing := func(reason syscall.Errno) bool { return errors.Is(err, reason) }
		if !slices.ContainsFunc(reasons, passing) || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(publishRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
