// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// connect tries the seeds in turn, beginning with the one at index first and
// going where they point, and opens an authenticated link with the first that
// admits this node.
func (s *Session) connect(ctx context.Context, first int) (*link, *joinReply, int, error) {
	var failures []error
	tried := make([]bool, len(s.o.Seeds))
	lost := 0
	for at := first; at >= 0; at = next(tried, at, lost, failures) {
		tried[at] = true
		l, reply, err := s.connectTo(ctx, s.o.Seeds[at], lost)
		if err == nil {
			return l, reply, at, nil
		}
		if errors.Is(err, ErrUnreachable) && lost == 0 {
			lost = at + 1
		}
		failure := fmt.Errorf("seed %s: %w", s.o.Seeds[at], err)
		if final(err) || ctx.Err() != nil {
			failures = []error{failure}
			break
		}
		failures = append(failures, failure)
	}
	return nil, nil, 0, fmt.Errorf("%s network %q: %w", s.verb(), s.o.Network, joinErrors(failures))
}

// next is the seed to try after the one at index at: the leader it named, which
// may have come to lead only now, or the next in turn; -1 when there is none.
func next(tried []bool, at, lost int, failures []error) int {
	var remote *RemoteError
	if errors.As(failures[len(failures)-1], &remote) && remote.Leader > 0 && remote.Leader <= len(tried) &&
		remote.Leader != lost && len(failures) < 2*len(tried) {
		return remote.Leader - 1
	}
	for i := range tried {
		if n := (at + i) % len(tried); !tried[n] {
			return n
		}
	}
	return -1
}

// final: another seed would answer the same.
func final(err error) bool {
	var remote *RemoteError
	if !errors.As(err, &remote) {
		return false
	}
	switch remote.Code {
	case CodeWrongSecret, CodeUnknownNetwork, CodeNotLeader, CodeUnavailable:
		return false
	}
	return true
}

func joinErrors(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	joined := errs[0]
	for _, err := range errs[1:] {
		joined = fmt.Errorf("%w; %w", joined, err)
	}
	return joined
}

func (s *Session) connectTo(ctx context.Context, endpoint string, lost int) (*link, *joinReply, error) {
	limit := dialTimeout
	if len(s.o.Seeds) > 1 || s.CIDR().IsValid() { // or it was there: a link that was cut may be mended any moment
		limit = shortDial
	}
	dialing, cancelDial := context.WithTimeout(ctx, limit)
	defer cancelDial()
	conn, err := s.dial(dialing, endpoint)
	if err != nil {
		return nil, nil, describeDial(err)
	}
	conn = keepVigil(conn)
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	secured := tls.Client(conn, s.identity.config(x509.ExtKeyUsageServerAuth, alpn))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, nil, describeHandshake(err)
	}
	l := newLink(secured, s.o.Heartbeat, s.o.Silence, s.serve)
	s.readers.Add(1)
	go func() {
		defer s.readers.Done()
		_ = l.run() // the link keeps the reason
		s.ended(l)
	}()
	reply, err := s.enter(ctx, l, lost)
	if err != nil {
		l.close(err)
		return nil, nil, err
	}
	return l, reply, nil
}

// enter joins or observes over a fresh link.
func (s *Session) enter(ctx context.Context, l *link, lost int) (*joinReply, error) {
	method := methodObserve
	r := joinRequest{Protocol: protocolVersion, Network: s.o.Network, Lost: lost, Beside: true}
	if s.member {
		method = methodJoin
		s.mu.Lock()
		r.Hello, r.Status, r.Resume = s.o.Hello, s.status, s.self.ID
		s.mu.Unlock()
	}
	var reply joinReply
	if err := l.call(ctx, method, r, &reply); err != nil {
		if errors.Is(err, ErrDisconnected) || ctx.Err() != nil {
			l.mu.Lock()
			reason := l.err
			l.mu.Unlock()
			return nil, describeHandshake(errors.Join(reason, ctx.Err()))
		}
		return nil, err
	}
	if !reply.CIDR.IsValid() || s.member && reply.Self.ID == 0 {
		return nil, remoteErrorf(CodeUnsupportedVersion, "the seed's answer is not understood: use the same Boxer release on both sides")
	}
	return &reply, nil
}

// dial makes the connection from the address the node declares, so that the
// seed sees whether the node can be reached there.
func (s *Session) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	if s.o.Dial != nil {
		return s.o.Dial(ctx, "tcp", endpoint)
	}
	var d net.Dialer
	if own := s.o.Hello.UnderlayAddress; s.member && own.IsValid() && !own.IsUnspecified() {
		bound := d
		bound.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(own, 0))
		conn, err := bound.DialContext(ctx, "tcp", endpoint)
		// Not this machine's, or of another family: the kernel chooses.
		if err == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EINVAL) {
			return conn, err
		}
	}
	return d.DialContext(ctx, "tcp", endpoint)
}

func describeDial(err error) error {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("connection refused: no seed is running there; start the network or check the address (%w)", ErrUnreachable)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return fmt.Errorf("no answer in time: the host is down or a firewall drops the connection; check the address and that its overlay port is open (%w)", ErrUnreachable)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Errorf("no route to the host: check the address and this machine's network (%w)", ErrUnreachable)
	case errors.As(err, &dns):
		return fmt.Errorf("the host name cannot be resolved: check the address (%w: %w)", ErrUnreachable, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// describeHandshake: our own verification comes back as a RemoteError with its
// message; anything else means that what listens there speaks otherwise.
func describeHandshake(err error) error {
	var remote *RemoteError
	var alert *net.OpError // how crypto/tls wraps an alert of the other side
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &remote):
		return remote
	case errors.As(err, &alert) && alert.Op == "remote error":
		return remoteErrorf(CodeWrongSecret, "wrong secret: the seed refused this node's proof (%v): check the secret file and the clock of this node", alert.Err)
	case errors.As(err, &header):
		return fmt.Errorf("what listens there is not a seed: check the address (%w: %w)", ErrUnreachable, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("connected, but the seed did not answer in time: it may be stopped or overloaded; try again (%w)", ErrUnreachable)
	}
	return fmt.Errorf("the connection ended before the seed answered: it is stopping, or refuses this address after too many failed attempts; try again in a few seconds (%w: %w)", ErrUnreachable, err)
}
