// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
)

// portTries is how many ports are tried when some are taken.
const portTries = 32

// turn gives the local ports that may be chosen freely one after the other, so
// that each rests as long as possible. The kernel draws one: of a hundred a second
// some are drawn again while a NAT remembers the connection from there to the same
// peer, which was reset, and then drops what the peer sends.
type turn struct {
	mu                sync.Mutex
	first, last, next int
}

// take gives the next port, or 0 when the kernel must choose.
func (t *turn) take() uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == 0 {
		t.first, t.last = localPorts()
		t.first |= 1 // connections that are not bound have the even ones
		t.next = t.first + rand.IntN(max(t.last-t.first, 1))&^1
	}
	if t.first > t.last {
		return 0
	}
	port := t.next
	if t.next += 2; t.next > t.last {
		t.next = t.first
	}
	return uint16(port)
}

// localPorts are the first and the last port that a socket may get by itself.
func localPorts() (first, last int) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(text), &first, &last)
	}
	if err != nil || first < 1 || last > 0xffff {
		return 1, 0
	}
	return first, last
}
