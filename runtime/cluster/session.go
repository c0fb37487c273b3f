// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Session is a live membership (Join) or observation (Observe). It reconnects
// by itself, to the same id, until it is left, closed or given up by the seed.
type Session struct {
	o        Options
	identity *identity
	member   bool

	mu       sync.Mutex
	link     *link // nil while disconnected
	at       int   // index of the seed in o.Seeds
	self     Member
	cidr     netip.Prefix
	preface  []byte
	status   Status
	paths    []Path
	handlers map[string]Handler
	err      error

	set     memberSet
	changed chan struct{}
	synced  chan *link // a link whose first full set is complete
	lost    chan *link // a link that ended
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
	readers sync.WaitGroup
}

// Join makes this node a member. The session outlives ctx: end it with Leave or Close.
func Join(ctx context.Context, o Options) (*Session, error) {
	o.Hello.Network = o.Network
	if o.Hello.Name == "" {
		o.Hello.Name = o.Hello.Slot
	}
	if o.Hello.Service == "" {
		o.Hello.Service = o.Hello.Name
	}
	if o.Hello.LaunchToken == "" {
		token := make([]byte, 16)
		_, _ = rand.Read(token) // never fails
		o.Hello.LaunchToken = hex.EncodeToString(token)
	}
	if o.Status.State == "" {
		o.Status.State = StateStarting
	}
	return open(ctx, o, true)
}

// Observe watches the network without being a member.
func Observe(ctx context.Context, o Options) (*Session, error) {
	return open(ctx, o, false)
}

func open(ctx context.Context, o Options, member bool) (*Session, error) {
	setTiming(&o.Heartbeat, &o.Silence, len(o.Seeds) > 1)
	s := &Session{
		o: o, member: member, status: o.Status, handlers: maps.Clone(o.Handlers),
		changed: make(chan struct{}, 1), synced: make(chan *link, 1), lost: make(chan *link, 1),
		done: make(chan struct{}),
	}
	if s.handlers == nil {
		s.handlers = map[string]Handler{}
	}
	s.set.init()
	if len(o.Seeds) == 0 {
		return nil, fmt.Errorf("%s network %q: no seed address given", s.verb(), o.Network)
	}
	var err error
	if s.identity, err = o.identity(); err != nil {
		return nil, fmt.Errorf("%s network %q: %w", s.verb(), o.Network, err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.attach(ctx); err != nil {
		s.cancel()
		s.readers.Wait()
		return nil, err
	}
	go s.keep()
	return s, nil
}

func (o *Options) identity() (*identity, error) {
	if o.Token != nil {
		return tokenIdentity(o.Token)
	}
	return newIdentity(o.Network, o.Secret)
}

func (s *Session) verb() string {
	if s.member {
		return "join"
	}
	return "observe"
}

// Self is this node as the seed knows it (the zero Member for an observer).
func (s *Session) Self() Member {
	s.mu.Lock()
	self := s.self
	s.mu.Unlock()
	if now, ok := s.set.get(self.ID); ok {
		return now
	}
	return self
}

// CIDR is the overlay network.
func (s *Session) CIDR() netip.Prefix {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cidr
}

// PrefaceKey is what the seed told a node that joined with a token.
func (s *Session) PrefaceKey() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.preface
}

// SeedEndpoint is the seed of the current (or last) connection, as given in Options.Seeds.
func (s *Session) SeedEndpoint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Seeds[s.at]
}

// Connected reports whether the seed is in reach now.
func (s *Session) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link != nil
}

// Members are all live members, lost ones and this one included, by id.
func (s *Session) Members() []Member { return s.set.list() }

// Network are the members and the reserved slots of one moment.
func (s *Session) Network() ([]Member, []Reserved) { return s.set.all() }

// Member finds one by id.
func (s *Session) Member(id uint32) (Member, bool) { return s.set.get(id) }

// Changed receives after the member set has changed; changes coalesce.
func (s *Session) Changed() <-chan struct{} { return s.changed }

// Subscribe streams the current members as joins, then every change, until
// the returned function is called or the session ends; then the channel is closed.
func (s *Session) Subscribe() (<-chan Event, func()) { return s.set.subscribe() }

// SetStatus announces the latest status. While the seed is out of reach it is
// kept, and announced with the reconnect.
func (s *Session) SetStatus(_ context.Context, st Status) error {
	st.Listeners = slices.Clone(st.Listeners)
	if err := st.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.status = st
	if s.link == nil {
		return nil
	}
	if err := s.link.notify(methodStatus, st); !errors.Is(err, ErrDisconnected) {
		return err
	}
	return nil
}

// ReportPaths announces this node's counts (all of them, not differences).
func (s *Session) ReportPaths(p []Path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths = slices.Clone(p)
	if s.link != nil {
		_ = s.link.notify(methodReport, s.paths) // repeated with the reconnect
	}
}

// Paths asks the seed for all nodes' counts.
func (s *Session) Paths(ctx context.Context) ([]Path, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	all := []Path{}
	for after := uint32(0); ; {
		var part []Path
		if err := l.call(ctx, methodPaths, pathsRequest{After: after}, &part); err != nil {
			return nil, err
		}
		if len(part) == 0 || part[0].From <= after { // an older seed says all at once
			return all, nil
		}
		all, after = append(all, part...), part[len(part)-1].From
	}
}

// Call asks node `to`, through the seed. What that node refuses with comes
// back as a *RemoteError.
func (s *Session) Call(ctx context.Context, to uint32, method string, in, out any) error {
	l, err := s.current()
	if err != nil {
		return fmt.Errorf("call %s of node %d: %w", method, to, err)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("call %s of node %d: %w", method, to, err)
	}
	r := callRequest{To: to, Method: method, Body: body}
	if deadline, ok := ctx.Deadline(); ok {
		r.TimeoutMS = max(1, remaining(deadline).Milliseconds())
	}
	if err := l.call(ctx, methodCall, r, out); err != nil {
		return fmt.Errorf("call %s of node %d: %w", method, to, err)
	}
	return nil
}

// CallLeader asks the seed that leads, once.
func (s *Session) CallLeader(ctx context.Context, method string, in, out any) error {
	var seeds []Member
	for _, m := range s.Members() {
		if m.Kind == kindSeed && m.State == StateRunning {
			seeds = append(seeds, m)
		}
	}
	for _, m := range seeds {
		if m.Leader || len(seeds) == 1 {
			return s.Call(ctx, m.ID, method, in, out)
		}
	}
	return fmt.Errorf("%w: no seed of the network leads at the moment", ErrUnavailable)
}

// Handle answers other nodes' calls of method.
func (s *Session) Handle(method string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[method] = h
}

// Leave says good-bye and closes. The seed not being in reach is an error, but
// the session is closed all the same.
func (s *Session) Leave(ctx context.Context) error {
	l, err := s.current()
	if err == nil && s.member {
		err = l.call(ctx, methodLeave, nil, nil)
	}
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("leave network %q: %w", s.o.Network, err)
	}
	return nil
}

// Close ends the session without a word: the seed counts the node as lost.
func (s *Session) Close() error {
	s.finish(ErrClosed)
	<-s.done
	return nil
}

// Done is closed when the session has ended for good; Err then says why.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is nil until the session has ended.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Session) current() (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if s.link == nil {
		return nil, ErrDisconnected
	}
	return s.link, nil
}
