// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

func TestJoinGivesIDsAddressesAndMembers(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	a := join(t, seed.options("store"))
	o := seed.options("logic-0")
	o.Hello.Name, o.Hello.UnderlayAddress = "logic", netip.MustParseAddr("169.254.100.6")
	b := join(t, o)

	if self := a.Self(); self.ID != 1 || self.OverlayAddress.String() != "100.80.0.1" || self.NAT != NATNone || self.State != StateStarting {
		t.Errorf("first member is %+v", self)
	}
	self := b.Self()
	if self.ID != 2 || self.OverlayAddress.String() != "100.80.0.2" || self.NAT != NATBehind || self.Service != "logic" || self.LaunchID == "" {
		t.Errorf("second member is %+v", self)
	}
	if n := len(b.Members()); n != 2 {
		t.Errorf("the second member sees %d members after its join, want 2", n)
	}
	eventually(t, "the first sees the second", func() bool { return len(a.Members()) == 2 })
	if a.CIDR().String() != "100.80.0.0/16" || a.SeedEndpoint() != seed.address {
		t.Errorf("CIDR %s, seed %s", a.CIDR(), a.SeedEndpoint())
	}
}

func TestStatusSpreadsAndLeaveEndsMembership(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	a, b := join(t, seed.options("a")), join(t, seed.options("b"))
	watcher, err := Observe(t.Context(), seed.options(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watcher.Close() })
	events, stop := watcher.Subscribe()
	defer stop()

	if err := b.SetStatus(t.Context(), Status{State: StateRunning, Guest: Guest{State: GuestRunning, PID: 7}, Listeners: []uint16{80}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a sees b run", func() bool {
		m, _ := a.Member(b.Self().ID)
		return m.State == StateRunning && m.Guest.PID == 7 && len(m.Listeners) == 1
	})
	id := b.Self().ID
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a sees b gone", func() bool { return stateOf(a, id) == "absent" })
	if err := b.SetStatus(t.Context(), Status{State: StateRunning}); !errors.Is(err, ErrClosed) {
		t.Errorf("a status after leaving gives %v", err)
	}

	var seen []string
	for len(seen) == 0 || seen[len(seen)-1] != EventLeave {
		select {
		case e := <-events:
			seen = append(seen, e.Type)
		case <-time.After(30 * time.Second):
			t.Fatalf("no leave event after %v", seen)
		}
	}
	if seen[0] != EventJoin || seen[1] != EventJoin {
		t.Errorf("events %v do not begin with the members present", seen)
	}
}

func TestObserverIsNoMember(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	a := join(t, seed.options("a"))
	a.Handle("hello", func(_ context.Context, from uint32, _ json.RawMessage) (any, error) { return from, nil })
	w, err := Observe(t.Context(), seed.options(""))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if w.Self().ID != 0 || len(w.Members()) != 1 {
		t.Errorf("observer: self %+v, members %v", w.Self(), w.Members())
	}
	from := uint32(99)
	if err := w.Call(t.Context(), a.Self().ID, "hello", nil, &from); err != nil || from != 0 {
		t.Errorf("call of an observer: from %d, %v", from, err)
	}
	a.ReportPaths([]Path{{To: 2, Transport: "native", Count: 3}})
	eventually(t, "the path is known", func() bool {
		p, err := w.Paths(t.Context())
		return err == nil && len(p) == 1 && p[0] == Path{From: 1, To: 2, Transport: "native", Count: 3}
	})
	if err := a.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the path has the last name of the one that left", func() bool {
		p, err := w.Paths(t.Context())
		return err == nil && len(p) == 1 && p[0].FromLeft == "a" && p[0].ToLeft == ""
	})
}

// What is sent into a link that is cut is lost: who waits long for an answer to
// it comes back long after the mending.
func TestComingBackWaitsForNoAnswerForLong(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	o := seed.options("a")
	conns, waits := make(chan net.Conn, 1), make(chan time.Duration, 16)
	var cut atomic.Bool
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if cut.Load() {
			deadline, _ := ctx.Deadline()
			select {
			case waits <- time.Until(deadline):
			default:
			}
			return nil, context.DeadlineExceeded
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		conns <- conn
		return conn, err
	}
	a := join(t, o)
	cut.Store(true)
	(<-conns).Close()
	for range 3 {
		if wait := <-waits; wait > shortDial {
			t.Errorf("an answer is awaited for %v", wait)
		}
	}
	cut.Store(false)
	eventually(t, "it is back", a.Connected)
}

func TestCallsAreRoutedBetweenMembers(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	a := join(t, seed.options("a"))
	o := seed.options("b")
	o.Handlers = map[string]Handler{
		"double": func(_ context.Context, from uint32, in json.RawMessage) (any, error) {
			var n int
			if err := json.Unmarshal(in, &n); err != nil {
				return nil, err
			}
			return fmt.Sprintf("%d for %d", 2*n, from), nil
		},
		"fail": func(context.Context, uint32, json.RawMessage) (any, error) { return nil, remoteErrorf("busy", "later") },
		"sleep": func(ctx context.Context, _ uint32, _ json.RawMessage) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	b := join(t, o)
	var out string
	if err := a.Call(t.Context(), b.Self().ID, "double", 21, &out); err != nil || out != "42 for 1" {
		t.Errorf("call: %q, %v", out, err)
	}
	var remote *RemoteError
	if err := a.Call(t.Context(), b.Self().ID, "fail", nil, nil); !errors.As(err, &remote) || remote.Code != "busy" {
		t.Errorf("a refusing handler gives %v", err)
	}
	if err := a.Call(t.Context(), b.Self().ID, "nothing", nil, nil); !errors.As(err, &remote) || remote.Code != CodeBadRequest {
		t.Errorf("an unknown method gives %v", err)
	}
	if err := a.Call(t.Context(), 77, "double", 1, nil); !errors.Is(err, ErrNoSuchNode) {
		t.Errorf("an absent node gives %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := a.Call(ctx, b.Self().ID, "sleep", nil, nil); err == nil || time.Since(start) > 3*time.Second {
		t.Errorf("a call without an answer gives %v after %v", err, time.Since(start))
	}
}

func TestNameTaken(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	first := join(t, seed.options("store"))
	_, err := Join(t.Context(), seed.options("store"))
	if !errors.Is(err, ErrNameTaken) {
		t.Fatalf("a second holder of a name gets %v", err)
	}
	want := fmt.Sprintf(`join network "shop": seed %s: name "store" is taken by node 1 (vm, since %s): choose another name, or stop that node first`,
		seed.address, first.Self().Since.Local().Format(time.DateTime))
	if err.Error() != want {
		t.Errorf("message:\n%s\nwant:\n%s", err, want)
	}
}

func TestSuccessorTakesTheAddressWithANewID(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	watcher := join(t, seed.options("watcher"))
	first := join(t, seed.options("store"))
	before := first.Self()
	if err := first.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := join(t, seed.options("store")).Self()
	if after.OverlayAddress != before.OverlayAddress || after.ID == before.ID {
		t.Errorf("successor of %+v is %+v", before, after)
	}
	eventually(t, "only the successor is left", func() bool {
		return stateOf(watcher, before.ID) == "absent" && stateOf(watcher, after.ID) == StateStarting
	})
}

func TestSameLaunchResumesAndReplaces(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	o := seed.options("store")
	o.Hello.LaunchToken = "launch one"
	// The process before is silent, and hears all the same: one that answers stays.
	var mute muteConn
	silent := o
	silent.Heartbeat, silent.Silence, silent.Dial = time.Hour, time.Hour, mute.dial
	first := join(t, silent)
	if _, err := Join(t.Context(), o); !errors.Is(err, ErrRefused) {
		t.Errorf("the same launch, while the first process answers, gets %v", err)
	}
	mute.silence()
	second := join(t, o)
	if first.Self().ID != second.Self().ID || first.Self().OverlayAddress != second.Self().OverlayAddress {
		t.Errorf("the same launch got %+v, then %+v", first.Self(), second.Self())
	}
	select {
	case <-first.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the older process of the launch goes on")
	}
	if !errors.Is(first.Err(), ErrReplaced) {
		t.Errorf("the older session ended with %v", first.Err())
	}
	if stateOf(second, second.Self().ID) != StateStarting {
		t.Errorf("the newer one is %s", stateOf(second, second.Self().ID))
	}
	o = seed.options("other")
	o.Hello.LaunchToken = "launch one"
	if _, err := Join(t.Context(), o); !errors.Is(err, ErrRefused) {
		t.Errorf("a launch token used for another slot gives %v", err)
	}
}

func TestAFunctionLaunchThatEndedIsNotReborn(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	o := seed.options("logic-0")
	o.Hello.Kind, o.Hello.LaunchToken = "function", "one use"
	if err := join(t, o).Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), o); !errors.Is(err, ErrRefused) {
		t.Errorf("a repeated launch event gives %v", err)
	}
	o.Hello.LaunchToken = "the next"
	join(t, o)
}

// A node that ends says how its guest ended and leaves at once: both in one batch.
func TestLastWordsOfALeaverAreHeard(t *testing.T) {
	o := testOptions(t)
	o.Batch = 100 * time.Millisecond
	seed := startSeed(t, o, "127.0.0.1:0")
	watcher, err := Observe(t.Context(), seed.options(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watcher.Close() })
	node := join(t, seed.options("short"))
	eventually(t, "the watcher sees it", func() bool { return stateOf(watcher, node.Self().ID) != "absent" })
	events, stop := watcher.Subscribe()
	defer stop()

	code := 7
	if err := node.SetStatus(t.Context(), Status{State: StateExited, Guest: Guest{State: GuestExited, ExitCode: &code}}); err != nil {
		t.Fatal(err)
	}
	if err := node.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-events:
			if e.Type != EventLeave {
				continue
			}
			if g := e.Member.Guest; g.ExitCode == nil || *g.ExitCode != code {
				t.Errorf("the leaver's guest is %+v, want exit code %d", g, code)
			}
			return
		case <-time.After(30 * time.Second):
			t.Fatal("no leave event")
		}
	}
}
