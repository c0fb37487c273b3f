// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// session is one connection of a process monitor: one request, and what
// belongs to it.
type session struct {
	conn   *net.UnixConn
	tokens Tokens
	h      Handler
	proven func() // called when the first request is a monitor's
}

func (s *session) run(ctx context.Context) {
	r, ok := s.read()
	if !ok {
		return
	}
	s.proven()
	if r.Op == OpConnect {
		s.connect(ctx, r)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch r.Op {
	case OpTable:
		file, err := s.h.Table(ctx)
		s.write(Response{Op: OpTable, Err: errno(err)}, file)
	case OpListen:
		err := s.h.Listen(ctx, ListenRequest{Cookie: r.Cookie, Addr: r.Addr, Backlog: int(r.Backlog), PID: int(r.PID),
			V6: r.Flags&FlagV6 != 0, V6Only: r.Flags&FlagV6Only != 0})
		s.write(Response{Op: OpListen, Err: errno(err)}, nil)
	case OpAccept:
		s.accept(ctx, r)
	case OpAddress:
		a, err := s.h.Address(ctx, r.Cookie)
		s.write(Response{Op: OpAddress, Err: errno(err), Local: a.Local, Peer: a.Peer, Family: a.Family}, nil)
	}
}

// connect answers CONNECT, and once more when the monitor falls back.
func (s *session) connect(ctx context.Context, r Request) {
	if again := s.plan(ctx, r); again != nil {
		s.plan(ctx, *again)
	}
}

// plan answers one CONNECT and sees to the end of its plan. It returns the
// request that asks for another one.
func (s *session) plan(ctx context.Context, r Request) *Request {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	p, err := s.h.Connect(ctx, ConnectRequest{Cookie: r.Cookie, To: r.Addr, PID: int(r.PID),
		Nonblock: r.Flags&FlagNonblock != 0, V6: r.Flags&FlagV6 != 0, Fallback: r.Flags&FlagFallback != 0})
	if err != nil {
		s.write(Response{Op: OpConnect, Err: errno(err)}, nil)
		return nil
	}
	ended := func(fallback bool) {
		if p.Ended != nil {
			p.Ended(fallback)
		}
	}
	if !s.write(Response{Op: OpConnect, Action: p.Action, Addr: p.Addr, Preface: p.Preface}, nil) {
		ended(false)
		return nil
	}
	next, ok := s.read()
	switch {
	case ok && next.Op == OpHeld && p.Held != nil:
		p.Held(next.Addr)
	case ok && next.Op == OpConnect && next.Flags&FlagFallback != 0 && r.Flags&FlagFallback == 0:
		ended(true)
		return &next
	default:
		ended(false)
	}
	return nil
}

func (s *session) accept(ctx context.Context, r Request) {
	a, done, err := s.h.Accept(ctx, AcceptRequest{Cookie: r.Cookie, Signal: r.Addr, PID: int(r.PID), V6: r.Flags&FlagV6 != 0})
	if err != nil {
		s.write(Response{Op: OpAccept, Err: errno(err)}, nil)
		return
	}
	taken := false
	defer func() { done(taken) }()
	if !s.write(Response{Op: OpAccept, Local: a.Local, Peer: a.Peer, Family: a.Family}, a.File) {
		return
	}
	answer, ok := s.read()
	taken = ok && answer.Op == OpAck
}

// read takes the next frame; it is not ok when there is none in time, or none
// of a monitor of this node. Such a connection is closed without an answer.
func (s *session) read() (Request, bool) {
	s.conn.SetReadDeadline(time.Now().Add(stepTimeout))
	var buf [RequestSize + 1]byte // one more, to see frames that are too long
	n, err := readFrame(s.conn, buf[:])
	if err != nil || n == 0 {
		return Request{}, false
	}
	r, err := ParseRequest(buf[:n])
	if err != nil || subtle.ConstantTimeCompare(r.Token[:], s.tokens.Monitor[:]) != 1 {
		return Request{}, false
	}
	return r, true
}

// readFrame takes one frame off a connection. The kernel looks into the queue
// and then, without a lock over both, whether the peer is gone: a frame that was
// sent between the two looks is still there after it has said "end". Nothing can
// come after it, so a second look is the last.
func readFrame(conn io.Reader, buf []byte) (int, error) {
	n, err := conn.Read(buf)
	if errors.Is(err, io.EOF) {
		n, err = conn.Read(buf)
	}
	return n, err
}

// write sends a response, and file with it when there is no error.
func (s *session) write(r Response, file *os.File) bool {
	r.Token = s.tokens.Supervisor
	frame := AppendResponse(make([]byte, 0, ResponseSize), r)
	s.conn.SetWriteDeadline(time.Now().Add(stepTimeout))
	if r.Err != 0 || file == nil {
		_, err := s.conn.Write(frame)
		return err == nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	// Not File.Fd, which takes the descriptor from the runtime's poller.
	err = raw.Control(func(fd uintptr) {
		_, _, err := s.conn.WriteMsgUnix(frame, unix.UnixRights(int(fd)), nil)
		r.Err = errno(err)
	})
	return err == nil && r.Err == 0
}

// errno is what a guest can be told of an error.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e) && e != 0:
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	}
	return syscall.EIO
}
