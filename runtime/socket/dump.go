// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/boxer-overlay/boxer/runtime/raw"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dumper asks for lists over one netlink socket that it keeps. An idle
// supervisor does little else than look at lists, eight times a second: a socket
// and a new buffer for each look, as the library makes them, cost as much as all
// the rest, and the kernel writes a list while it is asked for, so nothing waits.
type dumper struct {
	mu       sync.Mutex
	open     bool
	fd       int
	sequence uint32
	buffer   []byte
}

// A question about one socket does not wait for a list.
var lists, lookups dumper

const (
	dumpBuffer = 32 << 10 // the largest part of a list that the kernel writes at once (af_netlink.c)
	dumpHeader = unix.NLMSG_HDRLEN

	typeList        = 18 // TCPDIAG_GETSOCK (linux/inet_diag.h)
	listRequestSize = 60
)

// dump passes on each TCP socket in one of states, of both families: the request
// that knows no families walks the kernel's table once for the two, and on a machine
// with many sockets, whosever they are, the walk is what a list costs.
func (d *dumper) dump(states uint32, each func([]byte)) error {
	var r [listRequestSize]byte // inet_diag_req (linux/inet_diag.h)
	binary.NativeEndian.PutUint32(r[52:], states)
	return d.exchange(typeList, unix.NLM_F_DUMP, r[:], each)
}

// find passes on the one socket that is asked for.
func (d *dumper) find(r *diagRequest, found func([]byte)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.exchange(nl.SOCK_DIAG_BY_FAMILY, 0, r[:], found)
}

// exchange asks and passes on what is answered. Callers hold mu.
func (d *dumper) exchange(kind, flags uint16, request []byte, each func([]byte)) error {
	if !d.open {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
		if err != nil {
			return err
		}
		d.open, d.fd, d.buffer = true, fd, make([]byte, dumpBuffer)
	}
	err := d.ask(kind, flags, request, each)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		raw.Close(d.fd) // with what it may still hold
		d.open = false
	}
	return err
}

func (d *dumper) ask(kind, flags uint16, request []byte, each func([]byte)) error {
	d.sequence++
	m := make([]byte, dumpHeader, dumpHeader+listRequestSize)
	m = append(m, request...)
	ne := binary.NativeEndian
	ne.PutUint32(m[0:], uint32(len(m)))
	ne.PutUint16(m[4:], kind)
	ne.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	ne.PutUint32(m[8:], d.sequence)
	if _, err := raw.Send(d.fd, m); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	for {
		n, err := raw.Receive(d.fd, d.buffer, unix.MSG_TRUNC)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n > len(d.buffer) {
			return fmt.Errorf("read: a part of %d bytes", n)
		}
		// What is not a list has no end of its own.
		if done, err := d.part(d.buffer[:n], each); done || err != nil || flags&unix.NLM_F_DUMP == 0 {
			return err
		}
	}
}

// part takes one datagram apart.
func (d *dumper) part(b []byte, each func([]byte)) (done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= dumpHeader {
		size := int(ne.Uint32(b))
		if size < dumpHeader || size > len(b) {
			return false, errors.New("read: a message of a wrong size")
		}
		body := b[dumpHeader:size]
		if ne.Uint32(b[8:]) == d.sequence {
			switch ne.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return true, nil
			case unix.NLMSG_ERROR:
				if len(body) >= 4 {
					if errno := int32(ne.Uint32(body)); errno != 0 {
						return false, unix.Errno(-errno)
					}
				}
				return true, nil
			case nl.SOCK_DIAG_BY_FAMILY, typeList:
				each(body)
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false, nil
}
