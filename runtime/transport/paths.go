// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// maxPeers is how many peers counts are kept of: with four transports to each, as many
// as a seed takes (cluster.maxPathsOf).
const maxPeers = 2048

type pathKey struct {
	to        uint32
	transport string
}

// paths counts the connections this node made, and those it could not make, and
// how long the supervisor took for those that it made itself. What the kernel
// makes alone (native), or after one answer (direct), nobody can time.
type paths struct {
	mu     sync.Mutex
	counts map[pathKey]uint64
	failed map[pathKey]uint64
	setups map[pathKey]*times
	seen   map[[2]netip.AddrPort]bool // native ones of the last sample
}

func newPaths() paths {
	return paths{counts: map[pathKey]uint64{}, failed: map[pathKey]uint64{}, setups: map[pathKey]*times{}}
}

func (p *paths) add(to uint32, transport string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[pathKey{to, transport}]++
}

// made adds one that took so long.
func (p *paths) made(to uint32, transport string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := pathKey{to, transport}
	p.counts[key]++
	p.setup(key).add(took)
}

// setup is the histogram of a path. Callers hold mu.
func (p *paths) setup(key pathKey) *times {
	if p.setups[key] == nil {
		p.setups[key] = &times{}
	}
	return p.setups[key]
}

// fail counts one that was not made. A refusal is no failure of the path.
func (p *paths) fail(to uint32, transport string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed[pathKey{to, transport}]++
}

// takeBack uncounts a connection that was not made after all.
func (p *paths) takeBack(to uint32, transport string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := pathKey{to, transport}
	switch n := p.counts[key]; n {
	case 0:
	case 1:
		delete(p.counts, key)
	default:
		p.counts[key] = n - 1
	}
}

// Paths counts the connections made from this node, by peer and transport.
func (l *Layer) Paths() []cluster.Path {
	from := l.o.Members.Self().ID
	p := &l.paths
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(func(id uint32) bool { _, ok := l.o.Members.Member(id); return ok })
	all := map[pathKey]cluster.Path{}
	for key, count := range p.counts {
		one := cluster.Path{From: from, To: key.to, Transport: key.transport, Count: count}
		if t := p.setups[key]; t != nil {
			one.P50, one.P99 = t.quantile(0.5).Microseconds(), t.quantile(0.99).Microseconds()
		}
		all[key] = one
	}
	for key, count := range p.failed {
		one := all[key]
		one.From, one.To, one.Transport, one.Failed = from, key.to, key.transport, count
		all[key] = one
	}
	return slices.SortedFunc(maps.Values(all), func(a, b cluster.Path) int {
		return cmp.Or(cmp.Compare(a.To, b.To), cmp.Compare(a.Transport, b.Transport))
	})
}

// forget drops what was counted of those that have left longest ago, when there are too
// many: ids are never used again. Callers hold mu.
func (p *paths) forget(present func(id uint32) bool) {
	peers := map[uint32]bool{}
	for key := range p.counts {
		peers[key.to] = true
	}
	for key := range p.failed {
		peers[key.to] = true
	}
	over := len(peers) - maxPeers
	if over <= 0 {
		return
	}
	gone := slices.DeleteFunc(slices.Sorted(maps.Keys(peers)), present)
	gone = gone[:min(len(gone), over)] // ids are given in their order
	old := func(key pathKey) bool { _, is := slices.BinarySearch(gone, key.to); return is }
	maps.DeleteFunc(p.counts, func(key pathKey, _ uint64) bool { return old(key) })
	maps.DeleteFunc(p.failed, func(key pathKey, _ uint64) bool { return old(key) })
	for key, t := range p.setups {
		if old(key) {
			delete(p.setups, key)
			p.setup(pathKey{transport: key.transport}).join(t) // nobody's: counters may not go backwards
		}
	}
}

// Setups are the set-up times of all connections this node made, by transport.
func (l *Layer) Setups() []Setup {
	p := &l.paths
	p.mu.Lock()
	defer p.mu.Unlock()
	sums := map[string]*times{}
	for key, t := range p.setups {
		if sums[key.transport] == nil {
			sums[key.transport] = &times{}
		}
		sums[key.transport].join(t)
	}
	var all []Setup
	for _, transport := range slices.Sorted(maps.Keys(sums)) {
		all = append(all, sums[transport].setup(transport))
	}
	return all
}

// SampleNative counts those native connections of a sample (local and remote
// address of each, socket.Layer.NativePeers) that the sample before did not
// have: nobody tells us of them. Call it every 250 ms or so.
func (l *Layer) SampleNative(sample [][2]netip.AddrPort) (seen int) {
	self := l.o.Members.Self()
	peers := map[netip.Addr]cluster.Member{}
	for _, m := range l.o.Members.Members() {
		m.UnderlayAddress = l.overlayPort(self, m)
		if m.UnderlayAddress.IsValid() && Classify(self, m, l.o.Reach, l.o.Transports) == ClassNative {
			peers[m.UnderlayAddress.Addr().Unmap()] = m
		}
	}
	p := &l.paths
	p.mu.Lock()
	defer p.mu.Unlock()
	now := make(map[[2]netip.AddrPort]bool, len(sample))
	for _, pair := range sample {
		m, ok := peers[pair[1].Addr().Unmap()]
		if !ok || pair[1].Port() == m.UnderlayAddress.Port() || holdNet.Contains(pair[0].Addr().Unmap()) {
			continue // the overlay port: control connections; a guest's end of a splice
		}
		if m.ID == self.ID && m.Kind == kindClient && !slices.Contains(m.Listeners, pair[1].Port()) {
			continue // its 127.0.0.1 is that of every program of the machine
		}
		now[pair] = true
		if !p.seen[pair] {
			p.counts[pathKey{m.ID, pathNative}]++
		}
	}
	p.seen = now
	return len(now)
}

// gaveUp counts a connection that could not be made in any way, as one of what
// would have been the last.
func (l *Layer) gaveUp(m cluster.Member, err error) {
	if m.ID == 0 {
		return // there was nobody
	}
	last := pathRelay
	if only := l.o.Transports; !allows(only, last) {
		last = only[len(only)-1]
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, context.Canceled) && l.ctx.Err() == nil {
		l.paths.fail(m.ID, last)
	}
}
