// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// carryWait is how long a connection from outside waits for its far end.
const carryWait = 10 * time.Second

// Listens makes sure that m's guest listens on port; errors are those of Connect.
func (l *Layer) Listens(ctx context.Context, m cluster.Member, port uint16) error {
	if l.asleep(m) {
		return nil // who connects will see
	}
	return l.confirm(ctx, m, port)
}

// Carry joins conn, which comes from outside the overlay, to the port of m's
// guest until both directions have ended, or ctx has. It takes conn over; an
// error says why the far end could not be made, and conn was reset.
func (l *Layer) Carry(ctx context.Context, conn *net.TCPConn, m cluster.Member, port uint16) error {
	began := time.Now()
	self, m, err := l.awake(ctx, m)
	var far far
	if err == nil {
		src := netip.AddrPortFrom(self.OverlayAddress, remote(conn).Port())
		far, err = l.farFor(ctx, m, src, netip.AddrPortFrom(m.OverlayAddress, port))
	}
	if err == nil {
		err = far.begin()
	}
	if err != nil {
		if far.conn != nil {
			reset(far.conn)
		}
		reset(conn)
		l.gaveUp(m, err)
		return err
	}
	l.paths.made(m.ID, far.path, time.Since(began))
	splice(ctx, conn, far.conn)
	return nil
}

// farFor makes the far end; what a refusal does not settle is tried again.
func (l *Layer) farFor(ctx context.Context, m cluster.Member, src, dst netip.AddrPort) (far, error) {
	ctx, cancel := context.WithTimeout(ctx, carryWait)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := l.confirm(ctx, m, dst.Port())
		if err == nil {
			var f far
			self, now := l.latest(m)
			m = now
			if f, err = l.reach(ctx, self, m, src, dst); err == nil {
				return f, nil
			}
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return far{}, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return far{}, fmt.Errorf("not connected within %s: %w", carryWait, err)
		}
	}
}
