// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"
)

// Restart policies.
const (
	RestartNo        = "no"
	RestartOnFailure = "on-failure"
	RestartAlways    = "always"
)

// Phases of a guest.
const (
	PhaseStarting = "starting" // only told by Options.Starting
	PhaseRunning  = "running"
	PhaseWaiting  = "waiting" // ended, to be restarted
	PhaseExited   = "exited"
	PhaseFailed   = "failed" // could not be started
)

const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 10 * time.Second
	// healthy: a guest that ran so long is restarted without delay again.
	healthy = 30 * time.Second
	// DefaultGrace is what a guest has between SIGTERM and SIGKILL.
	DefaultGrace = 8 * time.Second
)

// State is where the guest stands.
type State struct {
	Phase     string
	PID       int
	StartTime uint64
	ExitCode  *int // of the last run; nil: none, or unknown
	Restarts  int
	Err       error // a *StartError, in PhaseFailed
}

// Options of a Guest.
type Options struct {
	Spec    Spec
	Restart string // default no
	Grace   time.Duration
	// Starting is told just before each start: who is killed then can know that there
	// may be a guest.
	Starting func()
	// Changed is told of every state, in order.
	Changed func(State)
	Logger  zerolog.Logger
}

// Guest keeps one program running as its policy says.
type Guest struct {
	o     Options
	delay *backoff.ExponentialBackOff

	mu      sync.Mutex
	current *Process
}

// NewGuest prepares; Run runs.
func NewGuest(o Options) *Guest {
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.Changed == nil {
		o.Changed = func(State) {}
	}
	if o.Starting == nil {
		o.Starting = func() {}
	}
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval, delay.Multiplier = firstDelay, lastDelay, 2
	return &Guest{o: o, delay: delay}
}

// Run returns when the guest has ended for good. When ctx ends it is asked to
// terminate, and killed after the grace. With adopted set, that process counts
// as its current run, after so many restarts.
func (g *Guest) Run(ctx context.Context, adopted *Process, restarts int) State {
	st := State{Restarts: restarts}
	for {
		p := adopted
		adopted = nil
		if p == nil {
			if ctx.Err() != nil {
				return g.ended(st)
			}
			g.o.Starting()
			var err error
			if p, err = Start(g.o.Spec); err != nil {
				return g.failed(st, err)
			}
		}
		began := time.Now()
		st.Phase, st.PID, st.StartTime, st.ExitCode = PhaseRunning, p.PID(), p.StartTime(), nil
		g.set(p)
		g.o.Changed(st)
		g.wait(ctx, p)
		g.set(nil)
		st.ExitCode = p.ExitCode()
		if ctx.Err() != nil || !g.again(st.ExitCode) {
			return g.ended(st)
		}
		if time.Since(began) > healthy {
			g.delay.Reset()
		}
		if !g.pause(ctx, &st) {
			return g.ended(st)
		}
	}
}

// again: an unknown status counts as a failure.
func (g *Guest) again(code *int) bool {
	switch g.o.Restart {
	case RestartAlways:
		return true
	case RestartOnFailure:
		return code == nil || *code != 0
	}
	return false
}

// pause waits before a restart.
func (g *Guest) pause(ctx context.Context, st *State) bool {
	delay := g.delay.NextBackOff()
	st.Phase, st.PID, st.StartTime = PhaseWaiting, 0, 0
	st.Restarts++
	event := g.o.Logger.Warn().Dur("delay", delay).Int("restarts", st.Restarts)
	if st.ExitCode != nil {
		event = event.Int("exit_code", *st.ExitCode)
	}
	event.Msg("the guest ended; restarting it")
	g.o.Changed(*st)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(delay):
		return true
	}
}

func (g *Guest) ended(st State) State {
	st.Phase, st.PID, st.StartTime = PhaseExited, 0, 0
	g.o.Changed(st)
	return st
}

func (g *Guest) failed(st State, err error) State {
	code := 126
	var start *StartError
	if errors.As(err, &start) {
		code = start.Code
	}
	st.Phase, st.PID, st.StartTime, st.ExitCode, st.Err = PhaseFailed, 0, 0, &code, err
	g.o.Changed(st)
	return st
}

// wait for the end of a run. After a stop nothing of it is left behind.
func (g *Guest) wait(ctx context.Context, p *Process) {
	select {
	case <-p.Done():
		return
	case <-ctx.Done():
	}
	_ = p.SignalAll(syscall.SIGTERM) // gone already: seen below
	_ = p.SignalAll(syscall.SIGCONT) // a stopped process cannot terminate
	select {
	case <-p.Done():
	case <-time.After(g.o.Grace):
		g.o.Logger.Warn().Int("pid", p.PID()).Dur("grace", g.o.Grace).Msg("the guest does not terminate; killing it")
		_ = p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
	if p.group {
		_ = p.SignalAll(syscall.SIGKILL)
	}
}

func (g *Guest) set(p *Process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current = p
}

// Signal passes a signal on; without a run under way it is dropped.
func (g *Guest) Signal(sig syscall.Signal) {
	g.mu.Lock()
	p := g.current
	g.mu.Unlock()
	if p != nil {
		_ = p.Signal(sig) // it ended meanwhile
	}
}
