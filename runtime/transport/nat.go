// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"golang.org/x/sys/unix"
)

// Timing of what keeps the overlay port mapped. A NAT that has gone is noticed
// as soon as the seed would notice it.
const (
	mappedIdle   = 2 * time.Second
	hairpinWait  = 700 * time.Millisecond
	remapPause   = 200 * time.Millisecond
	longestRemap = 10 * time.Second
)

// KeepMapped holds the mapping of this node's overlay port in its NAT until ctx
// ends, and tells what that NAT is like: when it has found out, about a second
// later, and again when it has changed. The listener must be shared (Share).
func (l *Layer) KeepMapped(ctx context.Context, port uint16, tell func(cluster.NATReport)) error {
	var known cluster.NATReport
	for pause := remapPause; ctx.Err() == nil; pause = min(2*pause, longestRemap) {
		began := time.Now()
		m, err := l.mapPort(ctx, port)
		if err == nil {
			m.hold(mappedIdle)
			if m.Mapped != known.Mapped {
				known = l.learn(ctx, m, known, tell)
			}
			select {
			case <-m.Gone():
			case <-ctx.Done():
			}
			m.Close()
		} else if ctx.Err() == nil {
			l.o.Logger.Debug().Err(err).Msg("the overlay port is not mapped")
		}
		if time.Since(began) > longestRemap {
			pause = remapPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// learn probes a NAT that is new. Who reached this node at its place before is
// told the new one at once.
func (l *Layer) learn(ctx context.Context, m *Mapping, known cluster.NATReport, tell func(cluster.NATReport)) cluster.NATReport {
	if known.Mapped.IsValid() {
		known.Mapped = m.Mapped
		tell(known)
	}
	r := l.examineNAT(ctx, m, func(r cluster.NATReport) {
		if !known.Mapped.IsValid() {
			tell(r) // the guest will not wait for the rest
		}
	})
	if ctx.Err() == nil {
		l.o.Logger.Info().Stringer("mapped", r.Mapped).Str("mapping", r.Mapping).Str("filtering", r.Filtering).
			Str("unexpected", r.Unexpected).Bool("preserves_ports", r.Preserves).Bool("hairpin", r.Hairpin).Msg("NAT probed")
		tell(r)
	}
	return r
}

// hold sets how long the connection may be silent before the kernel looks.
func (m *Mapping) hold(idle time.Duration) {
	if c, err := m.conn.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) {
			for option, value := range map[int]int{unix.TCP_KEEPIDLE: int(idle.Seconds()), unix.TCP_KEEPINTVL: 1, unix.TCP_KEEPCNT: 4} {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value)
			}
		})
	}
}

// examineNAT finds out what the NAT in front of a mapped, listening port does,
// and tells early what takes no waiting.
func (l *Layer) examineNAT(ctx context.Context, m *Mapping, early func(cluster.NATReport)) cluster.NATReport {
	r := cluster.NATReport{Mapped: m.Mapped}
	var all sync.WaitGroup
	all.Go(func() {
		r.Mapping = l.mappingOf(ctx, m)
		early(cluster.NATReport{Mapped: m.Mapped, Mapping: r.Mapping})
	})
	all.Go(func() { r.Filtering, r.Unexpected = l.filteringOf(ctx, m) })
	all.Go(func() {
		if other, err := l.mapPort(ctx, 0); err == nil {
			defer other.Close()
			r.Preserves = m.Local == m.Mapped.Port() && other.Local == other.Mapped.Port()
			r.Hairpin = hairpins(ctx, m, other)
		}
	})
	all.Wait()
	return r
}

// mappingOf asks from the same port at other places. The last seed is left to
// filteringOf: it must not have been written to from this port.
func (l *Layer) mappingOf(ctx context.Context, m *Mapping) string {
	var places []string
	if m.second != 0 {
		places = append(places, at(m.seed.Endpoint, m.second))
	}
	if seeds := l.relays(); len(seeds) > 1 {
		for _, seed := range seeds[:len(seeds)-1] {
			if seed.ID != m.seed.ID {
				places = append(places, seed.Endpoint)
			}
		}
	}
	mapping := ""
	for _, place := range places {
		conn, a, err := l.probe(ctx, place, m.Local, preface{})
		if err != nil {
			continue
		}
		reset(conn)
		if a.observed != m.Mapped {
			return cluster.MappingDependent
		}
		mapping = cluster.MappingIndependent
	}
	return mapping
}

// filteringOf has a seed dial the mapped port from a port that nothing was sent
// to, and, where there are several, from an address as well.
func (l *Layer) filteringOf(ctx context.Context, m *Mapping) (filtering, unexpected string) {
	seeds := l.relays()
	if len(seeds) == 0 {
		return "", ""
	}
	ask := preface{flags: probeDial, src: netip.AddrPortFrom(netip.Addr{}, m.Mapped.Port())}
	conn, a, err := l.probe(ctx, seeds[len(seeds)-1].Endpoint, 0, ask)
	if err != nil {
		return "", ""
	}
	reset(conn)
	switch {
	case a.observed.Addr() != m.Mapped.Addr(): // a NAT of several addresses: another one was dialled
	case a.verdict == verdictOpen:
		return cluster.FilteringOpen, ""
	case a.verdict == verdictRefused:
		return cluster.FilteringClosed, cluster.UnexpectedReset
	case a.verdict == verdictSilent:
		return cluster.FilteringClosed, cluster.UnexpectedDrop
	}
	return "", ""
}

// hairpins tells whether two mapped ports of this node reach each other through
// the NAT. Both dial: neither is uninvited then.
func hairpins(ctx context.Context, a, b *Mapping) bool {
	ctx, cancel := context.WithTimeout(ctx, hairpinWait)
	defer cancel()
	met := make(chan bool, 2)
	for _, way := range [][2]*Mapping{{a, b}, {b, a}} {
		go func() {
			conn, err := dialFrom(ctx, way[0].Local, way[1].Mapped.String())
			if err == nil {
				reset(conn)
			}
			met <- err == nil
		}()
	}
	first := <-met
	if first {
		cancel()
	}
	return <-met || first
}
