// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

type pathKey struct {
	to        uint32
	transport string
}

// paths counts the connections this node made.
type paths struct {
	mu     sync.Mutex
	counts map[pathKey]uint64
	seen   map[[2]netip.AddrPort]bool // native ones of the last sample
}

func (p *paths) add(to uint32, transport string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[pathKey{to, transport}]++
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
	list := make([]cluster.Path, 0, len(p.counts))
	for key, count := range p.counts {
		list = append(list, cluster.Path{From: from, To: key.to, Transport: key.transport, Count: count})
	}
	slices.SortFunc(list, func(a, b cluster.Path) int {
		return cmp.Or(cmp.Compare(a.To, b.To), cmp.Compare(a.Transport, b.Transport))
	})
	return list
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
		now[pair] = true
		if !p.seen[pair] {
			p.counts[pathKey{m.ID, pathNative}]++
		}
	}
	p.seen = now
	return len(now)
}
