// SPDX-License-Identifier: Apache-2.0

// Package events answers what somebody waits for: one goroutine waits for many
// descriptors and calls a function when one is ready. Passing a connection from
// goroutine to goroutine wakes several threads up, some 40 us each, where this
// wakes one. The functions must not wait, and make system calls as package raw
// does; what has to wait goes on in a goroutine of its own.
//
// The goroutine has a thread of its own, which stays near those that ask (Near).
package events

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/raw"
)

// loop is the goroutine. It begins with the first Watch and never ends.
var loop struct {
	once  sync.Once
	epoll int
	err   error

	mu    sync.Mutex
	ready map[int64]func()
	last  int64
}

// Watch calls ready when fd is ready for events (EPOLLIN, ...),
// until stop (never nil) is called. stop comes before fd is closed; it does not wait for a
// call of ready that has begun.
func Watch(fd int, events uint32, ready func()) (stop func(), err error) {
	if err := Start(); err != nil {
		return func() {}, err
	}
	loop.mu.Lock()
	loop.last++
	id := loop.last
	loop.ready[id] = ready
	loop.mu.Unlock()
	stop = func() {
		loop.mu.Lock()
		defer loop.mu.Unlock()
		if _, watched := loop.ready[id]; watched {
			delete(loop.ready, id)
			_ = raw.EpollCtl(loop.epoll, unix.EPOLL_CTL_DEL, fd, nil)
		}
	}
	event := unix.EpollEvent{Events: events, Fd: int32(id), Pad: int32(id >> 32)}
	if err := raw.EpollCtl(loop.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		stop()
		return func() {}, fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	return stop, nil
}

// Start makes the loop, if it is not there yet.
func Start() error {
	loop.once.Do(begin)
	return loop.err
}

func begin() {
	loop.ready = map[int64]func(){}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		loop.err = fmt.Errorf("wait for descriptors: %w", err)
		return
	}
	loop.epoll = epoll
	begun := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		nearby.begin()
		close(begun)
		for {
			serve()
		}
	}()
	<-begun
}

// serve calls whom something has happened for.
func serve() {
	var ready [64]unix.EpollEvent
	n, err := unix.EpollWait(loop.epoll, ready[:], nearby.pause())
	switch {
	case errors.Is(err, unix.EINTR):
		return
	case err != nil:
		panic(fmt.Sprintf("wait for descriptors: %v", err)) // nobody closes it
	case n == 0:
		nearby.leave()
	}
	for _, e := range ready[:n] {
		loop.mu.Lock()
		f := loop.ready[int64(uint32(e.Fd))|int64(e.Pad)<<32]
		loop.mu.Unlock()
		if f != nil {
			f()
		}
	}
}
