// SPDX-License-Identifier: Apache-2.0

// Package launch starts nodes on the local platform and waits until their
// guests run, or says what went wrong with the guest's last words. The command
// line and the Terraform provider both start nodes through it.
package launch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// tailLines of the guest's output are quoted in a Failure.
const tailLines = 12

// Token makes a launch token: 128 random bits, one use, bound to a slot.
func Token() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand never fails on Linux
	}
	return hex.EncodeToString(b[:])
}

// Failure says why a launched slot does not run.
type Failure struct {
	Slot   string
	Cause  string
	Output []string // the last lines of the guest, or of the host if the guest said nothing
	Remedy string
}

func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", f.Slot, f.Cause)
	if len(f.Output) > 0 {
		b.WriteString("\nlast output:\n  ")
		b.WriteString(strings.Join(f.Output, "\n  "))
	}
	if f.Remedy != "" {
		fmt.Fprintf(&b, "\n%s", f.Remedy)
	}
	return b.String()
}

// Launcher starts nodes of one network.
type Launcher struct {
	Network localcloud.NetworkInfo
	Client  *localcloud.Client

	// Progress, if set, is told now and then what is still waited for.
	Progress func(waited time.Duration, missing []string)
}

// VM starts the host of one VM node. Errors name the slot.
func (l *Launcher) VM(ctx context.Context, n config.Node, sourceDir string) (localcloud.Host, error) {
	return l.Client.CreateHost(ctx, localcloud.HostSpec{Config: n, SourceDir: sourceDir})
}

// Function sends the launch event of one function node.
func (l *Launcher) Function(ctx context.Context, function string, n config.Node) error {
	payload, err := json.Marshal(l.Client.FunctionConfig(n))
	if err != nil {
		return fmt.Errorf("launch event of %q: %w", n.Slot, err)
	}
	_, err = l.Client.Invoke(ctx, function, payload)
	return err
}

// Slots of a function node with count replicas.
func Slots(name string, count int) []string {
	slots := make([]string, count)
	for i := range slots {
		slots[i] = fmt.Sprintf("%s-%d", name, i)
	}
	return slots
}

// Want is one launch to wait for.
type Want struct {
	Slot     string
	Token    string
	Function string // empty: a VM node
}

// Observe watches the network with its own secret.
func Observe(ctx context.Context, network localcloud.NetworkInfo) (*cluster.Session, error) {
	secret, err := (&config.Node{SecretRef: "file:" + network.SecretFile}).Secret()
	if err != nil {
		return nil, err
	}
	return cluster.Observe(ctx, cluster.Options{
		Network: network.Name,
		Secret:  secret,
		Seeds:   []string{network.SeedEndpoint},
		Logger:  zerolog.Nop(),
	})
}

// Wait returns the members of all wants, in their order, once each is running.
// It returns a *Failure as soon as one cannot run any more, or when ctx ends.
func (l *Launcher) Wait(ctx context.Context, wants []Want) ([]cluster.Member, error) {
	session, err := Observe(ctx, l.Network)
	if err != nil {
		return nil, err
	}
	defer session.Close()

	start := time.Now()
	lastWord := start
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		found, missing, err := l.check(session.Members(), wants)
		if err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			return found, nil
		}
		if l.Progress != nil && time.Since(lastWord) > 2*time.Second {
			lastWord = time.Now()
			l.Progress(time.Since(start).Round(time.Second), missing)
		}
		select {
		case <-ctx.Done():
			return nil, l.timeout(session.Members(), wants, missing, time.Since(start))
		case <-session.Changed():
		case <-tick.C:
			if err := l.checkPlatform(ctx, session.Members(), wants); err != nil {
				return nil, err
			}
		}
	}
}

// check sorts the wants into running members and missing slots.
func (l *Launcher) check(members []cluster.Member, wants []Want) ([]cluster.Member, []string, error) {
	found := make([]cluster.Member, 0, len(wants))
	var missing []string
	for _, w := range wants {
		m, ok := findLaunch(members, w)
		switch {
		case !ok:
			missing = append(missing, w.Slot)
		case m.State == cluster.StateRunning:
			found = append(found, m)
		case m.State == cluster.StateFailed || m.State == cluster.StateExited:
			return nil, nil, l.guestFailure(w, m)
		default:
			missing = append(missing, w.Slot+" ("+m.State+")")
		}
	}
	return found, missing, nil
}

func findLaunch(members []cluster.Member, w Want) (cluster.Member, bool) {
	id := cluster.LaunchID(w.Token)
	for _, m := range members {
		if m.Slot == w.Slot && m.LaunchID == id {
			return m, true
		}
	}
	return cluster.Member{}, false
}

func (l *Launcher) guestFailure(w Want, m cluster.Member) *Failure {
	f := &Failure{Slot: w.Slot, Cause: m.Guest.Error, Output: l.output(w.Slot)}
	if f.Cause == "" {
		f.Cause = "the guest ended"
		if m.Guest.ExitCode != nil {
			f.Cause = fmt.Sprintf("the guest ended with exit status %d", *m.Guest.ExitCode)
		}
		f.Remedy = "A node runs a program that keeps running: check the command and its arguments."
	}
	return f
}

// checkPlatform notices hosts and sandboxes that ended before they ever joined.
func (l *Launcher) checkPlatform(ctx context.Context, members []cluster.Member, wants []Want) error {
	for _, w := range wants {
		if _, joined := findLaunch(members, w); joined {
			continue
		}
		var err error
		if w.Function == "" {
			err = l.checkHost(ctx, w)
		} else {
			err = l.checkInvocation(ctx, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Launcher) checkHost(ctx context.Context, w Want) error {
	host, err := l.Client.Host(ctx, w.Slot)
	switch {
	case errors.Is(err, localcloud.ErrNotFound):
		return &Failure{Slot: w.Slot, Cause: "its host disappeared while it started", Output: l.output(w.Slot)}
	case err != nil:
		return nil // the daemon may be busy; the deadline of ctx bounds the wait
	case host.Error != "" || host.State == localcloud.HostExited:
		cause := host.Error
		if cause == "" {
			cause = "its host ended while it started"
		}
		return &Failure{Slot: w.Slot, Cause: cause, Output: l.output(w.Slot)}
	}
	return nil
}

func (l *Launcher) checkInvocation(ctx context.Context, w Want) error {
	invocations, err := l.Client.Invocations(ctx, w.Function)
	if err != nil {
		return nil
	}
	for _, inv := range invocations {
		if inv.LaunchID != cluster.LaunchID(w.Token) || inv.State == localcloud.InvocationRunning {
			continue
		}
		cause := inv.Error
		if cause == "" {
			cause = "its invocation ended while it started"
		}
		return &Failure{Slot: w.Slot, Cause: cause, Output: l.output(w.Slot)}
	}
	return nil
}

func (l *Launcher) timeout(members []cluster.Member, wants []Want, missing []string, waited time.Duration) *Failure {
	f := &Failure{
		Slot:  strings.Join(missing, ", "),
		Cause: fmt.Sprintf("not running after %s", waited.Round(time.Second)),
	}
	for _, w := range wants {
		m, ok := findLaunch(members, w)
		if ok && m.State == cluster.StateRunning {
			continue
		}
		f.Output = l.output(w.Slot)
		switch {
		case !ok:
			f.Cause += fmt.Sprintf("; %s never joined the network", w.Slot)
		case m.Guest.State == cluster.GuestWaiting:
			f.Cause += fmt.Sprintf("; %s waits for what its wait_for names", w.Slot)
		}
		break
	}
	f.Remedy = "Its log: " + l.Client.LogPath(strings.Fields(missing[0])[0])
	return f
}

// output is what the guest said last or, if it said nothing, the host.
func (l *Launcher) output(slot string) []string {
	lines, err := l.Client.Tail(slot, tailLines)
	if err == nil && len(lines) > 0 {
		return lines
	}
	data, err := os.ReadFile(l.Client.NodeLogPath(slot))
	if err != nil {
		return nil
	}
	lines = strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return lines
}
