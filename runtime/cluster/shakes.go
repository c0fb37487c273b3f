// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net"
	"sync"
	"time"
)

const (
	// patience with a handshake while others wait for its place.
	shakePatience = time.Second
	maxWaiting    = 4096 // for their turn
)

// shakes are the handshakes under way, so many at once. Who says hello and then
// nothing keeps its place only while nobody waits for it, or for a second.
type shakes struct {
	mu      sync.Mutex
	changed chan struct{} // closed when a place may be free
	order   []shake       // by age
	waiting int
}

type shake struct {
	conn  net.Conn
	since time.Time
}

func newShakes() *shakes { return &shakes{changed: make(chan struct{})} }

// begin waits for a place. It must be ended.
func (s *shakes) begin(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting >= maxWaiting {
		return false
	}
	s.waiting++
	defer func() { s.waiting-- }()
	for end := time.Now().Add(handshakeTimeout); len(s.order) >= maxHandshakes; {
		now := time.Now()
		if now.After(end) {
			return false
		}
		left := shakePatience - now.Sub(s.order[0].since)
		if left <= 0 {
			_ = s.order[0].conn.Close()
			s.order = s.order[1:]
			break
		}
		s.wait(left)
	}
	s.order = append(s.order, shake{conn, time.Now()})
	return true
}

// wait waits for a change, at most so long. Callers hold mu.
func (s *shakes) wait(most time.Duration) {
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}

func (s *shakes) end(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.order {
		if s.order[i].conn == conn {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			break
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}
