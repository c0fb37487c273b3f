// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	maxCallTime  = 30 * time.Second
	maxPathsOf   = 8192 // entries one node may report
	maxReporters = 512  // nodes that have left whose counts are kept
	pathsBytes   = maxFrame / 2
)

var (
	errReplaced = errors.New("a newer connection of the same node took over")
	errSilent   = errors.New("the node does not answer")

	// errNotLeading never leaves the seed: elsewhere says it better.
	errNotLeading = errors.New("this seed does not lead")
)

// handle serves one message. It runs on the connection's reader, so messages
// of one member take effect in their order.
func (s *Seed) handle(l *link, source netip.Addr, m message) {
	switch m.Method {
	case methodJoin, methodObserve:
		if err := s.open(l, source, m); err != nil {
			s.log.Info().Stringer("source", source).Err(err).Msg("join refused")
			l.respond(m.ID, nil, err)
		}
		return
	}
	s.mu.Lock()
	id, joined := s.links[l]
	s.mu.Unlock()
	switch {
	case !joined:
		l.respond(m.ID, nil, remoteErrorf(CodeBadRequest, "join or observe first"))
	case m.Method == methodCall:
		l.async(m, func() { s.route(l, id, m) })
	case m.Method == methodPaths:
		var r pathsRequest
		_ = json.Unmarshal(m.Body, &r) // who asks for nothing more is of an older version
		l.respond(m.ID, s.pathsAfter(r.After), nil)
	case id == 0:
		l.respond(m.ID, nil, remoteErrorf(CodeBadRequest, "%s: an observer cannot", m.Method))
	case m.Method == methodStatus:
		s.status(id, l, m.Body)
	case m.Method == methodReport:
		s.report(id, m.Body)
	case m.Method == methodLeave:
		l.respond(m.ID, nil, s.leave(id, l))
	default: // of a newer version
		if m.ID != 0 {
			l.respond(m.ID, nil, remoteErrorf(CodeBadRequest, "unknown request %q", m.Method))
		}
	}
}

// open admits a member or an observer.
func (s *Seed) open(l *link, source netip.Addr, m message) error {
	var r joinRequest
	if err := json.Unmarshal(m.Body, &r); err != nil {
		return remoteErrorf(CodeBadRequest, "%s: %v", m.Method, err)
	}
	if r.Protocol < protocolVersion-1 || r.Protocol > protocolVersion+1 || r.Protocol < 1 {
		return remoteErrorf(CodeUnsupportedVersion, "protocol version %d: this seed speaks %d: use the same Boxer release on both sides", r.Protocol, protocolVersion)
	}
	if r.Network != s.o.Network {
		return remoteErrorf(CodeUnknownNetwork, "unknown network %q: this seed serves another", r.Network)
	}
	if err := l.bound.check(m.Method, r.Hello); err != nil {
		return err
	}
	l.holders = !r.Beside
	if err := s.here(r.Lost); err != nil {
		return err
	}
	if m.Method == methodObserve {
		return s.welcome(l, m.ID, nil)
	}
	if err := r.check(); err != nil {
		return err
	}
	rec, term, err := s.admit(l, source, r)
	if err == nil {
		err = s.confirm(rec, term, r)
	}
	if err == nil {
		err = s.welcome(l, m.ID, rec)
	}
	if errors.Is(err, errNotLeading) {
		return s.elsewhere(0)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	self := rec.member
	s.mu.Unlock()
	s.log.Info().Uint32("node", self.ID).Str("slot", self.Slot).Str("kind", self.Kind).
		Stringer("address", self.OverlayAddress).Str("nat", self.NAT).Uint32("succeeds", self.Succeeds).Msg("member joined")
	return nil
}

// confirm makes an admission durable: an id or address that was told must
// outlive the seed. The only seed has kept what a returning member was told.
func (s *Seed) confirm(rec *record, term uint64, r joinRequest) error {
	if s.replica == nil && r.Resume != 0 {
		s.saver.later()
		return nil
	}
	err := s.keep(term)
	if err == nil || errors.Is(err, errNotLeading) {
		return err
	}
	s.log.Error().Err(err).Msg("cannot admit")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members[rec.member.ID] == rec {
		s.remove(rec, false)
	}
	return remoteErrorf(CodeUnavailable, "the seed cannot admit anybody now: %v", err)
}

func (s *Seed) status(id uint32, l *link, body json.RawMessage) {
	var st Status
	err := json.Unmarshal(body, &st)
	if err == nil {
		err = st.check()
	}
	if err != nil {
		s.log.Warn().Uint32("node", id).Err(err).Msg("status not understood")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.members[id]
	if rec == nil || rec.link != l {
		return
	}
	rec.status = st
	rec.member.State, rec.member.Guest, rec.member.Listeners, rec.member.NATReport = st.State, st.Guest, st.Listeners, st.NATReport
	rec.member.Relay, rec.member.Ends, rec.member.Leaving, rec.member.Load = st.Relay, st.Ends, st.Leaving, st.Load
	s.touch(rec)
	s.watchSuccessor(rec)
}

func (s *Seed) report(id uint32, body json.RawMessage) {
	var paths []Path
	if err := json.Unmarshal(body, &paths); err != nil || len(paths) > maxPathsOf {
		s.log.Warn().Uint32("node", id).Int("paths", len(paths)).Err(err).Msg("paths not understood")
		return
	}
	for i := range paths {
		paths[i].From = id
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[id] = paths
	if len(s.paths) <= len(s.members)+maxReporters {
		return
	}
	var gone []uint32
	for id := range s.paths {
		if s.members[id] == nil {
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	for _, id := range gone[:max(0, len(gone)-maxReporters)] { // nodes come and go for ever
		delete(s.paths, id)
	}
}

// pathsAfter are the counts of the nodes after one, as many as a message takes.
func (s *Seed) pathsAfter(after uint32) []Path {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := map[uint32]string{}
	for name, sl := range s.slots {
		if sl.ID != 0 && s.members[sl.ID] == nil {
			left[sl.ID] = name
		}
	}
	all, size := []Path{}, 0
	for _, id := range slices.Sorted(maps.Keys(s.paths)) {
		if id <= after {
			continue
		}
		before := len(all)
		for _, p := range s.paths[id] {
			p.FromLeft, p.ToLeft = left[p.From], left[p.To]
			all = append(all, p)
		}
		data, _ := json.Marshal(all[before:]) // plain data: cannot fail
		if size += len(data); size > pathsBytes && before > 0 {
			return all[:before]
		}
	}
	return all
}

func (s *Seed) leave(id uint32, l *link) error {
	s.mu.Lock()
	rec := s.members[id]
	if rec == nil || rec.link != l {
		s.mu.Unlock()
		return nil
	}
	s.log.Info().Uint32("node", id).Str("slot", rec.member.Slot).Msg("member left")
	// Clouds repeat the events that start functions; a launch that has ended stays ended.
	// A join token is good for one such launch.
	s.remove(rec, rec.member.Kind == "function" || l.bound != nil)
	s.links[l] = 0
	term := s.term
	s.mu.Unlock()
	err := s.keep(term)
	if err != nil {
		s.log.Error().Err(err).Msg("state not kept")
	}
	return err
}

// route passes a member's request to another and its answer back.
func (s *Seed) route(l *link, from uint32, m message) {
	var r callRequest
	if err := json.Unmarshal(m.Body, &r); err != nil {
		l.respond(m.ID, nil, remoteErrorf(CodeBadRequest, "call: %v", err))
		return
	}
	if l.bound != nil && strings.HasPrefix(r.Method, ControlPrefix) && r.Method != WakeMethod {
		l.respond(m.ID, nil, remoteErrorf(CodeRefused, "%s: a node with a join token cannot change the network: use the network's secret", r.Method))
		return
	}
	s.mu.Lock()
	var target *link
	if rec := s.members[r.To]; rec != nil {
		target = rec.link
	}
	s.mu.Unlock()
	if target == nil {
		l.respond(m.ID, nil, remoteErrorf(CodeNoSuchNode, "node %d is not in the network", r.To))
		return
	}
	timeout := maxCallTime
	if asked := time.Duration(r.TimeoutMS) * time.Millisecond; asked > 0 && asked < timeout {
		timeout = asked
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var out json.RawMessage
	err := target.call(ctx, methodCall, callRequest{From: from, Method: r.Method, Body: r.Body, TimeoutMS: timeout.Milliseconds()}, &out)
	if errors.Is(err, ErrDisconnected) {
		err = remoteErrorf(CodeNoSuchNode, "node %d lost its connection", r.To)
	}
	l.respond(m.ID, out, err)
}
