// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A running host is changed in two orders to its init, so that nothing it had
// is still in use when the daemon puts something else in its place: halt ends
// the guest's side, resume starts it again as another specification says. The
// host itself stays: its address, its file systems, its place in the network.

// Orders from the daemon to the init of a host, one byte each.
const (
	orderHalt   = 'h'
	orderResume = 'r' // with the specification and the listeners as descriptors
)

// maxHanded bounds the descriptors of one order: the kernel's own limit.
const maxHanded = 253

type order struct {
	kind byte
	fds  []int // that came with it
}

// takeOrders passes on what the daemon orders, until it ends.
func (h *hostInit) takeOrders() {
	var kind [1]byte
	rights := make([]byte, unix.CmsgSpace(4*maxHanded))
	for {
		n, rn, _, _, err := unix.Recvmsg(reportFD, kind[:], rights, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		h.orders <- order{kind[0], rightsIn(rights[:rn])}
	}
}

func rightsIn(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil
	}
	return fds
}

// halt clears away the guest's side, whose first process has ended, and waits
// for what is to be next; not ok: the host is to end.
func (h *hostInit) halt() (ok bool, err error) {
	for cleared := false; !cleared; {
		h.killAll()
		select {
		case <-h.reaped:
			cleared = true
		case <-time.After(10 * time.Millisecond): // it was starting others
		}
	}
	h.report(initReport{Halted: true})
	var next order
	select {
	case next = <-h.orders:
	case <-h.signals:
		return false, nil
	}
	if next.kind != orderResume || len(next.fds) == 0 {
		return false, errors.New("change host: not resumed")
	}
	in := os.NewFile(uintptr(next.fds[0]), "spec")
	defer in.Close()
	spec := initSpec{}
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return false, fmt.Errorf("change host: %w", err)
	}
	h.spec, h.handed = spec, next.fds[1:]
	return true, h.change()
}

// order sends one order, with files.
func (b *sandbox) order(kind byte, files ...*os.File) error {
	fds := make([]int, 0, len(files))
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	line, err := b.line.SyscallConn()
	if err != nil {
		return fmt.Errorf("order to the host: %w", err)
	}
	controlErr := line.Control(func(fd uintptr) {
		err = unix.Sendmsg(int(fd), []byte{kind}, rights, nil, unix.MSG_NOSIGNAL)
	})
	if err = errors.Join(controlErr, err); err != nil {
		return fmt.Errorf("order to the host: %w", err)
	}
	return nil
}

// halt ends the guest's side and returns when nothing of it is left.
func (b *sandbox) halt() error {
	if err := b.order(orderHalt); err != nil {
		return err
	}
	return b.await(b.halted, drainTime+setUpTime)
}

// resume starts the guest's side as spec says. The listeners stay the caller's.
func (b *sandbox) resume(spec initSpec, listeners []*os.File) error {
	doc, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	file, err := memoryFile("spec", doc)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := b.order(orderResume, append([]*os.File{file}, listeners...)...); err != nil {
		return err
	}
	return b.await(b.started, setUpTime)
}

// memoryFile holds content, to be read from its beginning.
func memoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err = file.Write(content); err == nil {
		_, err = file.Seek(0, 0)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (b *sandbox) await(reported <-chan struct{}, limit time.Duration) error {
	select {
	case <-reported:
		return nil
	case <-b.gone:
		if why := b.failure(); why != "" {
			return errors.New(why)
		}
		return errors.New("it was deleted meanwhile")
	case <-time.After(limit):
		return fmt.Errorf("no answer from the host's init after %s", limit)
	}
}
