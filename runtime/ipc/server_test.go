// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/events"
	"golang.org/x/sys/unix"
)

// fake records what the server asks of it.
type fake struct {
	file   *os.File
	events chan string
	listen chan ListenRequest
}

func (f *fake) Table(context.Context) (*os.File, error) { return f.file, nil }

func (f *fake) Listen(_ context.Context, r ListenRequest) error {
	f.listen <- r
	return fmt.Errorf("no room: %w", syscall.ENOSPC)
}

func (f *fake) Connect(_ context.Context, r ConnectRequest) (Plan, error) {
	switch {
	case r.To.Port() == 1:
		return Plan{}, syscall.ECONNREFUSED
	case !r.Fallback:
		return Plan{Action: ActionDirect, Addr: ap("100.64.1.2:7717"), Preface: []byte("hello")}, nil
	}
	return Plan{
		Action: ActionHold, Addr: ap("127.67.0.1:9"),
		Held:  func(local netip.AddrPort) { f.events <- "held " + local.String() },
		Ended: func() { f.events <- "ended" },
	}, nil
}

func (f *fake) Prompt(r ConnectRequest) (Plan, bool) {
	return Plan{Action: ActionDirect, Addr: ap("100.64.1.3:7717"), Preface: []byte("at once"), Local: 40001}, r.To.Port() == 2
}

func (f *fake) Accept(_ context.Context, r AcceptRequest) (Accepted, func(bool), error) {
	if r.Signal.Port() == 1 {
		return Accepted{}, nil, syscall.ENOENT
	}
	return Accepted{FD: int(f.file.Fd()), Addresses: Addresses{Local: ap("100.80.0.3:80"), Peer: ap("100.80.0.4:1234"), Family: syscall.AF_INET6}},
		func(taken bool) { f.events <- fmt.Sprint("done ", taken) }, nil
}

func (f *fake) Address(_ context.Context, cookie uint64) (Addresses, error) {
	return Addresses{}, fmt.Errorf("cookie %d: broken", cookie)
}

type rig struct {
	*fake
	name   string
	tokens Tokens
	stop   func()
}

func start(t *testing.T) *rig {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(file, "content")
	name := fmt.Sprintf("boxer-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	ln, err := Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{fake: &fake{file: file, events: make(chan string, 100), listen: make(chan ListenRequest, 1)}, name: name, tokens: NewTokens()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, r.tokens, r.fake) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		file.Close()
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: "@" + r.name, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	return conn
}

func (r *rig) send(t *testing.T, conn *net.UnixConn, q Request) {
	t.Helper()
	q.Token = r.tokens.Monitor
	if _, err := conn.Write(AppendRequest(nil, q)); err != nil {
		t.Fatal(err)
	}
}

// ask sends q and returns the answer, with the descriptor it carried or -1.
func (r *rig) ask(t *testing.T, conn *net.UnixConn, q Request) (Response, int) {
	t.Helper()
	r.send(t, conn, q)
	var buf [300]byte
	var oob [64]byte
	n, oobn, _, _, err := conn.ReadMsgUnix(buf[:], oob[:])
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseResponse(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	if p.Token != r.tokens.Supervisor || p.Op != q.Op {
		t.Fatalf("answer %+v to operation %d: not of this supervisor", p, q.Op)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return p, -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v, %v", fds, err)
	}
	return p, fds[0]
}

func (r *rig) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-r.events:
		if got != want {
			t.Errorf("handler saw %q, want %q", got, want)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("handler did not see %q", want)
	}
}

func TestTableComesWithItsFile(t *testing.T) {
	r := start(t)
	p, fd := r.ask(t, r.dial(t), Request{Op: OpTable})
	if p.Err != 0 || fd < 0 {
		t.Fatalf("%+v, descriptor %d", p, fd)
	}
	defer unix.Close(fd)
	var b [16]byte
	if n, err := unix.Pread(fd, b[:], 0); err != nil || string(b[:n]) != "content" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}

func TestErrnosReachTheGuest(t *testing.T) {
	r := start(t)
	for _, test := range []struct {
		q    Request
		want syscall.Errno
	}{
		{Request{Op: OpListen, Cookie: 7, Addr: ap("0.0.0.0:80"), Backlog: 5, PID: 9, Flags: FlagV6 | FlagV6Only}, syscall.ENOSPC},
		{Request{Op: OpConnect, Addr: ap("100.80.0.2:1")}, syscall.ECONNREFUSED},
		{Request{Op: OpAccept, Addr: ap("127.66.0.1:1")}, syscall.ENOENT},
		{Request{Op: OpAddress, Cookie: 7}, syscall.EIO},
	} {
		if p, fd := r.ask(t, r.dial(t), test.q); p.Err != test.want || fd != -1 {
			t.Errorf("operation %d: %v (descriptor %d), want %v", test.q.Op, p.Err, fd, test.want)
		}
	}
	want := ListenRequest{Cookie: 7, Addr: ap("0.0.0.0:80"), Backlog: 5, PID: 9, V6: true, V6Only: true}
	if got := <-r.listen; got != want {
		t.Errorf("listen request %+v, want %+v", got, want)
	}
}

func TestConnectPlans(t *testing.T) {
	r := start(t)
	to := Request{Op: OpConnect, Addr: ap("100.80.0.2:80")}
	p, _ := r.ask(t, r.dial(t), to)
	if p.Action != ActionDirect || string(p.Preface) != "hello" || p.Addr != ap("100.64.1.2:7717") {
		t.Errorf("plan %+v", p)
	}
	prompt := to
	prompt.Addr = ap("100.80.0.2:2")
	if p, _ = r.ask(t, r.dial(t), prompt); p.Action != ActionDirect || string(p.Preface) != "at once" || p.Local.Port() != 40001 {
		t.Errorf("prompt plan %+v", p)
	}
	to.Flags = FlagFallback
	conn := r.dial(t)
	if p, _ = r.ask(t, conn, to); p.Action != ActionHold {
		t.Errorf("fallback plan %+v", p)
	}
	r.send(t, conn, Request{Op: OpHeld, Addr: ap("127.0.0.1:4000")})
	r.expect(t, "held 127.0.0.1:4000")

	conn = r.dial(t)
	r.ask(t, conn, to)
	conn.Close()
	r.expect(t, "ended")
}

func TestAcceptIsAcknowledgedOrNot(t *testing.T) {
	r := start(t)
	q := Request{Op: OpAccept, Addr: ap("127.66.0.1:4000")}
	finish := map[string]func(*net.UnixConn){
		"ack":   func(c *net.UnixConn) { r.send(t, c, Request{Op: OpAck}) },
		"nak":   func(c *net.UnixConn) { r.send(t, c, Request{Op: OpNak}) },
		"close": func(c *net.UnixConn) { c.Close() },
		"junk":  func(c *net.UnixConn) { c.Write([]byte("junk")) },
	}
	for name, end := range finish {
		conn := r.dial(t)
		p, fd := r.ask(t, conn, q)
		if p.Local != ap("100.80.0.3:80") || p.Peer != ap("100.80.0.4:1234") || p.Family != syscall.AF_INET6 || fd < 0 {
			t.Errorf("%s: accepted %+v, descriptor %d", name, p, fd)
		}
		unix.Close(fd)
		end(conn)
		r.expect(t, fmt.Sprint("done ", name == "ack"))
	}
}

func TestStrangersGetNoAnswer(t *testing.T) {
	r := start(t)
	good := AppendRequest(nil, Request{Op: OpTable, Token: r.tokens.Monitor})
	wrong := AppendRequest(nil, Request{Op: OpTable, Token: r.tokens.Supervisor})
	for name, frame := range map[string][]byte{"wrong token": wrong, "short": good[:95], "long": append(good[:96:96], 0)} {
		conn := r.dial(t)
		conn.Write(frame)
		if n, err := conn.Read(make([]byte, 300)); n != 0 || err == nil {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

// Who connects and says nothing keeps nobody out.
func TestSilentStrangersAreSentAway(t *testing.T) {
	r := start(t)
	for range maxConns + 100 {
		r.dial(t)
	}
	for range 10 {
		conn := r.dial(t)
		conn.SetDeadline(time.Now().Add(stepTimeout / 2))
		if p, _ := r.ask(t, conn, Request{Op: OpConnect, Addr: ap("100.80.0.2:1")}); p.Err != syscall.ECONNREFUSED {
			t.Errorf("%+v", p)
		}
	}
}

// A crowd of monitors is not taken for strangers.
func TestCrowdIsServed(t *testing.T) {
	r := start(t)
	var conns []*net.UnixConn
	for range maxConns + 100 {
		conn := r.dial(t)
		r.send(t, conn, Request{Op: OpConnect, Addr: ap("100.80.0.2:1")})
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		var buf [300]byte
		if n, err := conn.Read(buf[:]); n != ResponseSize {
			t.Fatalf("monitor %d gets %d bytes, %v", i, n, err)
		}
	}
}

// FuzzSession sends a server three packets as no monitor would; some with the
// right token, so that it looks at the rest.
func FuzzSession(f *testing.F) {
	tokens := NewTokens()
	for _, q := range []Request{goldenRequest(), {Op: OpConnect, Addr: ap("100.80.0.2:80")}, {Op: OpAccept, Addr: ap("127.66.0.1:4000")}, {Op: OpTable}} {
		frame := AppendRequest(nil, q)
		f.Add(frame, frame, frame[:95], true)
		f.Add(frame, AppendRequest(nil, Request{Op: OpHeld, Addr: ap("127.0.0.1:9")}), []byte{1}, true)
		f.Add(frame, AppendRequest(nil, Request{Op: OpConnect, Flags: FlagFallback}), AppendRequest(nil, Request{Op: OpAck}), true)
	}
	f.Add([]byte{}, []byte("GET / HTTP/1.0\r\n\r\n"), make([]byte, 4096), false)
	file, err := os.CreateTemp(f.TempDir(), "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { file.Close() }) // after the server has ended
	name := fmt.Sprintf("boxer-fuzz-%d-%d", os.Getpid(), time.Now().UnixNano())
	ln, err := Listen(name)
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	h := &fake{file: file, events: make(chan string, 10), listen: make(chan ListenRequest, 10)}
	go func() { done <- Serve(ctx, ln, tokens, h) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	go func() {
		for {
			select {
			case <-h.events:
			case <-h.listen:
			case <-ctx.Done():
				return
			}
		}
	}()
	f.Fuzz(func(t *testing.T, first, second, third []byte, known bool) {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: "@" + name, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		for _, packet := range [][]byte{first, second, third} {
			if known && len(packet) >= 24 {
				packet = append([]byte(nil), packet...)
				copy(packet[8:], tokens.Monitor[:])
			}
			conn.Write(packet) // may be too late for the server
		}
		conn.CloseWrite()
		answer := make([]byte, 300)
		for {
			if n, err := conn.Read(answer); n == 0 || err != nil {
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() {
					t.Error("the server keeps a connection that has ended")
				}
				return
			}
		}
	})
}

func TestStopLeavesNothing(t *testing.T) {
	if err := events.Start(); err != nil { // once for all
		t.Fatal(err)
	}
	before, fds := runtime.NumGoroutine(), countFDs(t)
	r := start(t)
	var conns []*net.UnixConn
	for i := range 40 {
		conn := r.dial(t)
		conns = append(conns, conn)
		switch i % 3 {
		case 0:
			r.ask(t, conn, Request{Op: OpConnect, Addr: ap("100.80.0.2:80"), Flags: FlagFallback})
		case 1:
			_, fd := r.ask(t, conn, Request{Op: OpAccept, Addr: ap("127.66.0.1:4000")})
			unix.Close(fd)
		}
	}
	begin := time.Now()
	r.stop()
	if took := time.Since(begin); took > stepTimeout/2 {
		t.Errorf("stopping took %v", took)
	}
	for _, conn := range conns {
		conn.Close()
	}
	if n := len(r.events); n != 14+13 {
		t.Errorf("%d plans and hand-overs were ended, want 27", n)
	}
	for range 2000 {
		if runtime.NumGoroutine() <= before && countFDs(t) <= fds {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("goroutines %d -> %d, descriptors %d -> %d", before, runtime.NumGoroutine(), fds, countFDs(t))
}

func countFDs(t *testing.T) int {
	t.Helper()
	// The first file makes the Go runtime open its poller, once for all.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
