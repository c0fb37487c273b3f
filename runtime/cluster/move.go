// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"net/netip"
)

var errMoved = errors.New("this node has another public address")

// Move announces that this node has another public address: it joins again, as the
// same member, and is seen there. What is open between guests stays.
func (s *Session) Move(public netip.Addr) {
	s.mu.Lock()
	s.o.Hello.PublicAddress = public
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.close(errMoved)
	}
}
