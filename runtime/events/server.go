// SPDX-License-Identifier: Apache-2.0

package events

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/raw"
)

// shortagePause is how long a shortage of descriptors or memory is waited out.
const shortagePause = 10 * time.Millisecond

// Listener is what a Server takes over.
type Listener interface {
	syscall.Conn
	Close() error
}

// Server accepts connections and looks at what they say first. Who has not
// said it yet is watched, for so long and among so many: when there are more,
// the oldest makes room, so that silent strangers keep nobody out.
type Server struct {
	// Greet looks at a connection without waiting (the descriptor blocks: use
	// MSG_DONTWAIT). True: it has taken the descriptor over. False: what has
	// come does not suffice yet.
	Greet    func(fd int) bool
	Silent   int // at most
	Kept     int // at most, of those that Greet kept; for who uses Keep
	Patience time.Duration

	mu     sync.Mutex
	closed bool
	fd     int
	stop   func() // watching fd; nil in a pause
	silent list.List
	timer  bool // is set
	kept   int
	failed chan error
}

// stranger is a connection that has not said what it wants.
type stranger struct {
	fd    int // -1 when it is gone
	since time.Time
	heard int // bytes that did not suffice
	stop  func()
}

// Serve takes ln over until ctx ends; then it closes it and who is silent, and
// returns nil.
func (s *Server) Serve(ctx context.Context, ln Listener) error {
	fd, err := take(ln)
	if err != nil {
		return fmt.Errorf("take over a listener: %w", err)
	}
	s.failed = make(chan error, 1)
	s.mu.Lock()
	s.fd = fd
	s.resume()
	s.mu.Unlock()
	select {
	case <-ctx.Done():
	case err = <-s.failed:
	}
	s.close()
	return err
}

// take gets a listener out of the Go runtime's poller, which else would wake
// up for it too.
func take(ln Listener) (fd int, err error) {
	defer ln.Close()
	raw, err := ln.SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return -1, e
	}
	return fd, err
}

func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.pause()
	raw.Close(s.fd)
	for s.silent.Len() > 0 {
		s.dismiss(s.silent.Front())
	}
}

// Keep counts a connection that Greet has taken over until Leave. While there
// are too many the others wait in the listener's queue. Only for Greet.
func (s *Server) Keep() { s.kept++ }

// Leave ends what Keep began.
func (s *Server) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept--
	s.resume()
}

func (s *Server) pause() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

func (s *Server) resume() {
	if s.closed || s.stop != nil {
		return
	}
	var err error
	if s.stop, err = Watch(s.fd, unix.EPOLLIN, s.accept); err != nil {
		s.fail(err)
	}
}

func (s *Server) fail(err error) {
	s.pause()
	select {
	case s.failed <- err:
	default:
	}
}

// accept takes one connection; the loop comes back for the next one.
func (s *Server) accept() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.Kept > 0 && s.kept >= s.Kept {
		s.pause()
		return
	}
	fd, err := raw.Accept(s.fd)
	switch {
	case err == nil:
		s.enter(fd)
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ECONNABORTED):
	case shortage(err):
		s.pause()
		time.AfterFunc(shortagePause, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.resume()
		})
	default:
		s.fail(fmt.Errorf("accept: %w", err))
	}
}

// shortage tells whether an error may pass when others let go of something.
func shortage(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// enter greets a connection, now or when it says something.
func (s *Server) enter(fd int) {
	if s.Greet(fd) {
		return
	}
	if s.silent.Len() >= s.Silent {
		s.makeRoom()
	}
	s.watch(s.silent.PushBack(&stranger{fd: fd, since: time.Now()}))
	if !s.timer {
		s.timer = true
		time.AfterFunc(s.Patience, s.expire)
	}
}

// makeRoom lets the oldest go. What it has said may only not be read yet.
func (s *Server) makeRoom() {
	oldest := s.silent.Front()
	if !s.hear(oldest) {
		s.dismiss(oldest)
	}
}

// watch waits for what a silent connection says. By edges: a part of what is
// awaited may be there, and stay.
func (s *Server) watch(place *list.Element) {
	who := place.Value.(*stranger)
	var err error
	if who.stop, err = Watch(who.fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET, func() { s.speaks(place) }); err != nil {
		s.dismiss(place)
	}
}

// speaks is called when a silent connection may have said something. To watch it
// again tells what is there already: without a look at whether that is more than
// before, one byte would keep this loop busy for as long as it is waited.
func (s *Server) speaks(place *list.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who := place.Value.(*stranger)
	if who.fd < 0 {
		return
	}
	has, over := said(who.fd)
	if has == who.heard && !over {
		return
	}
	who.heard = has
	if !s.hear(place) {
		s.watch(place)
	}
}

// said tells how much there is to read, and whether that is all.
func said(fd int) (bytes int, over bool) {
	bytes, _ = unix.IoctlGetInt(fd, unix.TIOCINQ)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return bytes, n > 0 && err == nil
}

// hear greets a connection that was silent; it is not watched afterwards.
func (s *Server) hear(place *list.Element) bool {
	who := place.Value.(*stranger)
	who.stop() // the descriptor may be another one's after Greet
	if !s.Greet(who.fd) {
		return false
	}
	who.fd = -1
	s.silent.Remove(place)
	return true
}

// dismiss closes a silent connection.
func (s *Server) dismiss(place *list.Element) {
	who := place.Value.(*stranger)
	who.stop()
	raw.Close(who.fd)
	who.fd = -1
	s.silent.Remove(place)
}

// expire dismisses who was silent for too long.
func (s *Server) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = false
	for s.silent.Len() > 0 {
		left := s.Patience - time.Since(s.silent.Front().Value.(*stranger).since)
		if left > 0 {
			s.timer = true
			time.AfterFunc(left, s.expire)
			return
		}
		s.dismiss(s.silent.Front())
	}
}
