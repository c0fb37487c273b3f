// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"container/list"
	"net"
	"sync"
)

// doorstep keeps the connections that have not proven themselves yet. When it
// is full, who has stood there longest is sent away: a real preface follows the
// handshake within a round trip, so silent strangers keep nobody out.
type doorstep struct {
	mu    sync.Mutex
	most  int
	queue list.List // of net.Conn, the oldest first
}

func (d *doorstep) enter(conn net.Conn) *list.Element {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.queue.Len() >= d.most {
		oldest := d.queue.Front()
		d.queue.Remove(oldest)
		oldest.Value.(net.Conn).Close() // its reader sees that and leaves
	}
	return d.queue.PushBack(conn)
}

// leave may also be called for one that was sent away.
func (d *doorstep) leave(e *list.Element) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue.Remove(e)
}
