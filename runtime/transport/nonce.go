// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"sync"
	"time"
)

const (
	nonceSpan = 10 * time.Second // of one bucket
	maxNonces = 1 << 18          // about 20 MB, some thousand connections a second
)

// nonces remembers which prefaces were seen for as long as their times are
// accepted. Prefaces are kept in buckets by their own time; when there are too
// many the oldest bucket goes, and prefaces of its time with it: a replay is
// never let in, a slow clock under great load may be kept out.
type nonces struct {
	mu      sync.Mutex
	buckets map[int64]map[[16]byte]struct{}
	count   int
	most    int
	floor   int64 // the first bucket that is still accepted
}

func newNonces() *nonces {
	return &nonces{buckets: map[int64]map[[16]byte]struct{}{}, most: maxNonces}
}

// admit accepts a preface of time t with this nonce once.
func (n *nonces) admit(nonce [16]byte, t, now time.Time) error {
	if d := now.Sub(t); d > maxSkew || d < -maxSkew {
		return errTime
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expire(bucketOf(now.Add(-maxSkew)))
	// A clock that was set back: what may have been dropped is refused for as long as it
	// can be told from what is new, not until the clock is where it was.
	n.floor = min(n.floor, bucketOf(now.Add(maxSkew))+1)
	b := bucketOf(t)
	if b < n.floor {
		return errTime
	}
	seen := n.buckets[b]
	if _, again := seen[nonce]; again {
		return errReplay
	}
	for n.count >= n.most {
		n.expire(n.oldest() + 1)
		if b < n.floor {
			return errTime
		}
	}
	if seen = n.buckets[b]; seen == nil {
		seen = map[[16]byte]struct{}{}
		n.buckets[b] = seen
	}
	seen[nonce] = struct{}{}
	n.count++
	return nil
}

// expire drops the buckets before floor.
func (n *nonces) expire(floor int64) {
	if floor <= n.floor {
		return
	}
	n.floor = floor
	for b, seen := range n.buckets {
		if b < floor {
			n.count -= len(seen)
			delete(n.buckets, b)
		}
	}
}

func (n *nonces) oldest() int64 {
	first, least := true, int64(0)
	for b := range n.buckets {
		if first || b < least {
			first, least = false, b
		}
	}
	return least
}

func bucketOf(t time.Time) int64 { return t.UnixMilli() / nonceSpan.Milliseconds() }
