// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"
	"os"
	"sync"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"golang.org/x/sys/unix"
)

// wall is an address of this node that is bound and refuses: nobody listens
// there. A guest whose connect is refused is sent there, so that its socket goes
// through what it goes through natively: a non-blocking one is in progress
// first, and it gets the address and the port that it would have.
type wall struct {
	once sync.Once
	file *os.File
	addr netip.AddrPort
}

// at is the wall's address, on own if possible; the zero one if there is none.
func (w *wall) at(own netip.Addr) netip.AddrPort {
	w.once.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return
		}
		w.file = os.NewFile(uintptr(fd), "wall")
		for _, ip := range []netip.Addr{own.Unmap(), netip.AddrFrom4([4]byte{127, 67, 255, 255})} {
			if !ip.Is4() || unix.Bind(fd, &unix.SockaddrInet4{Addr: ip.As4()}) != nil {
				continue
			}
			if name, err := unix.Getsockname(fd); err == nil {
				in := name.(*unix.SockaddrInet4)
				w.addr = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
			}
			return
		}
	})
	return w.addr
}

func (w *wall) close() {
	w.once.Do(func() {}) // it is not built any more
	w.file.Close()
}

// refuse lets the kernel refuse a guest's connect.
func (l *Layer) refuse(self cluster.Member, r Request, err error) (Plan, error) {
	at := l.wall.at(l.overlayPort(self, self).Addr())
	if !at.IsValid() {
		return Plan{}, err
	}
	l.o.Logger.Debug().Err(err).Stringer("to", r.To).Msg("connect refused")
	return Plan{Class: ClassNative, Addr: at}, nil
}
