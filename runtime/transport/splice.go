// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// splice joins two connections until both directions have ended, or ctx has,
// and closes them. A half-close is passed on as one, a reset as a reset, and the
// death of this process as one: what is cut short may not look complete. The
// bytes stay in the kernel (splice(2)).
func splice(ctx context.Context, a, b *net.TCPConn) {
	abort := sync.OnceFunc(func() {
		reset(a)
		reset(b)
	})
	stop := context.AfterFunc(ctx, abort)
	keepUrgent(a)
	keepUrgent(b)
	a.SetLinger(0)
	b.SetLinger(0)
	var both sync.WaitGroup
	var ended atomic.Int32
	var shut [2]atomic.Bool // towards a, towards b
	var cut [2]atomic.Bool  // a, b: it had ended, and then was reset
	for i, way := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		both.Go(func() {
			src, dst := way[0], way[1]
			err := carry(dst, src)
			if errors.Is(err, unix.EPIPE) { // tcp(7): not ECONNRESET, if it had ended before
				cut[1-i].Store(true)
				if ended.Add(1) == 2 {
					abort()
				}
				return // the other one passes on what came before the reset
			}
			if err != nil || !shut[i].Load() && !cut[i].Load() && isGone(src) {
				abort()
				return
			}
			shut[1-i].Store(true)
			dst.CloseWrite()
			if last := ended.Add(1) == 2; cut[i].Load() {
				abort()
			} else if last {
				dst.SetReadDeadline(time.Unix(1, 0)) // ends the other one's wait
			} else if waitReset(src) {
				abort()
			}
		})
	}
	both.Wait()
	if stop() {
		a.SetLinger(-1)
		b.SetLinger(-1)
	}
	a.Close()
	b.Close()
}

// isGone tells a reset from an end, which look the same to the one of the two
// directions that did not take the socket's error: after an end alone the
// connection is still half open, and after an end and a reset the error is still
// there. The other direction may have closed it already.
func isGone(conn *net.TCPConn) (gone bool) {
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			gone = err == nil && info.State == stateClose && !hasError(int(fd))
		})
	}
	return gone || err != nil
}

const stateClose = 7 // TCP_CLOSE (tcp_states.h)

// waitReset waits, after the end of what conn sends, whether it is reset, as it
// is when nobody reads any more what is sent to it.
func waitReset(conn *net.TCPConn) (broken bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Read(func(fd uintptr) bool {
		broken = hasError(int(fd))
		return broken
	})
	return broken
}

// hasError tells whether the socket has an error, without taking it.
func hasError(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLERR != 0
}

const (
	spliceMost = 1 << 20 // bytes in a pipe
	copyMost   = 32 << 10
	pipesKept  = 16
)

// carry moves bytes from src to dst until src ends. Unlike io.Copy it holds a
// pipe only while there are bytes in it: a function may have 1,024 descriptors,
// and idle connections would hold four more each.
func carry(dst, src *net.TCPConn) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	for {
		p, n, err := fill(from)
		switch {
		case errors.Is(err, errNoPipe):
			n, err = copySome(dst, src)
		case errors.Is(err, errUrgent):
			n, err = carryUrgent(to, from)
		case err == nil && n > 0:
			err = p.empty(to, n)
		}
		if p != nil {
			p.back(err == nil)
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

// errNoPipe: no descriptors are left for one.
var errNoPipe = errors.New("no pipe")

// fill waits for bytes and takes them into a pipe; 0 of them: the end. With errNoPipe
// they are there, and none of them is urgent yet.
func fill(from syscall.RawConn) (p *pipe, n int, err error) {
	var failed error
	err = from.Read(func(fd uintptr) bool {
		if p == nil {
			if p, failed = takePipe(); failed != nil {
				if !speaks(int(fd)) {
					failed = nil
					return false // and without a buffer, either
				}
				if atMark(int(fd)) {
					failed = errUrgent
				}
				return true
			}
		}
		n, failed = spliceOnce(int(fd), p.w)
		again := errors.Is(failed, unix.EAGAIN)
		if (again || n == 0) && atMark(int(fd)) {
			failed = errUrgent
			p.back(true)
			p = nil
			return true
		}
		if again {
			p.back(true) // not held while it waits
			p = nil
			return false
		}
		return true
	})
	return p, n, errors.Join(err, failed)
}

// speaks tells whether a socket has bytes, an end or an error to tell.
func speaks(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return n > 0 || err != nil
}

// pipe is empty whenever nobody has it.
type pipe struct{ r, w int }

var (
	idlePipes = make(chan *pipe, pipesKept)
	pipes     atomic.Int64 // that there are
)

func takePipe() (*pipe, error) {
	select {
	case p := <-idlePipes:
		return p, nil
	default:
	}
	var ends [2]int
	if pipes.Add(1) > int64(mostPipes) || unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		pipes.Add(-1)
		return nil, errNoPipe
	}
	_, _ = unix.FcntlInt(uintptr(ends[0]), unix.F_SETPIPE_SZ, spliceMost) // or as large as allowed
	return &pipe{r: ends[0], w: ends[1]}, nil
}

// back gives the pipe up; a clean one may be kept.
func (p *pipe) back(clean bool) {
	if clean {
		select {
		case idlePipes <- p:
			return
		default:
		}
	}
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
	pipes.Add(-1)
}

// empty writes the n bytes in the pipe.
func (p *pipe) empty(to syscall.RawConn, n int) error {
	var failed error
	err := to.Write(func(fd uintptr) bool {
		for n > 0 {
			var m int
			if m, failed = spliceOnce(p.r, int(fd)); failed != nil {
				return !errors.Is(failed, unix.EAGAIN)
			}
			n -= m
		}
		return true
	})
	return errors.Join(err, failed)
}

func spliceOnce(from, to int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, spliceMost, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if !errors.Is(err, unix.EINTR) {
			return int(n), err
		}
	}
}

// copySome moves bytes through this process.
func copySome(dst, src *net.TCPConn) (int, error) {
	b := make([]byte, copyMost)
	n, err := src.Read(b)
	if n == 0 {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return 0, err
	}
	return dst.Write(b[:n])
}
