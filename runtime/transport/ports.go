// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// Bounds of the ports that connections are punched from.
const (
	sparePorts = 2 // from which a peer has not been dialled
	keptPorts  = 4
	mapAtOnce  = 4
)

// ports are local ports whose place outside is known: a punched connection that
// is held begins from one. As a NAT that can be punched maps a port once, whoever
// it writes to, one serves many peers, but each of them only once: a NAT on the
// way may remember the connection before.
type ports struct {
	l *Layer

	mu      sync.Mutex
	all     []*port // oldest first
	waiting int
	mapping int
	next    *mapped // nil: nobody waits
}

type port struct {
	*Mapping
	behind  netip.AddrPort  // this node's overlay port outside, when it was mapped
	dialled map[uint32]bool // peers
	users   int
	retired bool
}

// mapped is over when there is one more port, or none will come.
type mapped struct {
	over chan struct{}
	err  error
}

// take gives a port from which the peer was not dialled. It must be given back
// when the connection is there, or will not be.
func (p *ports) take(ctx context.Context, peer uint32) (*port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if found := p.find(peer); found != nil {
			p.refill(peer)
			return found, nil
		}
		if err := p.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// find takes the newest port that will do for the peer. Callers hold mu, here and
// below.
func (p *ports) find(peer uint32) *port {
	behind := p.behind()
	for i := len(p.all) - 1; i >= 0; i-- {
		o := p.all[i]
		if o.behind != behind || o.gone() {
			p.retire(i)
			continue
		}
		if !o.dialled[peer] {
			o.dialled[peer] = true
			o.users++
			return o
		}
	}
	return nil
}

// behind tells one NAT from another that has taken its place.
func (p *ports) behind() netip.AddrPort { return reportOf(p.l.o.Members.Self()).Mapped }

func (o *port) gone() bool {
	select {
	case <-o.Gone():
		return true
	default:
		return false
	}
}

// refill maps ports that will do for the peer's next connections.
func (p *ports) refill(peer uint32) {
	good := 0
	for _, o := range p.all {
		if !o.dialled[peer] {
			good++
		}
	}
	if good+p.mapping < sparePorts {
		p.more()
	}
}

// wait waits until one more port is mapped. mu is not held meanwhile.
func (p *ports) wait(ctx context.Context) error {
	p.waiting++
	defer func() { p.waiting-- }()
	if p.mapping < min(p.waiting, mapAtOnce) && !p.more() {
		return errLeaving
	}
	if p.next == nil {
		p.next = &mapped{over: make(chan struct{})}
	}
	next := p.next
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-next.over:
		return next.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// more maps a port in the background.
func (p *ports) more() bool {
	behind := p.behind()
	begun := p.l.spawn(func() {
		m, err := p.l.mapPort(p.l.ctx, 0)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mapping--
		p.add(m, behind, err)
	})
	if begun {
		p.mapping++
	}
	return begun
}

// add tells those who wait that a port was mapped, or that none was and no other
// is under way.
func (p *ports) add(m *Mapping, behind netip.AddrPort, err error) {
	if err == nil {
		p.all = append(p.all, &port{Mapping: m, behind: behind, dialled: map[uint32]bool{}})
		for len(p.all) > keptPorts {
			p.retire(0)
		}
	}
	if p.next != nil && (err == nil || p.mapping == 0) {
		p.next.err = err
		close(p.next.over)
		p.next = nil
	}
}

// retire lets the i-th port go when nobody uses it any more.
func (p *ports) retire(i int) {
	o := p.all[i]
	p.all = slices.Delete(p.all, i, i+1)
	o.retired = true
	if o.users == 0 {
		go o.Close()
	}
}

// give ends the use of a port.
func (p *ports) give(o *port) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.users--
	if o.retired && o.users == 0 {
		go o.Close()
	}
}

// close gives all back. Nobody uses one any more.
func (p *ports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.all {
		o.Close()
	}
	p.all = nil
}
