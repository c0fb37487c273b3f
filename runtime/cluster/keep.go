// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// keep restores the connection whenever it ends, until the session is over.
func (s *Session) keep() {
	defer func() {
		s.readers.Wait()
		s.set.close()
		close(s.done)
	}()
	for {
		select {
		case <-s.ctx.Done():
			return
		case l := <-s.lost:
			s.mu.Lock()
			current := s.link == l
			if current {
				s.link = nil
			}
			s.mu.Unlock()
			if current {
				s.o.Logger.Warn().Err(l.err).Str("seed", s.SeedEndpoint()).Msg("connection to the seed lost; reconnecting")
				s.reconnect()
			}
		}
	}
}

// reconnect tries until it succeeds or the seed gives this node up.
func (s *Session) reconnect() {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = firstRetry, lastRetry
	_, err := backoff.Retry(s.ctx, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(s.ctx, dialTimeout+answerTimeout)
		defer cancel()
		err := s.attach(ctx)
		var remote *RemoteError
		if errors.As(err, &remote) && (remote.Code == CodeRefused || remote.Code == CodeNameTaken) {
			return struct{}{}, backoff.Permanent(err)
		}
		if err != nil {
			s.o.Logger.Debug().Err(err).Msg("reconnect failed; trying again")
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0))
	if err != nil {
		s.finish(err)
		return
	}
	s.o.Logger.Info().Str("seed", s.SeedEndpoint()).Msg("connection to the seed restored")
}

// attach makes a connection the session's own, once its member set is complete.
func (s *Session) attach(ctx context.Context) error {
	s.mu.Lock()
	first := s.at
	s.mu.Unlock()
	l, reply, at, err := s.connect(ctx, first)
	if err != nil {
		return err
	}
	timeout := time.NewTimer(dialTimeout)
	defer timeout.Stop()
	for ready := (*link)(nil); ready != l; {
		select {
		case ready = <-s.synced:
		case <-l.done:
			return fmt.Errorf("%s network %q: seed %s: %w: the connection ended", s.verb(), s.o.Network, s.o.Seeds[at], ErrUnreachable)
		case <-timeout.C:
			l.close(ErrUnreachable)
			return fmt.Errorf("%s network %q: seed %s: %w: it does not send the members", s.verb(), s.o.Network, s.o.Seeds[at], ErrUnreachable)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		l.close(s.err)
		return s.err
	}
	s.link, s.at, s.self, s.cidr, s.preface = l, at, reply.Self, reply.CIDR, reply.PrefaceKey
	if s.member {
		// What was set while the join was under way.
		_ = l.notify(methodStatus, s.status)
		if len(s.paths) > 0 {
			_ = l.notify(methodReport, s.paths)
		}
	}
	return nil
}

// ended is told when a link's reader has stopped.
func (s *Session) ended(l *link) {
	s.set.forget(l)
	select {
	case s.lost <- l:
	case <-s.ctx.Done():
	}
}

// finish ends the session; the first reason is kept.
func (s *Session) finish(reason error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = reason
	}
	l := s.link
	s.link = nil
	s.mu.Unlock()
	s.cancel()
	if l != nil {
		l.close(reason)
	}
}

// serve handles what the seed sends.
func (s *Session) serve(l *link, m message) {
	switch m.Method {
	case methodDelta:
		var d delta
		if err := json.Unmarshal(m.Body, &d); err != nil {
			l.close(fmt.Errorf("membership change not understood: %w", err))
			return
		}
		end, changed := s.set.apply(l, d)
		if end {
			select {
			case s.synced <- l:
			case <-l.done:
			}
		}
		if changed {
			select {
			case s.changed <- struct{}{}:
			default:
			}
		}
	case methodCall:
		l.async(m, func() { s.answer(l, m) })
	case methodReplaced:
		s.o.Logger.Error().Msg("another process of the same launch has taken this node over")
		go s.finish(ErrReplaced)
	default: // of a newer version
		if m.ID != 0 {
			l.respond(m.ID, nil, remoteErrorf(CodeBadRequest, "unknown request %q", m.Method))
		}
	}
}

// answer serves a call of another member.
func (s *Session) answer(l *link, m message) {
	var r callRequest
	if err := json.Unmarshal(m.Body, &r); err != nil {
		l.respond(m.ID, nil, remoteErrorf(CodeBadRequest, "call: %v", err))
		return
	}
	s.mu.Lock()
	handler := s.handlers[r.Method]
	s.mu.Unlock()
	if handler == nil {
		l.respond(m.ID, nil, remoteErrorf(CodeBadRequest, "this node does not answer %q", r.Method))
		return
	}
	timeout := maxCallTime
	if asked := time.Duration(r.TimeoutMS) * time.Millisecond; asked > 0 && asked < timeout {
		timeout = asked
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	out, err := handler(ctx, r.From, r.Body)
	l.respond(m.ID, out, err)
}

func remaining(deadline time.Time) time.Duration { return time.Until(deadline) }
