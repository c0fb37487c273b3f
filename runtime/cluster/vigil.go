// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// keepAlive is how often the kernel asks the other one for a sign of life
	// where nothing else is on the way. It wakes no process, on neither side.
	keepAlive = time.Second
	// unanswered for so long, with at least two questions, a host is gone.
	unanswered = keepAlive * 5 / 2
)

// errGone: a process that is kept waiting for a CPU has a kernel that answers.
var errGone = errors.New("the other host does not answer any more")

// vigil is a connection whose other host is missed before its process is: when
// a sign of life is overdue, it looks whether the other kernel still answers.
type vigil struct {
	*net.TCPConn
	overdue  atomic.Int64 // after the last sign, as a time.Duration; 0: nobody looks
	deadline atomic.Int64 // of the reader, in nanoseconds since 1970; 0: none
}

// keepVigil returns conn unchanged if it is no connection of the kernel's.
func keepVigil(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	// The count ends no connection before we look.
	if err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 30}); err != nil {
		return conn // it has ended
	}
	return &vigil{TCPConn: tcp}
}

// beginVigil lets conn, the base of a TLS connection, miss signs of life.
func beginVigil(conn net.Conn, heartbeat time.Duration) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if v, ok := conn.(*vigil); ok {
		v.overdue.Store(int64(heartbeat + heartbeat/4))
	}
}

// SetReadDeadline looks first when a sign is overdue, if that is sooner.
func (v *vigil) SetReadDeadline(t time.Time) error {
	look := t
	v.deadline.Store(0)
	if overdue := time.Duration(v.overdue.Load()); overdue > 0 && !t.IsZero() {
		v.deadline.Store(t.UnixNano())
		if at := time.Now().Add(overdue); at.Before(t) {
			look = at
		}
	}
	return v.TCPConn.SetReadDeadline(look)
}

// Read fails when the deadline is over, or the other host is gone.
func (v *vigil) Read(p []byte) (int, error) {
	for {
		n, err := v.TCPConn.Read(p)
		deadline := v.deadline.Load()
		if n > 0 || deadline == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		left := time.Until(time.Unix(0, deadline))
		if left <= 0 {
			return 0, err
		}
		quiet, ok := v.quiet()
		if ok && quiet >= unanswered {
			return 0, fmt.Errorf("%w: not for %s", errGone, quiet)
		}
		look := left
		if ok {
			look = min(left, unanswered-quiet)
		}
		if err := v.TCPConn.SetReadDeadline(time.Now().Add(look)); err != nil {
			return 0, err
		}
	}
}

// quiet is how long the other kernel has said nothing.
func (v *vigil) quiet() (d time.Duration, ok bool) {
	raw, err := v.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	if failed := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); failed != nil || err != nil {
		return 0, false
	}
	return time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond, true
}
