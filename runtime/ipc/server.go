// SPDX-License-Identifier: Apache-2.0

// Package ipc speaks with the process monitors of this node: frames of
// lib/wire.h over an abstract unix socket, one connection per request, with
// descriptors passed along. Both ends prove a token of this node.
package ipc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/events"
	"github.com/boxer-overlay/boxer/runtime/raw"
)

// Tokens are what monitor and supervisor prove to each other.
type Tokens struct{ Monitor, Supervisor Token }

// NewTokens makes fresh ones.
func NewTokens() Tokens {
	var t Tokens
	rand.Read(t.Monitor[:]) // never fails
	rand.Read(t.Supervisor[:])
	return t
}

// Environment is the value of BOXER_IPC for a server that listens at name.
func (t Tokens) Environment(name string) string {
	return name + "/" + hex.EncodeToString(t.Monitor[:]) + "/" + hex.EncodeToString(t.Supervisor[:])
}

// Listen opens the abstract unix socket name (without a leading @ or NUL; no
// slashes).
func Listen(name string) (*net.UnixListener, error) {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: "@" + name, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for process monitors at abstract socket %q: %w", name, err)
	}
	return ln, nil
}

// Limits of a server: requests that need time at a time, connections that have
// not asked yet, and how long one may take for each of its steps.
const (
	maxConns    = 1024
	maxUnproven = 512
	stepTimeout = 10 * time.Second
)

// Serve answers process monitors until ctx ends; it closes ln and returns when
// every connection is done. It returns nil after ctx ended.
func Serve(ctx context.Context, ln *net.UnixListener, tokens Tokens, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{ctx: ctx, tokens: tokens, h: h, lent: map[*lent]struct{}{}}
	s.steps = events.Server{Greet: s.greet, Silent: maxUnproven, Kept: maxConns, Patience: stepTimeout}
	err := s.steps.Serve(ctx, ln)
	cancel()
	s.takeBack()
	s.running.Wait()
	if err != nil {
		return fmt.Errorf("serve process monitors: %w", err)
	}
	return nil
}

// server answers at once what needs no waiting, and leaves the rest to a
// session with a goroutine of its own.
type server struct {
	ctx     context.Context
	tokens  Tokens
	h       Handler
	steps   events.Server
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	lent   map[*lent]struct{}
}

// greet takes the request off a connection, if it is there.
func (s *server) greet(fd int) bool {
	r, ok, err := s.read(fd)
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	if ok && r.CPU != 0 {
		events.Near(int(r.CPU) - 1)
	}
	switch {
	case !ok:
		raw.Close(fd)
	case r.Op == OpTable:
		file, err := s.h.Table(s.ctx)
		if err != nil {
			s.answer(fd, Response{Op: OpTable, Err: errno(err)}, none)
			break
		}
		s.answer(fd, Response{Op: OpTable}, int(file.Fd()))
		runtime.KeepAlive(file)
	case r.Op == OpAccept:
		s.lend(fd, r)
	case r.Op == OpConnect:
		if p, ok := s.h.Prompt(connectRequest(r)); ok {
			s.answer(fd, planned(p), none)
			return true
		}
		s.converse(fd, r)
	default:
		s.converse(fd, r)
	}
	return true
}

// read takes a frame, if there is one. It is not ok if it is none of a monitor
// of this node.
func (s *server) read(fd int) (r Request, ok bool, err error) {
	var buf [RequestSize + 1]byte // one more, to see frames that are too long
	n, err := readFrame(descriptor(fd), buf[:])
	if err != nil {
		return Request{}, false, err
	}
	r, ok = s.tokens.check(buf[:n])
	return r, ok, nil
}

// descriptor reads what is there.
type descriptor int

func (d descriptor) Read(b []byte) (int, error) {
	n, err := raw.Receive(int(d), b, 0)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

// none stands for no descriptor.
const none = -1

// send sends a response, and a descriptor with it.
func (s *server) send(fd int, r Response, passed int) error {
	r.Token = s.tokens.Supervisor
	frame := AppendResponse(make([]byte, 0, ResponseSize), r)
	if passed != none {
		return raw.SendFile(fd, frame, passed)
	}
	_, err := raw.Send(fd, frame)
	return err
}

// answer ends a conversation. What was sent is read also after the end.
func (s *server) answer(fd int, r Response, passed int) {
	_ = s.send(fd, r, passed)
	raw.Close(fd)
}

// lent is a connection on its way to a guest.
type lent struct {
	fd   int
	stop func()
	done func(taken bool)
}

// lend answers ACCEPT, and waits for what becomes of the connection as long as
// the guest lives: a guest that is stopped still has it.
func (s *server) lend(fd int, r Request) {
	a, done, err := s.h.Accept(s.ctx, AcceptRequest{Cookie: r.Cookie, Signal: r.Addr, PID: int(r.PID), V6: r.Flags&FlagV6 != 0})
	if err != nil {
		s.answer(fd, Response{Op: OpAccept, Err: errno(err)}, none)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &lent{fd: fd, done: done}
	err = s.send(fd, Response{Op: OpAccept, Local: a.Local, Peer: a.Peer, Family: a.Family}, a.FD)
	if err == nil && !s.closed {
		l.stop, err = events.Watch(fd, unix.EPOLLIN|unix.EPOLLRDHUP, func() { s.settle(l) })
	}
	if err != nil || s.closed {
		raw.Close(fd)
		done(false)
		return
	}
	s.lent[l] = struct{}{}
}

// settle ends a hand-over when the monitor has said how it ended, or is gone.
func (s *server) settle(l *lent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.lent[l]; !open {
		return
	}
	r, ok, err := s.read(l.fd)
	if errors.Is(err, unix.EAGAIN) {
		return
	}
	s.end(l, ok && r.Op == OpAck)
}

func (s *server) end(l *lent, taken bool) {
	delete(s.lent, l)
	l.stop()
	raw.Close(l.fd)
	l.done(taken)
}

// takeBack ends all hand-overs.
func (s *server) takeBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.lent {
		s.end(l, false)
	}
}

// converse leaves a request to a session.
func (s *server) converse(fd int, r Request) {
	s.steps.Keep()
	s.running.Go(func() {
		defer s.steps.Leave()
		conn, err := adopt(fd)
		if err != nil {
			return
		}
		defer conn.Close()
		// Ends reads and writes at once, also those that come later.
		defer context.AfterFunc(s.ctx, func() { conn.Close() })()
		session := session{conn: conn, tokens: s.tokens, h: s.h}
		session.run(s.ctx, r)
	})
}

// adopt gives a descriptor to the Go runtime's poller.
func adopt(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "monitor")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
