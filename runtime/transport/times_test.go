// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"testing"
	"time"
)

func TestTimesTellQuantiles(t *testing.T) {
	var h times
	if h.quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.01: 10 * time.Millisecond, 0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want*88/100 || got > want*112/100 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	for i := range 4*octaves - 1 {
		if bucketFor(from(i)) != i || bucketFor(from(i+1)-1) != i {
			t.Errorf("%v to %v are in buckets %d and %d, want %d", from(i), from(i+1), bucketFor(from(i)), bucketFor(from(i+1)-1), i)
		}
	}
	for _, d := range []time.Duration{-1, 0, 1, time.Hour, 1 << 62} {
		h.add(d)
	}
	s := h.setup("x")
	last := uint64(0)
	for _, w := range s.Within {
		if w.Count < last {
			t.Errorf("%+v: not cumulative", s)
		}
		last = w.Count
	}
	if s.Count != 1005 || last != 1005 {
		t.Errorf("%d of %d in the buckets, want 1005", last, s.Count)
	}
}

func TestPathsTellFailuresAndTimes(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	a, b, gone := n.node(behindNAT), n.node(behindNAT), n.node(behindNAT)
	arrivals := b.listen(80)
	g := a.connect(b.port(80), false)
	receive(t, arrivals)
	g.events(5 * time.Second)
	if got := a.connect(b.port(81), false).refused(); got == nil {
		t.Error("nobody listens, and it is not refused")
	}
	a.o.HoldTimeout = 50 * time.Millisecond
	gone.listen(80)
	n.mu.Lock()
	n.on[gone.id-1].Listeners = []uint16{80}
	n.mu.Unlock()
	gone.o.Relays = nil // it cannot come
	a.connect(gone.port(80), false)
	eventually(t, "one failure", func() bool {
		paths := a.Paths()
		return len(paths) == 2 && paths[1].To == gone.id && paths[1].Failed == 1 && paths[1].Count == 0
	})
	one := a.Paths()[0]
	if one.Count != 1 || one.Failed != 0 || one.P50 <= 0 || one.P99 < one.P50 {
		t.Errorf("%+v: want one connection with a set-up time", one)
	}
	if s := a.Setups(); len(s) != 1 || s[0].Transport != pathRelay || s[0].Count != 1 || s[0].Sum <= 0 {
		t.Errorf("set-up times %+v", s)
	}
}
