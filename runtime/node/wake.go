// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

const (
	wakePatience = 20 * time.Second       // the platform's, to start a node
	wakePause    = 100 * time.Millisecond // before the seeds are asked again
)

// sleepers has the controller start the nodes that somebody here connects to.
type sleepers struct {
	n *node

	mu    sync.Mutex
	calls map[string]*wakeCall // under way, by slot
}

// wakeCall is one question, for all who wait for a slot.
type wakeCall struct {
	done chan struct{}
	err  error // once done
}

func (s *sleepers) Asleep(m cluster.Member) bool { return s.n.view.asleep(m) }

// Wake implements transport.Sleepers.
func (s *sleepers) Wake(ctx context.Context, m cluster.Member) error {
	ctx, cancel := context.WithTimeout(ctx, wakePatience)
	defer cancel()
	for {
		now, changed, asleep := s.n.view.awaits(m)
		if !asleep {
			return nil
		}
		call := s.ask(now.Slot)
		select {
		case <-call.done:
			if isAsleep(call.err) {
				return fmt.Errorf("%w: %w", call.err, syscall.ECONNREFUSED)
			}
			select { // it runs, which is to arrive here; or nobody could say
			case <-changed:
			case <-time.After(wakePause):
			case <-ctx.Done():
			}
		case <-changed:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s does not run within %s: %w", m.Slot, wakePatience, syscall.ETIMEDOUT)
		}
	}
}

// ask asks the leading seed, once for all who want to know.
func (s *sleepers) ask(slot string) *wakeCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := s.calls[slot]
	if call == nil {
		call = &wakeCall{done: make(chan struct{})}
		s.calls[slot] = call
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), wakePatience)
			defer cancel()
			began, err := time.Now(), cluster.ErrDisconnected
			if session := s.n.view.current(); session != nil {
				err = session.CallLeader(ctx, controller.MethodWake, controller.Wake{Slot: slot}, nil)
			}
			if isAsleep(err) || err != nil && time.Since(began) > time.Second { // else it is asked again
				s.n.log.Warn().Err(err).Str("slot", slot).Msg("a node that somebody connects to is not started")
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.calls, slot)
			call.err = err
			close(call.done)
		}()
	}
	return call
}

// isAsleep: the controller does not start it, and said why.
func isAsleep(err error) bool {
	return errors.Is(err, &cluster.RemoteError{Code: controller.CodeAsleep})
}

// askedForUse says how much this node's guest is used.
func (n *node) askedForUse(context.Context, uint32, json.RawMessage) (any, error) {
	if n.sockets == nil || n.cfg.Kind == config.KindSeed {
		return nil, errors.New("this node has no guest")
	}
	open, err := n.sockets.Open()
	return controller.Use{Open: open, Made: n.sockets.Made()}, err
}
