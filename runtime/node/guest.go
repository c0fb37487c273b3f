// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/process"
)

// live runs the guest behind the barrier and stays as long as the kind of node
// asks for.
func (n *node) live(life context.Context) (int, error) {
	life, cancel := n.beforeDeadline(life)
	defer cancel()
	defer context.AfterFunc(life, n.drain)()
	if n.cfg.Kind == config.KindSeed {
		n.say(func(st *cluster.Status) { st.State, st.Guest.State = cluster.StateRunning, cluster.GuestRunning })
		<-life.Done()
		return n.end(life, nil)
	}
	last, err := n.runGuest(life)
	if err != nil {
		if life.Err() == nil {
			n.leave()
			return ExitFailed, fmt.Errorf("node %q: %w", n.cfg.Slot, err)
		}
		return n.end(life, nil)
	}
	if n.stays() && life.Err() == nil {
		<-life.Done() // a VM stays a member, so that it can be seen what became of its guest
	}
	return n.end(life, &last)
}

func (n *node) stays() bool {
	return n.cfg.Kind == config.KindVM || n.cfg.Kind == config.KindContainer
}

// beforeDeadline ends the life early enough to drain and leave.
func (n *node) beforeDeadline(life context.Context) (context.Context, context.CancelFunc) {
	if n.o.Deadline.IsZero() {
		return context.WithCancel(life)
	}
	return context.WithDeadlineCause(life, n.ends(), errDeadline)
}

// ends is when this node must begin to leave; the zero time: never.
func (n *node) ends() time.Time {
	if n.o.Deadline.IsZero() {
		return time.Time{}
	}
	margin := time.Duration(n.cfg.DeadlineMarginMS) * time.Millisecond
	return n.o.Deadline.Add(-margin).UTC().Truncate(time.Millisecond)
}

// runGuest returns the guest's last state.
func (n *node) runGuest(life context.Context) (process.State, error) {
	if !n.run.alive() && (n.run.Phase == process.PhaseExited || n.run.Phase == process.PhaseFailed) {
		// It ended under the supervisor before this one.
		last := process.State{Phase: n.run.Phase, ExitCode: n.run.ExitCode, Restarts: n.run.Restarts}
		if n.run.Failure != "" {
			last.Err = errors.New(n.run.Failure)
		}
		n.guestChanged(last)
		return last, nil
	}
	n.endStale()
	if !n.run.alive() {
		if err := placeFiles(n.cfg); err != nil {
			return n.cannotStart(err), nil
		}
		if err := n.await(life); err != nil {
			return process.State{}, err
		}
	}
	n.guided.Store(true)                   // before the files are written: what changes later is seen
	if err := n.writeFiles(); err != nil { // those it has waited for are in them
		return process.State{}, err
	}
	library, err := Library(n.o.Library)
	if err != nil {
		return process.State{}, err
	}
	guest := process.NewGuest(process.Options{
		Spec: n.spec(library), Restart: n.cfg.Restart, Grace: n.grace(), Starting: n.guestStarts, Changed: n.guestChanged, Logger: n.log,
	})
	n.setGuest(guest)
	if n.o.Starting != nil {
		n.o.Starting()
	}
	return guest.Run(life, n.run.process, n.run.Restarts), nil
}

// endStale ends the guest of another document or launch, which a supervisor before this
// one would have ended.
func (n *node) endStale() {
	if n.run.stale == nil {
		return
	}
	n.log.Info().Int("pid", n.run.stale.PID()).Msg("a guest of another configuration still runs: ending it")
	over, cancel := context.WithCancel(context.Background())
	cancel()
	process.NewGuest(process.Options{Grace: n.grace(), Logger: n.log}).Run(over, n.run.stale, 0)
	n.run.stale = nil
}

// guestStarts notes that there may be a guest from now on.
func (n *node) guestStarts() {
	n.run.Guest, n.run.Phase, n.run.PID, n.run.StartTime = guestDigest(n.cfg), process.PhaseStarting, 0, 0
	n.saveRun()
}

func (n *node) saveRun() {
	if err := n.run.save(n.dir); err != nil {
		n.log.Error().Err(err).Msg("a supervisor after this one could not take the guest up")
	}
}

// cannotStart is the last state of a guest that lacks what it was promised.
func (n *node) cannotStart(err error) process.State {
	code := 126
	n.run.Guest = guestDigest(n.cfg)
	last := process.State{Phase: process.PhaseFailed, ExitCode: &code, Err: err}
	n.guestChanged(last)
	return last
}

func (n *node) grace() time.Duration {
	if n.o.Deadline.IsZero() {
		return process.DefaultGrace
	}
	// One second of the margin is for leaving.
	margin := time.Duration(n.cfg.DeadlineMarginMS) * time.Millisecond
	return min(max(margin-time.Second, margin/2), process.DefaultGrace)
}

func (n *node) spec(library string) process.Spec {
	s := process.Spec{
		Argv: rewriteAll(&n.cfg, n.cfg.Argv), Dir: rewrite(&n.cfg, n.cfg.WorkingDir), User: n.cfg.User, Env: n.environment(library),
		Stdout: n.o.Stdout, Stderr: n.o.Stdout, Foreground: n.o.Foreground,
	}
	if n.o.Foreground {
		s.Stdin, s.Stderr = n.o.Stdin, n.o.Stderr
	}
	return s
}

// environment is this process's, with the node's own variables and Boxer's. On a
// function that includes the credentials of its role, as any function's program has
// them; not where the supervisor is given events, for who asks there ends the node.
func (n *node) environment(library string) []string {
	self := n.session.Self()
	vars := map[string]string{}
	for _, e := range os.Environ() {
		k, v, _ := strings.Cut(e, "=")
		if strings.HasPrefix(k, "LISTEN_") || k == "NOTIFY_SOCKET" || k == "AWS_LAMBDA_RUNTIME_API" || strings.HasPrefix(k, "BOXER_") {
			continue // meant for the supervisor
		}
		vars[k] = rewrite(&n.cfg, v)
	}
	if account, err := process.FindUser(n.cfg.User); n.cfg.User != "" && err == nil {
		vars["HOME"], vars["USER"], vars["LOGNAME"] = account.HomeDir, account.Username, account.Username
	}
	for k, v := range n.cfg.Env {
		vars[k] = rewrite(&n.cfg, v)
	}
	preload := library
	if theirs := vars["LD_PRELOAD"]; theirs != "" && theirs != library {
		preload += ":" + theirs
	}
	for k, v := range map[string]string{
		"LD_PRELOAD": preload, "BOXER_LIB": library, ipcVariable: n.run.Tokens.Environment(n.run.IPC),
		"BOXER_CIDR": n.session.CIDR().String(), "BOXER_NETWORK": n.cfg.Network, "BOXER_NODE_ID": strconv.FormatUint(uint64(self.ID), 10),
		"BOXER_NODE_NAME": self.Slot, "BOXER_NODE_ADDRESS": self.OverlayAddress.String(), "BOXER_DIR": n.dir,
	} {
		vars[k] = v
	}
	if own := n.loopback(); own.IsValid() {
		vars["BOXER_LOOPBACK"] = own.String() + "/32"
	}
	env := make([]string, 0, len(vars))
	for k, v := range vars {
		env = append(env, k+"="+v)
	}
	return env
}

// Library finds the process monitor: as told, or where this program lies.
func Library(told string) (string, error) {
	candidates := []string{told}
	if told == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find the process monitor: %w", err)
		}
		dir := filepath.Dir(self)
		candidates = []string{filepath.Join(dir, "libboxer.so"), filepath.Join(dir, "..", "lib", "libboxer.so")}
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("the process monitor is missing: no %s: install libboxer.so beside the boxer program", strings.Join(candidates, " or "))
}

// guestChanged notes and announces what became of the guest.
func (n *node) guestChanged(s process.State) {
	n.run.Phase, n.run.PID, n.run.StartTime = s.Phase, s.PID, s.StartTime
	n.run.ExitCode, n.run.Restarts = s.ExitCode, s.Restarts
	if s.Err != nil {
		n.run.Failure = s.Err.Error()
	}
	n.saveRun()
	n.status.mu.Lock()
	adopted := n.run.process != nil && s.PID == n.run.process.PID()
	n.status.started, n.status.ready = time.Now(), adopted // asked only while it runs
	n.status.mu.Unlock()

	guest := cluster.Guest{PID: s.PID, ExitCode: s.ExitCode, Restarts: s.Restarts}
	state := cluster.StateStarting
	switch s.Phase {
	case process.PhaseRunning:
		guest.State = cluster.GuestRunning
		n.log.Info().Int("pid", s.PID).Bool("adopted", adopted).Msg("guest running")
	case process.PhaseWaiting: // before a restart
		guest.State = cluster.GuestWaiting
	case process.PhaseExited:
		guest.State, state = cluster.GuestExited, cluster.StateExited
		n.log.Info().Any("exit_code", s.ExitCode).Msg("guest ended")
	case process.PhaseFailed:
		guest.State, guest.Error, state = cluster.GuestFailed, n.run.Failure, cluster.StateFailed
		level := zerolog.ErrorLevel
		if n.o.Foreground { // who waits in the foreground is told by Run
			level = zerolog.InfoLevel
		}
		n.log.WithLevel(level).Str("error", n.run.Failure).Msg("guest cannot be started")
	}
	listeners := n.sockets.Listeners()
	if guest.State == cluster.GuestRunning && n.isReady(listeners) {
		state = cluster.StateRunning
	}
	n.say(func(st *cluster.Status) { st.State, st.Guest, st.Listeners = state, guest, listeners })
}

// end leaves the network and says how it ended.
func (n *node) end(life context.Context, last *process.State) (int, error) {
	result := Result{Reason: ReasonGuest, NodeID: n.session.Self().ID, Address: n.session.Self().OverlayAddress.String()}
	var err error
	switch cause := context.Cause(life); {
	case cause == nil:
	case errors.Is(cause, errDeadline):
		result.Reason = ReasonDeadline
	case errors.Is(cause, errRetired):
		result.Reason = ReasonRetired
	case errors.Is(cause, errStopped), errors.Is(cause, context.Canceled), errors.Is(cause, context.DeadlineExceeded):
		result.Reason = ReasonStopped
	default:
		result.Reason, err = ReasonLost, fmt.Errorf("node %q: %w", n.cfg.Slot, cause)
	}
	if last != nil {
		result.ExitCode = last.ExitCode
	}
	n.leave()
	if n.o.Ended != nil {
		n.o.Ended(result)
	}
	return n.exitCode(life, result, last, err)
}

func (n *node) exitCode(life context.Context, r Result, last *process.State, err error) (int, error) {
	if err != nil {
		return ExitFailed, err
	}
	itsOwn := r.Reason == ReasonGuest || n.cfg.Kind == config.KindClient && r.ExitCode != nil
	if !itsOwn {
		return n.interrupted(life), nil // an orderly end
	}
	if last == nil || last.ExitCode == nil {
		return ExitFailed, fmt.Errorf("node %q: the guest ended, its exit status is not known", n.cfg.Slot)
	}
	if last.Phase == process.PhaseFailed {
		return *last.ExitCode, last.Err
	}
	return *last.ExitCode, nil
}

func (n *node) leave() {
	n.awaitDrained()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	n.samplePaths() // a short-lived guest's connections
	n.reportPaths(nil)
	if err := n.session.Leave(ctx); err != nil && !errors.Is(err, cluster.ErrReplaced) {
		n.log.Warn().Err(err).Msg("left without a good-bye")
		return
	}
	// What is left now was not given back: a leak shows in the last line.
	remembered, queued := n.sockets.Usage()
	n.log.Info().Int("remembered", remembered).Int("queued", queued).Int("goroutines", runtime.NumGoroutine()).Msg("left the network")
}
