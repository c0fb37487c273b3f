// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Several processes accept from one listener while more connections arrive
// than its backlog holds; now and then one cannot be taken. Each is served
// exactly once.
func TestManyArrivalsManyAcceptors(t *testing.T) {
	const arrivals, acceptors = 400, 4
	l := start(t, nil)
	g := listen(t, l, "0.0.0.0", 0, 8)
	stop := make(chan struct{})
	var served sync.WaitGroup
	for n := range acceptors {
		served.Go(func() {
			for turn := n; ; turn++ {
				if !g.wait(20 * time.Millisecond) {
					select {
					case <-stop:
						return
					default:
						continue
					}
				}
				conn, _, err := g.acceptAnd(turn%7 != 0)
				switch {
				case errors.Is(err, unix.EAGAIN) || errors.Is(err, errStale) || (err == nil && conn == nil):
				case err != nil:
					t.Error(err)
				default:
					conn.WriteString("x")
					conn.Close()
				}
			}
		})
	}
	var clients sync.WaitGroup
	gate := make(chan struct{}, 64)
	for range arrivals {
		gate <- struct{}{}
		here, far := arrival(t)
		clients.Go(func() {
			defer func() { <-gate }()
			defer far.Close()
			if err := l.Deliver(context.Background(), here, netip.AddrPortFrom(overlay, g.port), peer); err != nil {
				t.Error(err)
				return
			}
			var b [2]byte
			if n, err := far.Read(b[:]); n != 1 || err != nil {
				t.Errorf("read %d bytes, %v", n, err)
			}
		})
	}
	clients.Wait()
	close(stop)
	served.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.queues[g.port]; len(l.signals) != 0 || (q != nil && len(q.items)+q.inHand != 0) {
		t.Errorf("%d signals and %+v are left", len(l.signals), q)
	}
}
