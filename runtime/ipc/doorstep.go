// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"container/list"
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// doorstep keeps the connections that have not proven themselves yet. When it
// is full, who has stood there longest without a word is sent away: a monitor
// sends its request with the connection, so silent strangers keep nobody out.
type doorstep struct {
	mu    sync.Mutex
	most  int
	queue list.List // of *net.UnixConn, the oldest first
}

func (d *doorstep) enter(conn *net.UnixConn) *list.Element {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.queue.Len() >= d.most {
		d.makeRoom()
	}
	return d.queue.PushBack(conn)
}

// makeRoom passes over those whose request is only not read yet.
func (d *doorstep) makeRoom() {
	for e := d.queue.Front(); e != nil; e = e.Next() {
		if conn := e.Value.(*net.UnixConn); silent(conn) {
			d.queue.Remove(e)
			conn.Close() // its reader sees that and leaves
			return
		}
	}
}

// leave may also be called for one that was sent away.
func (d *doorstep) leave(e *list.Element) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue.Remove(e)
}

// silent tells whether there is nothing to read, not even an end.
func silent(conn *net.UnixConn) (yes bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		yes = errors.Is(err, unix.EAGAIN)
	})
	return yes
}
