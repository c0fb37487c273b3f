// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// session is one connection of a process monitor whose request needs time, and
// what belongs to it.
type session struct {
	conn   *net.UnixConn
	tokens Tokens
	h      Handler
}

func (s *session) run(ctx context.Context, r Request) {
	if r.Op == OpConnect {
		s.connect(ctx, r)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch r.Op {
	case OpListen:
		err := s.h.Listen(ctx, ListenRequest{Cookie: r.Cookie, Addr: r.Addr, Backlog: int(r.Backlog), PID: int(r.PID),
			V6: r.Flags&FlagV6 != 0, V6Only: r.Flags&FlagV6Only != 0})
		s.write(Response{Op: OpListen, Err: errno(err)})
	case OpAddress:
		a, err := s.h.Address(ctx, r.Cookie)
		s.write(Response{Op: OpAddress, Err: errno(err), Local: a.Local, Peer: a.Peer, Family: a.Family})
	}
}

// connect answers CONNECT and sees to the end of a plan that has one.
func (s *session) connect(ctx context.Context, r Request) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	p, err := s.h.Connect(ctx, connectRequest(r))
	if err != nil {
		s.write(Response{Op: OpConnect, Err: errno(err)})
		return
	}
	sent := s.write(planned(p))
	if p.Held == nil {
		return
	}
	var next Request
	if sent {
		next, sent = s.read()
	}
	if sent && next.Op == OpHeld {
		p.Held(next.Addr)
	} else {
		p.Ended()
	}
}

func planned(p Plan) Response {
	return Response{Op: OpConnect, Action: p.Action, Addr: p.Addr, Local: netip.AddrPortFrom(netip.Addr{}, p.Local), Preface: p.Preface, Syns: p.Syns}
}

func connectRequest(r Request) ConnectRequest {
	return ConnectRequest{Cookie: r.Cookie, To: r.Addr, PID: int(r.PID),
		Nonblock: r.Flags&FlagNonblock != 0, V6: r.Flags&FlagV6 != 0, Fallback: r.Flags&FlagFallback != 0, Bound: r.Flags&FlagBound != 0}
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
	return s.tokens.check(buf[:n])
}

// check reads the frame of a monitor of this node.
func (t Tokens) check(frame []byte) (Request, bool) {
	r, err := ParseRequest(frame)
	if err != nil || subtle.ConstantTimeCompare(r.Token[:], t.Monitor[:]) != 1 {
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

func (s *session) write(r Response) bool {
	r.Token = s.tokens.Supervisor
	s.conn.SetWriteDeadline(time.Now().Add(stepTimeout))
	_, err := s.conn.Write(AppendResponse(make([]byte, 0, ResponseSize), r))
	return err == nil
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
