// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// Platform tells a wait what the network itself cannot.
type Platform interface {
	// Ended is an error if what was launched ended before it joined.
	Ended(ctx context.Context, want Want) error
	// Failed says why the guest of a member does not run.
	Failed(ctx context.Context, want Want, m cluster.Member) error
	// Late says what was waited for in vain, and that the first of it has joined.
	Late(ctx context.Context, missing []string, first Want, joined bool, waited time.Duration) error
	// Lost says that the members cannot be seen any more.
	Lost(err error) error
	// Waiting is told now and then what is still waited for.
	Waiting(ctx context.Context, waited time.Duration, missing []string)
}

// wordEvery is how often Waiting is told, at most.
const wordEvery = 2 * time.Second

// Await returns the members of all wants, in their order, once each is running, with the
// session of an observer. It returns an error as soon as one cannot run any more, or when
// ctx ends. The platform is asked once in every.
func Await(ctx context.Context, session *cluster.Session, wants []Want, every time.Duration, p Platform) ([]cluster.Member, error) {
	events, cancel := session.Subscribe()
	defer cancel()
	return AwaitIn(ctx, session, events, wants, every, p)
}

// AwaitIn is Await by what was subscribed to before the launches: who joins and ends
// at once is not missed.
func AwaitIn(ctx context.Context, session *cluster.Session, events <-chan cluster.Event, wants []Want, every time.Duration, p Platform) ([]cluster.Member, error) {
	start := time.Now()
	w := &wait{p: p, wants: wants, seen: map[string]cluster.Member{}, holders: map[string]*Holder{}}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for lastWord := start; ; {
		found, missing, err := w.check(ctx)
		if err != nil || len(missing) == 0 {
			return found, err
		}
		if time.Since(lastWord) > wordEvery {
			lastWord = time.Now()
			p.Waiting(ctx, time.Since(start).Round(time.Second), missing)
		}
		select {
		case <-ctx.Done():
			first, joined := w.first()
			return nil, p.Late(ctx, missing, first, joined, time.Since(start).Round(time.Second))
		case ev, open := <-events:
			if !open {
				return nil, p.Lost(session.Err())
			}
			w.note(ev)
		case <-tick.C:
			if err := w.checkPlatform(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// wait is one Await under way.
type wait struct {
	p       Platform
	wants   []Want
	seen    map[string]cluster.Member // by launch, as they were last, those that left included
	holders map[string]*Holder        // by slot: other launches
}

func (w *wait) note(ev cluster.Event) {
	m := ev.Member
	for _, want := range w.wants {
		switch {
		case m.Slot != want.Slot:
		case want.Takes(m, w.seen[want.launch()]):
			w.seen[want.launch()] = m
		case m.LaunchID != want.launch() && want.Contends(m):
			if w.holders[m.Slot] == nil {
				w.holders[m.Slot] = &Holder{}
			}
			w.holders[m.Slot].Note(ev)
		}
	}
}

// check sorts the wants into running members and missing slots.
func (w *wait) check(ctx context.Context) ([]cluster.Member, []string, error) {
	found := make([]cluster.Member, 0, len(w.wants))
	var missing []string
	for _, want := range w.wants {
		m, ok := w.seen[want.launch()]
		switch {
		case !ok:
			missing = append(missing, want.Slot)
		case m.State == cluster.StateRunning, want.JoinOnly && m.State != cluster.StateLost && m.State != cluster.StateLeft:
			found = append(found, m)
		case m.Guest.State == cluster.GuestFailed || m.Guest.State == cluster.GuestExited:
			return nil, nil, w.p.Failed(ctx, want, m)
		default:
			missing = append(missing, want.Slot+" ("+Waits(m)+")")
		}
	}
	if len(missing) > 0 {
		found = nil
	}
	return found, missing, nil
}

// checkPlatform notices what ended before it ever joined, and slots that others hold.
func (w *wait) checkPlatform(ctx context.Context) error {
	for _, want := range w.wants {
		if m, joined := w.seen[want.launch()]; joined && m.State != cluster.StateLeft {
			continue
		}
		if h := w.holders[want.Slot]; h != nil {
			if err := h.Taken(want.Slot); err != nil {
				return err
			}
		}
		if err := w.p.Ended(ctx, want); err != nil {
			return err
		}
	}
	return nil
}

// first is the first launch that is still waited for, and whether it has joined.
func (w *wait) first() (first Want, joined bool) {
	for _, want := range w.wants {
		if m, ok := w.seen[want.launch()]; !ok || m.State != cluster.StateRunning {
			return want, ok
		}
	}
	return w.wants[0], true
}
