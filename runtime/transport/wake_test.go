// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"golang.org/x/sys/unix"
)

// sleeper is one node that is started on use.
type sleeper struct {
	id    uint32
	awake chan struct{}
	fails error // instead of waking up
	asked atomic.Int32
}

func (s *sleeper) Asleep(m cluster.Member) bool {
	select {
	case <-s.awake:
		return false
	default:
		return m.ID == s.id
	}
}

func (s *sleeper) Wake(ctx context.Context, _ cluster.Member) error {
	s.asked.Add(1)
	select {
	case <-s.awake:
		return s.fails
	case <-ctx.Done():
		return fmt.Errorf("it does not come: %w", syscall.ETIMEDOUT)
	}
}

// asleep makes two nodes, the second of which sleeps.
func asleep(t *testing.T) (a, b *node, s *sleeper) {
	n := newNetwork(t)
	s = &sleeper{id: 2, awake: make(chan struct{})}
	a = n.node(func(_ *cluster.Member, o *Options) { o.Sleepers = s })
	return a, n.node(), s
}

func TestAConnectWaitsForASleeper(t *testing.T) {
	a, b, s := asleep(t)
	r := Request{Cookie: 9, To: b.port(80)}
	if _, prompt := a.Prompt(r); prompt {
		t.Error("a sleeper is connected to at once")
	}
	p, err := a.Layer.Connect(t.Context(), r)
	must(t, err)
	if p.Class != ClassHold || p.Syns != wakeSyns {
		t.Errorf("the plan is %+v", p)
	}
	p.Ended()

	g := a.connect(b.port(80), false)
	if got := g.events(200 * time.Millisecond); got != 0 {
		t.Fatalf("events %#x while it sleeps", got)
	}
	arrivals := b.listen(80)
	close(s.awake)
	talk(t, g.conn(), receive(t, arrivals).conn)
	if s.asked.Load() != 1 {
		t.Errorf("it was woken %d times", s.asked.Load())
	}
	if p, err = a.Layer.Connect(t.Context(), r); err != nil || p.Class != ClassDirect || p.Syns != 0 {
		t.Errorf("when it is awake the plan is %+v, %v", p, err)
	}
}

func TestAConnectToWhatIsNotStartedIsRefused(t *testing.T) {
	a, b, s := asleep(t)
	s.fails = fmt.Errorf("the budget is spent: %w", syscall.ECONNREFUSED)
	g := a.connect(b.port(80), false)
	eventually(t, "it is woken", func() bool { return s.asked.Load() == 1 })
	close(s.awake)
	if err := g.refused(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("it ends with %v", err)
	}
	g.close()
}

// Nobody listens on the port when it is awake.
func TestAConnectToAnotherPortOfASleeperIsRefused(t *testing.T) {
	a, b, s := asleep(t)
	b.listen(80)
	p, err := a.Layer.Connect(t.Context(), Request{Cookie: 9, To: b.port(81)})
	must(t, err)
	close(s.awake) // before anybody has gone to wake it
	g := newGuest(t, false, true)
	p.Held(g.local)
	if err := g.connect(p.Addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	if err := g.refused(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("it ends with %v", err)
	}
	g.close()
}

func TestWhatIsCarriedWakesASleeper(t *testing.T) {
	a, b, s := asleep(t)
	m, _ := a.Member(b.id)
	must(t, a.Listens(t.Context(), m, 80))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	outside, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	inside, err := ln.Accept()
	must(t, err)
	carried := make(chan error, 1)
	go func() { carried <- a.Carry(t.Context(), inside.(*net.TCPConn), m, 80) }()
	eventually(t, "it is woken", func() bool { return s.asked.Load() == 1 })
	arrivals := b.listen(80)
	close(s.awake)
	talk(t, outside, receive(t, arrivals).conn)
	must(t, <-carried)
}
