// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// Descriptors that a guest's relayed connection needs while it is held (the
// hole's two and both ends) and afterwards, and others that it is yet to accept.
const (
	holdNeeds   = 4
	spliceNeeds = 2
	meetNeeds   = 3 // a connection that a peer asked for, with what it needs in the guest's queue
)

// spare descriptors are for all else: process monitors, peers, the seed.
const spare = 160

// mostPipes is how many pipes hold bytes on their way at a time (two descriptors each).
var mostPipes = pipesFor(descriptorLimit())

func pipesFor(descriptors int) int { return max(4, min(descriptors/16, 4096)) }

// budget is the descriptors that connections of the guest may take: relayed ones, and
// those that it has not accepted. A supervisor without any left could not even say no:
// every connect and accept of the guest would wait in front of it.
type budget struct {
	mu   sync.Mutex
	left int
}

func newBudget() *budget {
	most := descriptorLimit()
	return &budget{left: most - min(spare+2*mostPipes, most/2)}
}

func descriptorLimit() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}

func (b *budget) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < n {
		return false
	}
	b.left -= n
	return true
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
}

// Take takes descriptors for connections that wait for the guest, if there are some
// (socket.Budget).
func (l *Layer) Take(n int) bool { return l.descriptors.take(n) }

// Give gives them back.
func (l *Layer) Give(n int) { l.descriptors.give(n) }
