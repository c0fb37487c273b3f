// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Several processes accept from one listener while more connections arrive
// than its backlog holds; now and then one cannot be taken. Each is served
// exactly once.
func TestManyArrivalsManyAcceptors(t *testing.T) {
	const arrivals, acceptors = 400, 4
	var spent budget
	l := start(t, func(o *Options) { o.Budget = &spent })
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
	if left := spent.taken.Load(); left != 0 {
		t.Errorf("%d descriptors are not given back", left)
	}
}

// budget is one of most descriptors, or without an end.
type budget struct{ taken, most atomic.Int64 }

func (b *budget) Take(n int) bool {
	if most := b.most.Load(); most > 0 && b.taken.Load()+int64(n) > most {
		return false
	}
	b.taken.Add(int64(n))
	return true
}

func (b *budget) Give(n int) { b.taken.Add(int64(-n)) }

// Connections that wait cost descriptors, until they wait no more: they are taken,
// reset with their listener, or given up as the queue is full.
func TestWaitingConnectionsAreBoundedByDescriptors(t *testing.T) {
	var spent budget
	spent.most.Store(3 * itemNeeds)
	l := start(t, func(o *Options) { o.Budget, o.QueueWait = &spent, 10*time.Millisecond })
	g := listen(t, l, "0.0.0.0", 0, 2)
	deliver := func() error {
		here, _ := arrival(t)
		err := l.Deliver(context.Background(), here, netip.AddrPortFrom(overlay, g.port), peer)
		if err != nil {
			unix.Close(here)
		}
		return err
	}
	for range 2 {
		must(t, deliver())
	}
	if err := deliver(); !errors.Is(err, ErrFull) {
		t.Errorf("to a full queue: %v", err)
	}
	spent.most.Store(2 * itemNeeds)
	if err := deliver(); !errors.Is(err, ErrShort) {
		t.Errorf("without descriptors: %v", err)
	}
	if !g.wait(5 * time.Second) {
		t.Fatal("not woken")
	}
	conn, _, err := g.accept()
	must(t, err)
	conn.Close()
	must(t, deliver())
	g.close()
	for end := time.Now().Add(5 * time.Second); spent.taken.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if left := spent.taken.Load(); left != 0 {
		t.Errorf("%d descriptors are not given back", left)
	}
}
