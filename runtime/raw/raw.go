// SPDX-License-Identifier: Apache-2.0

// Package raw makes system calls that cannot wait. The Go runtime is not told
// of them: it would wake another thread up in case they do, which costs more
// than the call, and takes a processor from whoever is waited for. Descriptors
// may block or not; nothing here does.
package raw

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// call repeats what a signal interrupts. Its arguments may be addresses, which
// stay as they are meanwhile.
//
//go:uintptrescapes
func call(number, a, b, c, d, e uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(number, a, b, c, d, e, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return -1, errno
	}
}

// Close closes a descriptor that nothing has to be written back for.
func Close(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// Accept takes a connection, blocking and close-on-exec, off a listener that
// does not block.
func Accept(fd int) (int, error) {
	return call(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_CLOEXEC, 0)
}

// Receive reads what is there. With unix.MSG_PEEK it stays there.
func Receive(fd int, b []byte, options int) (int, error) {
	return call(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|options), 0)
}

// Send writes what fits.
func Send(fd int, b []byte) (int, error) {
	return call(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0)
}

// SendFile sends b and a duplicate of a descriptor over a unix socket.
func SendFile(fd int, b []byte, passed int) error {
	var control struct {
		unix.Cmsghdr
		fd int32
		_  int32
	}
	control.Level, control.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	control.SetLen(unix.CmsgLen(int(unsafe.Sizeof(control.fd))))
	control.fd = int32(passed)
	part := unix.Iovec{Base: unsafe.SliceData(b)}
	part.SetLen(len(b))
	message := unix.Msghdr{Iov: &part, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&control))}
	message.SetControllen(int(unsafe.Sizeof(control)))
	_, err := call(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), flags, 0, 0)
	return err
}

// Stream makes a TCP/IPv4 socket, close-on-exec, that does not block.
func Stream() (int, error) {
	return call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0, 0)
}

// Bind binds an IPv4 socket.
func Bind(fd int, a netip.AddrPort) error {
	to := sockaddr(a)
	_, err := call(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to), 0, 0)
	return err
}

// Connect connects an IPv4 socket that does not block.
func Connect(fd int, a netip.AddrPort) error {
	to := sockaddr(a)
	_, err := call(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to), 0, 0)
	return err
}

func sockaddr(a netip.AddrPort) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swap(a.Port()), Addr: a.Addr().As4()}
}

// swap is the network's byte order: both architectures are little-endian.
func swap(port uint16) uint16 { return port<<8 | port>>8 }

// LocalPort is the port of an IP socket, or 0.
func LocalPort(fd int) uint16 { return port(unix.SYS_GETSOCKNAME, fd) }

// PeerPort is the port of its other end, or 0.
func PeerPort(fd int) uint16 { return port(unix.SYS_GETPEERNAME, fd) }

func port(number uintptr, fd int) uint16 {
	var a unix.RawSockaddrInet6 // the port is in the same place in both families
	size := uint32(unsafe.Sizeof(a))
	if _, err := call(number, uintptr(fd), uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&size)), 0, 0); err != nil {
		return 0
	}
	return swap(a.Port)
}

// Block makes a descriptor block.
func Block(fd int) { _, _ = call(unix.SYS_FCNTL, uintptr(fd), unix.F_SETFL, 0, 0, 0) }

// Set sets an option of a socket, as far as the kernel knows it.
func Set(fd, level, option, value int) {
	v := int32(value)
	_, _ = call(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v))
}

// Linger makes closing a socket reset its connection, or not.
func Linger(fd int, reset bool) {
	var v unix.Linger
	if reset {
		v.Onoff = 1
	}
	_, _ = call(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v))
}

// Uint64 reads a 64-bit option of a socket, 0 where the kernel has none.
func Uint64(fd, option int) (value uint64) {
	size := uint32(unsafe.Sizeof(value))
	if _, err := call(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(option), uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size))); err != nil {
		return 0
	}
	return value
}

// EpollCtl is epoll_ctl.
func EpollCtl(epoll, operation, fd int, event *unix.EpollEvent) error {
	_, err := call(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(operation), uintptr(fd), uintptr(unsafe.Pointer(event)), 0)
	return err
}

// ReadAt reads a file's beginning, which must be in memory (of /proc).
func ReadAt(fd int, b []byte) (int, error) {
	return call(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0)
}

// Affinity lets this thread run on these CPUs only.
func Affinity(set *unix.CPUSet) error {
	_, err := call(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*set), uintptr(unsafe.Pointer(set)), 0, 0)
	return err
}
