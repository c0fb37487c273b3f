// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"golang.org/x/sys/unix"
)

// Timing of what keeps the overlay port mapped: that a NAT was replaced is noticed
// with the next sign of life, as the new one has no such connection.
const (
	mappedIdle   = 1 * time.Second
	hairpinAlone = 200 * time.Millisecond  // for a SYN that nobody has invited
	hairpinWait  = 1300 * time.Millisecond // a SYN that was too early comes again after 1 s
	remapPause   = 200 * time.Millisecond
	longestRemap = 2 * time.Second
	relearnPause = time.Second // before what is not known is asked again, at first; doubling,
	relearnTries = 6           // so many times
	dialTries    = 3
	dialPause    = time.Second // more is not allowed (probes.mayDial)
	maxOthers    = 2           // witnesses of one probing, besides the one that keeps the mapping
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
			known = l.watchNAT(ctx, m, known, tell)
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

// watchNAT learns what is not known of the NAT, until the mapping is gone. When many
// nodes start at once witnesses may be too busy to answer: without another look such a
// node would be met at relays as long as it lives.
func (l *Layer) watchNAT(ctx context.Context, m *Mapping, known cluster.NATReport, tell func(cluster.NATReport)) cluster.NATReport {
	whole := known.Mapping != "" && known.Filtering != ""
	if m.Mapped != known.Mapped {
		known, whole = l.learn(ctx, m, known, tell)
	}
	for pause, tries := relearnPause, 0; ; pause, tries = 2*pause, tries+1 {
		var again <-chan time.Time
		if !whole && tries < relearnTries {
			again = time.After(pause)
		}
		select {
		case <-again:
			known, whole = l.learn(ctx, m, known, tell)
		case <-m.Gone():
			return known
		case <-ctx.Done():
			return known
		}
	}
}

// learn probes a NAT that is new. Who reached this node at its place before is
// told the new one at once. whole: there is nothing that nobody could tell now.
func (l *Layer) learn(ctx context.Context, m *Mapping, known cluster.NATReport, tell func(cluster.NATReport)) (r cluster.NATReport, whole bool) {
	again := known.Mapped == m.Mapped
	if known.Mapped.IsValid() && !again {
		known.Mapped = m.Mapped
		tell(known)
	}
	before := cluster.NATReport{}
	if again {
		before = known
	}
	r, whole = l.examineNAT(ctx, m, before, func(r cluster.NATReport) {
		if !known.Mapped.IsValid() {
			tell(r) // the guest will not wait for the rest
		}
	})
	if ctx.Err() == nil {
		l.o.Logger.Info().Stringer("mapped", r.Mapped).Str("mapping", r.Mapping).Str("filtering", r.Filtering).
			Str("unexpected", r.Unexpected).Bool("preserves_ports", r.Preserves).Bool("hairpin", r.Hairpin).Msg("NAT probed")
		tell(r)
	}
	return r, whole
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
// and tells early what takes no waiting. Not whole: not everybody could answer. What
// was known of it before stays: another look that fails must not make it worse.
func (l *Layer) examineNAT(ctx context.Context, m *Mapping, before cluster.NATReport, early func(cluster.NATReport)) (r cluster.NATReport, whole bool) {
	r = before
	r.Mapped = m.Mapped
	look := func(place string) {
		if mapping := l.mappingOf(ctx, m, place); mapping != "" && r.Mapping != cluster.MappingDependent {
			r.Mapping = mapping
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		others := slices.DeleteFunc(l.witnesses(), func(w RelayNode) bool { return w.ID == m.witness.ID })
		others = others[:min(len(others), maxOthers)]
		if m.second != 0 {
			look(at(m.witness.Endpoint, m.second))
		}
		early(cluster.NATReport{Mapped: m.Mapped, Mapping: r.Mapping})
		if r.Filtering == "" { // else the others may have been written to
			if r.Filtering, r.Unexpected, whole = l.filteringOf(ctx, m, others); !whole {
				return
			}
		}
		for _, w := range others { // only now: they must not have been written to
			look(w.Endpoint)
		}
		whole = r.Mapping != ""
	})
	all.Go(func() {
		if other, err := l.mapPort(ctx, 0); err == nil {
			defer other.Close()
			r.Preserves = r.Preserves || m.Local == m.Mapped.Port() && other.Local == other.Mapped.Port()
			r.HairpinOpen = r.HairpinOpen || comesBack(ctx, hairpinAlone, other, m)
			if r.Hairpin = r.Hairpin || r.HairpinOpen; r.Hairpin {
				return
			}
			// From a port of which the NAT remembers no refused attempt.
			if fresh, err := l.mapPort(ctx, 0); err == nil {
				defer fresh.Close()
				r.Hairpin = hairpins(ctx, m, fresh)
			}
		}
	})
	all.Wait()
	return r, whole
}

// witnesses are the nodes that answer probes: seeds, which stay, a different one
// first for each node, then others that relay.
func (l *Layer) witnesses() []RelayNode {
	seeds, rest := []RelayNode(nil), []RelayNode(nil)
	for _, r := range l.relays() {
		if r.Seed {
			seeds = append(seeds, r)
		} else {
			rest = append(rest, r)
		}
	}
	if len(seeds) > 0 {
		first := int(l.o.Members.Self().ID) % len(seeds)
		seeds = slices.Concat(seeds[first:], seeds[:first])
	}
	return append(seeds, rest...)
}

// mappingOf asks from the same port at another place.
func (l *Layer) mappingOf(ctx context.Context, m *Mapping, place string) string {
	conn, a, err := l.probe(ctx, place, m.Local, preface{})
	if err != nil {
		return ""
	}
	reset(conn)
	if a.observed != m.Mapped {
		return cluster.MappingDependent
	}
	return cluster.MappingIndependent
}

// filteringOf has a node dial the mapped port from a port that nothing was sent
// to, and, where there are several, from such an address. Not ok: nobody has dialled it.
func (l *Layer) filteringOf(ctx context.Context, m *Mapping, others []RelayNode) (filtering, unexpected string, ok bool) {
	asked := append([]RelayNode{m.witness}, others...)
	ask := preface{flags: probeDial, src: netip.AddrPortFrom(netip.Addr{}, m.Mapped.Port())}
	a := answer{}
	for range dialTries {
		conn, again, err := l.probe(ctx, asked[len(asked)-1].Endpoint, 0, ask)
		if err != nil {
			return "", "", false
		}
		reset(conn)
		if a = again; a.verdict != verdictNone {
			break
		}
		select { // a burst of nodes asks
		case <-time.After(dialPause):
		case <-ctx.Done():
			return "", "", false
		}
	}
	switch {
	case a.observed.Addr() != m.Mapped.Addr(): // a NAT of several addresses: another one was dialled
		return "", "", true
	case a.verdict == verdictOpen:
		return cluster.FilteringOpen, "", true
	case a.verdict == verdictRefused:
		return cluster.FilteringClosed, cluster.UnexpectedReset, true
	case a.verdict == verdictSilent:
		return cluster.FilteringClosed, cluster.UnexpectedDrop, true
	}
	return "", "", false
}

// comesBack tells whether what leaves one mapped port arrives at another.
func comesBack(ctx context.Context, wait time.Duration, from, to *Mapping) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conn, err := dialFrom(ctx, from.Local, to.Mapped.String())
	if err != nil {
		return false
	}
	reset(conn)
	return true
}

// hairpins tells whether two mapped ports of this node reach each other through
// the NAT. Both dial: neither is uninvited then.
func hairpins(ctx context.Context, a, b *Mapping) bool {
	ctx, cancel := context.WithTimeout(ctx, hairpinWait)
	defer cancel()
	met := make(chan bool, 2)
	for _, way := range [][2]*Mapping{{a, b}, {b, a}} {
		go func() { met <- comesBack(ctx, hairpinWait, way[0], way[1]) }()
	}
	first := <-met
	if first {
		cancel()
	}
	return <-met || first
}
