// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// Descriptors that a guest's relayed connection needs while it is held (the
// hole's two and both ends) and afterwards.
const (
	holdNeeds   = 4
	spliceNeeds = 2
)

const (
	spare       = 192 // for all else: process monitors, peers, the seed; maxShort of them
	forArrivals = 64  // that connections which wait for the guest find, whatever it has made itself
	maxShort    = 32  // connections that have arrived and wait until some are given back
)

// mostPipes is how many pipes hold bytes on their way at a time (two descriptors each).
var mostPipes = pipesFor(descriptorLimit())

func pipesFor(descriptors int) int { return max(4, min(descriptors/16, 4096)) }

// budget is the descriptors that connections of the guest may take: relayed ones, and
// those that it has not accepted. A supervisor without any left could not even say no:
// every connect and accept of the guest would wait in front of it.
type budget struct {
	mu   sync.Mutex
	left int
	kept int // for arrivals; half of them for those that are still to be met
}

func newBudget() *budget {
	most := descriptorLimit()
	left := most - min(spare+2*mostPipes, most/2)
	return &budget{left: left, kept: min(forArrivals, left/8)}
}

func descriptorLimit() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}

// take takes descriptors, unless it is arrivals that the last ones are kept for.
func (b *budget) take(n int) bool { return b.takeOver(b.kept, n) }

// takeMeeting takes one for a connection that this node makes because a peer asked.
func (b *budget) takeMeeting() bool { return b.takeOver(b.kept/2, 1) }

// takeOver takes descriptors if so many are left then.
func (b *budget) takeOver(rest, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left-n < rest {
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
func (l *Layer) Take(n int) bool { return l.descriptors.takeOver(0, n) }

// Give gives them back.
func (l *Layer) Give(n int) { l.descriptors.give(n) }
