// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// errUrgent: an urgent byte (MSG_OOB) is next, where splice(2) stops.
var errUrgent = errors.New("an urgent byte is next")

// keepUrgent leaves urgent bytes in the stream, so that they wake a reader as
// others do.
func keepUrgent(conn *net.TCPConn) {
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) })
	}
}

// atMark tells whether a socket's next byte is urgent.
func atMark(fd int) bool {
	at, err := unix.IoctlGetInt(fd, unix.SIOCATMARK)
	return err == nil && at != 0
}

// carryUrgent carries the urgent byte that is next, as one.
func carryUrgent(to, from syscall.RawConn) (n int, err error) {
	var b [1]byte
	var failed error
	err = from.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err = errors.Join(err, failed); err != nil || n == 0 {
		return n, err
	}
	err = to.Write(func(fd uintptr) bool {
		_, failed = unix.SendmsgN(int(fd), b[:], nil, nil, unix.MSG_OOB|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return n, errors.Join(err, failed)
}
