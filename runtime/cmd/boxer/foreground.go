// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// foreground runs one node of the platform, prints its output, and removes it
// when its program has ended or ctx is cancelled (by a signal).
func (p *platformRun) foreground(ctx context.Context, n config.Node) (int, error) {
	session, err := launch.Observe(ctx, p.Network)
	if err != nil {
		return 0, err
	}
	defer session.Close()
	events, cancel := session.Subscribe()
	defer cancel()

	wants, err := p.start(ctx, n)
	defer func() { p.clean(ctx, wants) }()
	if err != nil {
		return 0, err
	}
	// A reader that goes away (| head) is an error of ours, or the node would stay.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	log := &output{localcloud.NewLogReader(p.Client.LogPath(wants[0].Slot)), os.Stdout}
	defer log.Close()
	code, err := p.untilEnd(ctx, wants[0], events, log)
	if copyErr := log.copy(); err == nil {
		err = copyErr
	}
	if ctx.Err() != nil { // what it says while it is asked to end
		p.clean(ctx, wants)
		_ = log.copy()
	}
	if errors.Is(err, syscall.EPIPE) {
		return (&interrupted{syscall.SIGPIPE}).status(), nil
	}
	return code, err
}

// stopStatus is the exit status of a run that ctx ended.
func stopStatus(ctx context.Context) int {
	var i *interrupted
	if !errors.As(context.Cause(ctx), &i) {
		i = &interrupted{syscall.SIGTERM}
	}
	return i.status()
}

// untilEnd prints the log until the launch has ended.
func (p *platformRun) untilEnd(ctx context.Context, w launch.Want, events <-chan cluster.Event, log *output) (int, error) {
	id := cluster.LaunchID(w.Token)
	under := waiting(w.Slot + " to run")
	defer under.done()
	var joined bool
	var holder launch.Holder
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for beat := 0; ; beat++ {
		select {
		case <-ctx.Done():
			return stopStatus(ctx), nil
		case ev, open := <-events:
			if !open {
				return 0, fmt.Errorf("%s: the connection to the seed is lost for good; see 'boxer network list'", w.Slot)
			}
			if ev.Member.Slot != w.Slot {
				continue
			}
			if ev.Member.LaunchID != id {
				holder.Note(ev)
			} else {
				joined = true
				if under.now(w.Slot + " (" + launch.Waits(ev.Member) + ")"); ev.Member.Guest.State != cluster.GuestWaiting {
					under.done()
				}
				if done, code, err := guestEnd(ev); done {
					if why := p.OutOfMemory(ctx, w, &code); why != "" {
						fmt.Fprintf(os.Stderr, "boxer: %s: %s\n", w.Slot, why)
					}
					return code, err
				}
			}
		case <-tick.C:
			if err := log.copy(); err != nil {
				return 0, err
			}
			if err := holder.Taken(w.Slot); !joined && err != nil {
				return 0, err
			}
			if beat%20 == 19 {
				if err := p.stillThere(ctx, w); err != nil {
					return 0, err
				}
			}
		}
	}
}

// guestEnd reports whether ev ends the guest, and how.
func guestEnd(ev cluster.Event) (bool, int, error) {
	g := ev.Member.Guest
	switch {
	case g.State == cluster.GuestFailed || ev.Member.State == cluster.StateFailed:
		code := exitFailed
		if g.ExitCode != nil {
			code = *g.ExitCode
		}
		return true, 0, &exitError{code, fmt.Errorf("%s: %s", ev.Member.Slot, g.Error)}
	case ev.Member.State == cluster.StateExited || g.State == cluster.GuestExited:
		if g.ExitCode == nil {
			return true, 0, fmt.Errorf("%s: the program ended, its exit status is not known, for its supervisor was started again meanwhile", ev.Member.Slot)
		}
		return true, *g.ExitCode, nil
	case ev.Type == cluster.EventLeave:
		return true, 0, fmt.Errorf("%s: the node left before its program ended", ev.Member.Slot)
	}
	return false, 0, nil
}

// stillThere notices a host or sandbox that ended without a word.
func (p *platformRun) stillThere(ctx context.Context, w launch.Want) error {
	if err := p.networkGone(); err != nil {
		return fmt.Errorf("%s: %w", w.Slot, err)
	}
	if w.Function == "" {
		host, err := p.Client.Host(ctx, w.Slot)
		switch {
		case errors.Is(err, localcloud.ErrNotFound):
			return fmt.Errorf("%s: its host is gone", w.Slot)
		case err == nil && host.State == localcloud.HostExited:
			return launch.NewFailure(w.Slot, "its host ended: "+host.Error)
		}
		return nil
	}
	invocations, err := p.Client.Invocations(ctx, w.Function)
	if err != nil {
		return nil // asked again in a second
	}
	for _, inv := range invocations {
		if inv.LaunchID == cluster.LaunchID(w.Token) && inv.State == localcloud.InvocationFailed {
			f := launch.NewFailure(w.Slot, inv.Error)
			f.Cause = "its invocation failed: " + f.Cause
			return f
		}
	}
	return nil
}

// output copies what a guest has written to where the user reads it.
type output struct {
	*localcloud.LogReader
	to io.Writer
}

func (o *output) copy() error {
	if err := o.Copy(o.to); err != nil {
		return fmt.Errorf("print what the program writes: %w", err)
	}
	return nil
}
