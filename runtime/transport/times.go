// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"math/bits"
	"time"
)

// times is a histogram of durations in four buckets an octave, from 16 us: a
// quantile is off by a tenth at most.
type times struct {
	buckets []uint32 // as far as something was counted
	n       uint64
	sum     time.Duration
}

const (
	leastTime = 16 * time.Microsecond
	octaves   = 24 // up to 134 s, the last has all that is longer
)

func (t *times) add(d time.Duration) {
	i := bucketFor(d)
	for len(t.buckets) <= i {
		t.buckets = append(t.buckets, 0)
	}
	t.buckets[i]++
	t.n++
	t.sum += d
}

func bucketFor(d time.Duration) int {
	v := uint64(max(d, leastTime) / (leastTime / 4)) // the first three bits tell the bucket
	octave := bits.Len64(v) - 3
	return min(4*octave+int(v>>octave&3), 4*octaves-1)
}

// from is where bucket i begins.
func from(i int) time.Duration { return time.Duration(4+i%4) << (i / 4) * (leastTime / 4) }

// quantile is the middle of the bucket that has it; 0 of nothing.
func (t *times) quantile(q float64) time.Duration {
	left := q * float64(t.n)
	for i, n := range t.buckets {
		if left -= float64(n); n > 0 && left <= 0 {
			return (from(i) + from(i+1)) / 2
		}
	}
	return 0
}

// join adds what another one counted.
func (t *times) join(o *times) {
	for len(t.buckets) < len(o.buckets) {
		t.buckets = append(t.buckets, 0)
	}
	for i, n := range o.buckets {
		t.buckets[i] += n
	}
	t.n += o.n
	t.sum += o.sum
}

// Setup is how long setting up connections took, over one transport.
type Setup struct {
	Transport string
	Within    []Within // ascending
	Count     uint64
	Sum       time.Duration
}

// Within counts those that took no longer.
type Within struct {
	Most  time.Duration
	Count uint64
}

func (t *times) setup(transport string) Setup {
	s := Setup{Transport: transport, Count: t.n, Sum: t.sum}
	var count uint64
	for octave := range octaves {
		for _, n := range t.buckets[min(4*octave, len(t.buckets)):min(4*octave+4, len(t.buckets))] {
			count += uint64(n)
		}
		s.Within = append(s.Within, Within{from(4 * (octave + 1)), count})
	}
	return s
}
