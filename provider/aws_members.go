// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

func (p *awsPlatform) Members(ctx context.Context, network string) ([]cluster.Member, error) {
	n, err := p.record(ctx, network)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	session, err := p.watch(ctx, n)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	return session.Members(), nil
}

// JoinToken needs the network's secret, but not that the network runs.
func (p *awsPlatform) JoinToken(ctx context.Context, network, slot, service string, expires time.Time) (cluster.Token, error) {
	n, err := p.record(ctx, network)
	if err != nil {
		return cluster.Token{}, err
	}
	secret, err := p.cloud.Secret(ctx, n.Name)
	if err != nil {
		return cluster.Token{}, err
	}
	return cluster.NewToken(secret, cluster.Token{
		Network: network, Seeds: n.Endpoints, Port: uint16(n.Port), Slot: slot, Service: service, Expires: expires,
	})
}

// watching is what Await sees of a network, from before its launches.
type watching struct {
	session *cluster.Session
	events  <-chan cluster.Event
}

type watchingKey struct{}

// watchTime is how long seeds may take to let an observer in before a launch. Those of
// a network that was just made still boot: no launch ends before they are there.
const watchTime = 10 * time.Second

// Watching is needed as Lambda tells nothing of an invocation that has ended.
func (p *awsPlatform) Watching(ctx context.Context, network string) (context.Context, func()) {
	n, err := p.networkFor(ctx, network)
	if err != nil {
		return ctx, func() {}
	}
	opening, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	session, err := p.watch(opening, n)
	if err != nil {
		tflog.Debug(ctx, "the network is not watched yet", map[string]any{"network": network, "error": err.Error()})
		return ctx, func() {}
	}
	events, unsubscribe := session.Subscribe()
	return context.WithValue(ctx, watchingKey{}, &watching{session, events}), func() {
		unsubscribe()
		_ = session.Close()
	}
}

func (p *awsPlatform) Await(ctx context.Context, network string, launches []launch.Want) ([]cluster.Member, error) {
	n, err := p.networkFor(ctx, network)
	if err != nil {
		return nil, err
	}
	seen, _ := ctx.Value(watchingKey{}).(*watching)
	if seen == nil {
		session, err := p.watchSoon(ctx, n)
		if err != nil {
			return nil, err
		}
		defer session.Close()
		events, cancel := session.Subscribe()
		defer cancel()
		seen = &watching{session, events}
	}
	w := &awsWait{p: p, n: n, gone: map[string]time.Time{}}
	members, err := launch.AwaitIn(ctx, seen.session, seen.events, launches, platformTick, w)
	var failure *launch.Failure
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, fmt.Errorf("interrupted before the guest ran: %w", ctx.Err())
	case errors.As(err, &failure) && ctx.Err() != nil:
		failure.Remedy = fmt.Sprintf("A node has %s to run: check its command and what it waits for, or give it more with timeouts, then apply again", limitOf(ctx))
	}
	return members, err
}

// awsWait tells a wait for launches what AWS tells.
type awsWait struct {
	p    *awsPlatform
	n    *cloud.Network
	gone map[string]time.Time // by slot: since when EC2 shows no instance
}

// platformTick is how often AWS is asked whether what does not join still is there.
const platformTick = 3 * time.Second

// goneTime is how long EC2 may not show an instance: what it lists lags behind what it
// was asked for, and it shows one that has ended for much longer.
const goneTime = 15 * time.Second

// Waiting implements launch.Platform.
func (w *awsWait) Waiting(ctx context.Context, waited time.Duration, missing []string) {
	tflog.Info(ctx, "waiting for guests to run", map[string]any{"waited": waited.String(), "missing": strings.Join(missing, ", ")})
}

// Lost implements launch.Platform.
func (w *awsWait) Lost(err error) error {
	return seedsOnAWS(w.n, fmt.Errorf("the connection is lost: %w", err))
}

// Failed says why a guest does not run, with what it said last if that is known yet.
func (w *awsWait) Failed(ctx context.Context, want launch.Want, m cluster.Member) error {
	f := &launch.Failure{Slot: want.Slot, Cause: m.Guest.Error, Output: w.output(ctx, want)}
	if f.Cause == "" {
		f.Cause = "the guest ended"
		if m.Guest.ExitCode != nil {
			f.Cause = fmt.Sprintf("the guest ended with exit status %d", *m.Guest.ExitCode)
		}
		f.Remedy = "A node runs a program that keeps running: check the command and its arguments."
	}
	return f
}

// outputLines of a log are quoted in an error.
const outputLines = 12

// output is what a node said last, as far as AWS shows it already.
func (w *awsWait) output(ctx context.Context, want launch.Want) []string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if want.Function != "" {
		return w.p.cloud.LogTail(ctx, w.n.LogGroup(want.Function), outputLines)
	}
	found, err := w.p.cloud.FindInstance(ctx, w.n.Name, cloud.PartVM, want.Slot)
	if err != nil {
		return nil
	}
	return w.p.cloud.Console(ctx, found.ID)
}

// Ended notices instances that ended before they ever joined.
func (w *awsWait) Ended(ctx context.Context, want launch.Want) error {
	if want.Function != "" {
		return nil // of one invocation Lambda tells nothing
	}
	found, err := w.p.cloud.FindInstance(ctx, w.n.Name, cloud.PartVM, want.Slot)
	if missing := errors.Is(err, cloud.ErrNotFound); !missing {
		delete(w.gone, want.Slot)
	} else if w.gone[want.Slot].IsZero() {
		w.gone[want.Slot] = time.Now()
	}
	switch {
	case errors.Is(err, cloud.ErrNotFound) && time.Since(w.gone[want.Slot]) < goneTime:
	case errors.Is(err, cloud.ErrNotFound):
		return &launch.Failure{Slot: want.Slot, Cause: "its instance ended while it started", Output: w.output(ctx, want),
			Remedy: "\"aws ec2 describe-instances\" shows the reason (StateReason): a spot instance may be taken back at any time, and a volume's key may not be allowed."}
	case err == nil && found.Stopped():
		return &launch.Failure{Slot: want.Slot, Cause: fmt.Sprintf("its instance %s was stopped while it started (%s)", found.ID, found.Reason),
			Remedy: "Start it, or apply again."}
	}
	return nil
}

// Late says what was waited for in vain.
func (w *awsWait) Late(ctx context.Context, missing []string, first launch.Want, _ bool, waited time.Duration) error {
	f := &launch.Failure{
		Slot: first.Slot, Cause: fmt.Sprintf("not running after %s: %s", waited, strings.Join(missing, ", ")), Output: w.output(ctx, first),
	}
	if first.Function == "" {
		f.Remedy = "The instance's console says how far it came: \"aws ec2 get-console-output\"."
	}
	return f
}
