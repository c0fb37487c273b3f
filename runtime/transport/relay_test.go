// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"golang.org/x/sys/unix"
)

func (v *node) half(k kind, id session) *net.TCPConn {
	return v.knock(preface{kind: k, session: id}.fresh().seal(*v.key.Load()))
}

func expectPaired(t *testing.T, active net.Conn) {
	t.Helper()
	var b [1]byte
	if _, err := io.ReadFull(active, b[:]); err != nil || b[0] != paired {
		t.Fatalf("read %v, %v; want to hear that the other half is there", b, err)
	}
}

func TestRelayPairsBySession(t *testing.T) {
	v := newNetwork(t).node(seed)
	a1, a2 := v.half(kindRelayActive, session{1}), v.half(kindRelayActive, session{2})
	p2, p1 := v.half(kindRelayPassive, session{2}), v.half(kindRelayPassive, session{1})
	expectPaired(t, a1)
	expectPaired(t, a2)
	talk(t, a1, p1)
	talk(t, p2, a2)
	v.givesBack()
}

// givesBack: whoever had places at v has none any more.
func (v *node) givesBack() {
	v.t.Helper()
	r := v.Layer.relay
	eventually(v.t, "all places are given back", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.pairs == 0 && len(r.halves) == 0 && len(r.carried) == 0 && len(r.waiting) == 0
	})
}

func TestRelayRefusesAndForgets(t *testing.T) {
	v := newNetwork(t).node(seed)
	r := v.Layer.relay
	r.mu.Lock()
	r.wait, r.most = 600*time.Millisecond, 3
	r.mu.Unlock()
	first := v.half(kindRelayActive, session{1})
	waitHalves(t, v, 1)
	silent(t, "the same half twice", v.half(kindRelayActive, session{1}))
	second := v.half(kindRelayActive, session{2})
	waitHalves(t, v, 2)
	silent(t, "one half too many", v.half(kindRelayActive, session{3}))
	silent(t, "the other half does not come", first)
	silent(t, "the other half does not come", second)
	v.givesBack()
	if got := v.Usage().RelayRefused; got != 2 {
		t.Errorf("%d halves are counted as refused, want 2", got)
	}
}

func TestRelayAtItsLimitForgetsHalves(t *testing.T) {
	v := newNetwork(t).node(seed)
	r := v.Layer.relay
	r.mu.Lock()
	r.wait, r.pairs = 600*time.Millisecond, maxRelayed
	r.mu.Unlock()
	first := v.half(kindRelayActive, session{1})
	waitHalves(t, v, 1)
	silent(t, "one pair too many", v.half(kindRelayPassive, session{1}))
	silent(t, "its half expires all the same", first)
	waitHalves(t, v, 0)
}

// memberHalf is one that counts for v's node.
func (v *node) memberHalf(at *node, k kind, id session) *net.TCPConn {
	return at.knock(preface{kind: k, id: v.id, src: v.port(1), session: id}.fresh().seal(*v.key.Load()))
}

// Whoever takes all it gets leaves as many places free, for halves and for
// pairs: the next one finds some.
func TestRelayLeavesPlacesForOthers(t *testing.T) {
	n := newNetwork(t)
	v, greedy, other, third := n.node(seed), n.node(), n.node(), n.node()
	r := v.Layer.relay
	r.mu.Lock()
	r.most, r.mostPairs = 16, 8
	r.mu.Unlock()
	var begun []net.Conn
	for i := range 8 {
		begun = append(begun, greedy.memberHalf(v, kindRelayActive, session{1, byte(i)}))
		waitHalves(t, v, i+1)
	}
	silent(t, "more than half of the halves", greedy.memberHalf(v, kindRelayActive, session{1, 9}))
	waitHalves(t, v, 8)
	for i := range 4 {
		other.memberHalf(v, kindRelayPassive, session{1, byte(i)})
		expectPaired(t, begun[i])
	}
	silent(t, "more than half of the pairs", other.memberHalf(v, kindRelayPassive, session{1, 4}))
	first := third.memberHalf(v, kindRelayActive, session{2})
	waitHalves(t, v, 5)
	second := v.memberHalf(v, kindRelayPassive, session{2})
	expectPaired(t, first)
	talk(t, first, second)
}

// A half counts for the member whose address and number it names, if they belong
// together.
func TestHalvesOfNobodyShareOnesPlaces(t *testing.T) {
	n := newNetwork(t)
	v, a, b := n.node(seed), n.node(), n.node()
	for _, test := range []struct {
		p    preface
		want uint32
	}{
		{preface{id: a.id, src: a.port(1)}, a.id},
		{preface{id: b.id, src: a.port(1)}, 0},
		{preface{id: 99, src: a.port(1)}, 0},
		{preface{id: a.id, src: netip.MustParseAddrPort("100.80.9.9:1")}, 0},
	} {
		if got := v.owner(test.p); got != test.want {
			t.Errorf("number %d at %s counts for %d, want %d", test.p.id, test.p.src, got, test.want)
		}
	}
}

// A pair takes a place of each of its two.
func TestPairFitsBoth(t *testing.T) {
	r := newRelay(8)
	r.pairs, r.carried = 4, map[uint32]int{1: 4, 2: 3}
	for _, test := range []struct {
		a, b uint32
		want bool
	}{{1, 2, false}, {2, 1, false}, {2, 3, true}, {3, 2, true}} {
		if got := r.fits(test.a, test.b); got != test.want {
			t.Errorf("%d and %d: %v, want %v", test.a, test.b, got, test.want)
		}
	}
}

func TestRelayDrains(t *testing.T) {
	v := newNetwork(t).node(seed)
	open, peer := v.half(kindRelayActive, session{1}), v.half(kindRelayPassive, session{1})
	expectPaired(t, open)
	begun := v.half(kindRelayActive, session{2})
	waitHalves(t, v, 1)
	over := v.Drain()
	silent(t, "a new meeting", v.half(kindRelayActive, session{3}))
	late := v.half(kindRelayPassive, session{2})
	expectPaired(t, begun)
	talk(t, open, peer)
	eventually(t, "one pair is left", func() bool { return v.Usage().Pairs == 1 })
	select {
	case <-over:
		t.Error("drained, with an open connection")
	default:
	}
	talk(t, begun, late)
	wait(t, over)
	wait(t, v.Drain())
}

// Who waits for the other half has begun to meet.
func TestRelayDrainsWhoWaits(t *testing.T) {
	v := newNetwork(t).node(seed)
	r := v.Layer.relay
	r.mu.Lock()
	r.wait = 600 * time.Millisecond
	r.mu.Unlock()
	begun := v.half(kindRelayActive, session{1})
	waitHalves(t, v, 1)
	over := v.Drain()
	select {
	case <-over:
		t.Error("drained, with half a connection")
	default:
	}
	silent(t, "the other half does not come", begun)
	wait(t, over)
}

func loads(of ...int) func() []RelayNode {
	all := make([]RelayNode, len(of))
	for i, load := range of {
		all[i] = RelayNode{ID: uint32(i + 101), Load: load, Seed: i == 0}
	}
	return func() []RelayNode { return all }
}

func TestRelayIsTheLessLoadedOfTwo(t *testing.T) {
	n := newNetwork(t)
	a := n.node(func(_ *cluster.Member, o *Options) { o.Relays = loads(30, 10, 20) })
	b := n.node()
	first := map[uint32]int{}
	const draws = 600
	for range draws {
		a.tried.since = time.Time{} // nothing was tried lately
		first[a.pick(a.Self(), b.Self())[0].ID]++
	}
	// The most loaded of three is always beaten; the least loaded is drawn two times in three.
	if first[101] > 0 || first[102] < draws/2 || first[103] < draws/6 {
		t.Errorf("of %d meetings %v began at the relays", draws, first)
	}
	a.tried.fail(102)
	for range draws {
		a.tried.since = time.Time{}
		if all := a.pick(a.Self(), b.Self()); all[0].ID != 103 || all[2].ID != 102 {
			t.Fatalf("the relay that failed is the last: %v", all)
		}
	}
	laptop := b.Self()
	laptop.Kind = kindClient
	if all := a.pick(a.Self(), laptop); len(all) != 1 || all[0].ID != 101 {
		t.Errorf("a laptop is met at seeds: %v", all)
	}
	self, peer := a.Self(), b.Self()
	self.ID, peer.ID = 101, 103
	if all := a.pick(self, peer); len(all) != 1 || all[0].ID != 102 {
		t.Errorf("a third node is none of the two: %v", all)
	}
}

// What a relay says it carries is old: who makes many connections must not make
// all of them there until it says so.
func TestRelayGetsNoBurst(t *testing.T) {
	n := newNetwork(t)
	a := n.node(func(_ *cluster.Member, o *Options) { o.Relays = loads(10, 0) })
	b := n.node()
	first := map[uint32]int{}
	a.tried.since = time.Now().Add(time.Hour) // one moment
	for range 30 {
		first[a.pick(a.Self(), b.Self())[0].ID]++
	}
	if first[101] != 10 || first[102] != 20 {
		t.Errorf("of 30 meetings at once %v began at relays that carry 10 and 0", first)
	}
}

// A relay that is gone without a trace costs one time-out, once.
func TestRelayThatIsGoneIsAvoided(t *testing.T) {
	n := newNetwork(t)
	gone, err := dig(300)
	must(t, err)
	defer gone.close()
	n.node(seed)
	with := func(_ *cluster.Member, o *Options) {
		all := o.Relays
		o.Relays = func() []RelayNode {
			return append(all(), RelayNode{ID: 99, Endpoint: gone.addr.String(), Load: -100}) // the better one
		}
	}
	a, b := n.node(behindNAT, with), n.node(behindNAT, with)
	arrivals := b.listen(80)
	for _, most := range []time.Duration{2*relayDial + time.Second, relayDial} {
		began := time.Now()
		g := a.connect(b.port(80), false)
		in := receive(t, arrivals)
		if took := time.Since(began); took > most {
			t.Errorf("connected after %v", took)
		}
		talk(t, g.conn(), in.conn)
	}
}

func waitHalves(t *testing.T, v *node, want int) {
	t.Helper()
	r := v.Layer.relay
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := len(r.halves)
		r.mu.Unlock()
		if n == want {
			return
		}
	}
	t.Fatalf("not %d waiting halves within 20 s", want)
}

// tcpPair is the two ends of a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer ln.Close()
	a, err = net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	must(t, err)
	b, err = ln.AcceptTCP()
	must(t, err)
	for _, c := range []*net.TCPConn{a, b} {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	return a, b
}

// spliced is two connections joined: bytes from left come out at right.
func spliced(t *testing.T, ctx context.Context) (left, right *net.TCPConn, done chan struct{}) {
	left, l := tcpPair(t)
	right, r := tcpPair(t)
	l.SetDeadline(time.Time{})
	r.SetDeadline(time.Time{})
	done = make(chan struct{})
	go func() {
		defer close(done)
		splice(ctx, l, r)
	}()
	return left, right, done
}

func wait(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the splice does not end")
	}
}

// Whichever direction meets the reset first takes the socket's error away; the
// other one must not take what is left for an end.
func TestSpliceKnowsAResetWithoutItsError(t *testing.T) {
	newNetwork(t)
	left, l := tcpPair(t)
	right, r := tcpPair(t)
	reset(left)
	raw, err := l.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 5000)
		must(t, err)
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || syscall.Errno(code) != syscall.ECONNRESET {
			t.Fatalf("error of the socket: %v, %v", syscall.Errno(code), err)
		}
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		splice(context.Background(), l, r)
	}()
	if n, err := right.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v, want ECONNRESET", n, err)
	}
	wait(t, done)
}

// A reset that meets bytes on their way to it is one too: the direction that
// carries them may take the error and close, while the other one looks.
func TestSplicePassesOnAResetThatMeetsBytes(t *testing.T) {
	newNetwork(t)
	closed, _ := tcpPair(t)
	closed.Close()
	if !isGone(closed) {
		t.Error("what the other direction has closed is taken for an end")
	}
	for n := range 1000 {
		left, right, done := spliced(t, context.Background())
		wrote := make(chan error, 1)
		go func() {
			_, err := right.Write([]byte("ab"))
			wrote <- err
		}()
		for end := time.Now().Add(time.Duration(n%50) * time.Microsecond); time.Now().Before(end); {
			runtime.Gosched()
		}
		reset(left)
		_, err := right.Read(make([]byte, 1))
		if other := <-wrote; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(other, syscall.ECONNRESET) {
			t.Errorf("connection %d: read gives %v, write %v, want ECONNRESET", n, err, other)
		}
		right.Close()
		wait(t, done)
	}
}

// Who reads meets what was sent before a reset: bytes, and their end.
func TestSplicePassesOnAnEndBeforeTheReset(t *testing.T) {
	newNetwork(t)
	for _, busy := range []bool{false, true} {
		alone := 0
		for range 500 {
			left, right, done := spliced(t, context.Background())
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				for busy {
					if _, err := right.Write([]byte("ab")); err != nil {
						return
					}
				}
			}()
			must(t, left.CloseWrite())
			reset(left)
			right.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err := right.Read(make([]byte, 1))
			if !errors.Is(err, io.EOF) {
				alone++
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("neither the end nor the reset arrives")
			}
			right.Close()
			<-wrote
			wait(t, done)
		}
		t.Logf("busy %t: %d of 500 ends were lost", busy, alone)
		if !busy && alone > 0 { // a busy one may be reset before it reads, natively too
			t.Errorf("%d of 500 resets arrived without the end before them", alone)
		}
	}
}

// A peer that has closed answers what comes later with a reset, which the one
// who sent it hears of although nothing more is on its way.
func TestSpliceCarriesTheResetOfAClosedPeer(t *testing.T) {
	newNetwork(t)
	left, right, done := spliced(t, context.Background())
	right.Close()
	if got, err := io.ReadAll(left); err != nil || len(got) > 0 {
		t.Fatalf("read %q, %v", got, err)
	}
	_, err := left.Write([]byte("late"))
	must(t, err)
	wait(t, done)
	raw, err := left.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(p, 5000); err != nil || p[0].Revents&unix.POLLERR == 0 {
			t.Errorf("events %#x, %v, want an error", p[0].Revents, err)
		}
	}))
}

// The kernel takes a socket that was dialled for a connecting one until
// connect is called again; a guest that gets it must see a connected one.
func TestDialledConnectionIsConnected(t *testing.T) {
	n := newNetwork(t)
	a := n.node()
	conn, err := a.dial(context.Background(), n.on[0].UnderlayAddress.String(), preface{kind: kindDirect})
	must(t, err)
	defer conn.Close()
	raw, err := conn.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		if err := unix.Connect(int(fd), &unix.SockaddrInet4{}); !errors.Is(err, unix.EISCONN) {
			t.Errorf("connect again: %v, want EISCONN", err)
		}
	}))
}

func TestSpliceCarriesMuchAndHalfCloses(t *testing.T) {
	newNetwork(t)
	left, right, done := spliced(t, context.Background())
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	go func() {
		left.Write(want)
		left.CloseWrite()
	}()
	got, err := io.ReadAll(right)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
	}
	// The other direction is still open.
	_, err = right.Write([]byte("late"))
	must(t, err)
	right.Close()
	if got, err := io.ReadAll(left); err != nil || string(got) != "late" {
		t.Errorf("read %q, %v", got, err)
	}
	wait(t, done)
}

func TestSplicePassesResetsOn(t *testing.T) {
	newNetwork(t)
	for _, quiet := range []bool{true, false} {
		left, right, done := spliced(t, context.Background())
		if !quiet {
			// Bytes in flight that nobody reads make the close a reset.
			_, err := right.Write(make([]byte, 1000))
			must(t, err)
			readable(t, left)
			left.Close()
		} else {
			reset(left)
		}
		if _, err := right.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("quiet=%v: %v, want ECONNRESET", quiet, err)
		}
		wait(t, done)
	}
}

// readable waits until there is something to read.
func readable(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		n, err := 0, error(unix.EINTR)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		}
		if n != 1 || err != nil {
			t.Fatalf("nothing arrives: %v", err)
		}
	}))
}

func TestSpliceEndsWithItsContext(t *testing.T) {
	newNetwork(t)
	ctx, cancel := context.WithCancel(context.Background())
	left, right, done := spliced(t, ctx)
	cancel()
	wait(t, done)
	for _, conn := range []net.Conn{left, right} {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want ECONNRESET", err)
		}
	}
}

// A function may have 1,024 descriptors: idle connections hold no pipes.
func TestIdleSpliceHoldsNoPipes(t *testing.T) {
	newNetwork(t)
	left, right, done := spliced(t, context.Background())
	before := countFDs(t)
	for _, way := range [][2]net.Conn{{left, right}, {right, left}} {
		_, err := way[0].Write([]byte("ping"))
		must(t, err)
		_, err = io.ReadFull(way[1], make([]byte, 4))
		must(t, err)
	}
	now := 0
	eventually(t, "both directions wait again, without pipes", func() bool {
		dropPipes()
		now = countFDs(t)
		return now <= before
	})
	if t.Failed() {
		t.Logf("%d descriptors before, %d when idle again", before, now)
	}
	left.Close()
	right.Close()
	wait(t, done)
}

// Without descriptors for pipes the bytes go through this process.
func TestSpliceWithoutPipes(t *testing.T) {
	newNetwork(t)
	left, right, done := spliced(t, context.Background())
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	dropPipes()
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(list) / 2), Max: old.Max}))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		left.Write(want)
		left.CloseWrite()
	}()
	got, err := io.ReadAll(right)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	right.Close()
	wait(t, done)
}

// Slow readers hold pipes, of which there is a number for all: beyond it bytes go
// through this process, and descriptors are left for those who ask.
func TestPipesAreBounded(t *testing.T) {
	newNetwork(t)
	most := mostPipes
	mostPipes = 2
	defer func() { mostPipes = most }()
	var lefts, rights []*net.TCPConn
	var dones []<-chan struct{}
	for range 4 {
		left, right, done := spliced(t, context.Background())
		lefts, rights, dones = append(lefts, left), append(rights, right), append(dones, done)
	}
	before := countFDs(t)
	want := make([]byte, 16<<20) // more than anything on the way holds
	for _, left := range lefts {
		go func() {
			left.Write(want)
			left.CloseWrite()
		}()
	}
	time.Sleep(100 * time.Millisecond) // nobody reads: all are held up
	if now := countFDs(t); now > before+2*mostPipes {
		t.Errorf("%d descriptors are held up by slow readers, want %d", now-before, 2*mostPipes)
	}
	for i, right := range rights {
		right.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := io.Copy(io.Discard, right); n != int64(len(want)) || err != nil {
			t.Errorf("%d bytes of %d, %v", n, len(want), err)
		}
		right.Close()
		wait(t, dones[i])
	}
	dropPipes()
	if left := pipes.Load(); left != 0 {
		t.Errorf("%d pipes are counted", left)
	}
}
