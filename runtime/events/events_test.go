// SPDX-License-Identifier: Apache-2.0

package events

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/raw"
)

// echo greets with the first two bytes it gets.
func echo(fd int) bool {
	var b [2]byte
	if n, err := raw.Receive(fd, b[:], unix.MSG_PEEK); n == 1 || errors.Is(err, unix.EAGAIN) {
		return false
	}
	_, _ = raw.Receive(fd, b[:], 0)
	_, _ = raw.Send(fd, b[:])
	raw.Close(fd)
	return true
}

func serveTCP(t *testing.T, s *Server) (address string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln.(*net.TCPListener)) }()
	return ln.Addr().String(), func() {
		cancel()
		must(t, <-done)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// closed waits until the other end has closed.
func closed(t *testing.T, conn net.Conn) {
	t.Helper()
	var timeout net.Error
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || (errors.As(err, &timeout) && timeout.Timeout()) {
		t.Errorf("read %d bytes, %v; want the connection closed", n, err)
	}
}

func greeted(t *testing.T, conn net.Conn) {
	t.Helper()
	var b [2]byte
	if n, err := conn.Read(b[:]); err != nil || string(b[:n]) != "hi" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}

func TestWhoSpeaksIsGreeted(t *testing.T) {
	address, stop := serveTCP(t, &Server{Greet: echo, Silent: 8, Patience: time.Minute})
	defer stop()
	at, slow := dial(t, address), dial(t, address)
	slow.Write([]byte("h"))
	at.Write([]byte("hi"))
	greeted(t, at)
	slow.Write([]byte("i"))
	greeted(t, slow)
}

// What was said and does not suffice is looked at when it comes, not for ever.
func TestHalfAWordKeepsNobodyBusy(t *testing.T) {
	var greeted atomic.Int32
	s := Server{Greet: func(fd int) bool { greeted.Add(1); return echo(fd) }, Silent: 4, Patience: time.Minute}
	address, stop := serveTCP(t, &s)
	defer stop()
	conn := dial(t, address)
	_, err := conn.Write([]byte("a"))
	must(t, err)
	time.Sleep(50 * time.Millisecond)
	if n := greeted.Load(); n > 5 {
		t.Errorf("greeted %d times for one byte", n)
	}
	_, err = conn.Write([]byte("b"))
	must(t, err)
	var b [2]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil || string(b[:]) != "ab" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestSilenceEnds(t *testing.T) {
	const patience = 50 * time.Millisecond
	address, stop := serveTCP(t, &Server{Greet: echo, Silent: 8, Patience: patience})
	defer stop()
	for range 2 { // the timer is set again
		began := time.Now()
		silent, half := dial(t, address), dial(t, address)
		half.Write([]byte("h"))
		closed(t, silent)
		if took := time.Since(began); took < patience/2 {
			t.Errorf("after %v, want %v", took, patience)
		}
		closed(t, half)
	}
}

func TestTheOldestSilentOneMakesRoom(t *testing.T) {
	address, stop := serveTCP(t, &Server{Greet: echo, Silent: 3, Patience: time.Minute})
	var silent []net.Conn
	for range 5 {
		silent = append(silent, dial(t, address))
	}
	closed(t, silent[0])
	closed(t, silent[1])
	silent[2].Write([]byte("hi"))
	greeted(t, silent[2])
	stop()
	closed(t, silent[3])
	closed(t, silent[4])
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("the listener is still open")
	}
}

// Who is kept counts, and the next one waits in the listener's queue.
func TestKeptConnectionsAreBounded(t *testing.T) {
	kept := make(chan int, 3)
	s := &Server{Silent: 8, Kept: 2, Patience: time.Minute}
	s.Greet = func(fd int) bool {
		s.Keep()
		kept <- fd
		return true
	}
	address, stop := serveTCP(t, s)
	defer stop()
	for range 3 {
		dial(t, address)
	}
	first := <-kept
	defer raw.Close(<-kept)
	select {
	case <-kept:
		t.Fatal("three are kept, want two")
	case <-time.After(50 * time.Millisecond):
	}
	raw.Close(first)
	s.Leave()
	raw.Close(<-kept)
}

func TestStoppedWatchIsSilent(t *testing.T) {
	var pipe [2]int
	must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	defer raw.Close(pipe[0])
	defer raw.Close(pipe[1])
	calls := make(chan bool, 100)
	stop, err := Watch(pipe[0], unix.EPOLLIN|unix.EPOLLET, func() { calls <- true })
	must(t, err)
	unix.Write(pipe[1], []byte{1})
	<-calls
	stop()
	stop()
	unix.Write(pipe[1], []byte{1})
	select {
	case <-calls:
		t.Error("called after stop")
	case <-time.After(20 * time.Millisecond):
	}
	if _, err := Watch(-1, unix.EPOLLIN, func() {}); err == nil {
		t.Error("a descriptor that is none is watched")
	}
}
