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
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

const (
	// tailLines of the guest's output are quoted in a Failure.
	tailLines   = 12
	keepRunning = "A node runs a program that keeps running: check the command and its arguments."
)

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

	// CannotRun is 126 or 127 if the command cannot be run or was not found, as
	// a shell has it; otherwise 0.
	CannotRun int
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
	if err := l.Unclaimed(ctx, n.Slot); err != nil {
		return localcloud.Host{}, err
	}
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
	ID       string // of the launch, of which the token is not known
	Function string // empty: a VM node
	JoinOnly bool   // enough that it is in the network, whatever its guest does
	Kept     bool   // the controller keeps the slot: another launch that it made instead is as good
}

// Takes tells whether what becomes of m is what is waited for, where before (the zero
// Member: nobody) was taken for it until now.
func (w Want) Takes(m, before cluster.Member) bool {
	instead := w.Kept && m.Kind == config.KindFunction && m.Holds() && !m.Leaving &&
		(m.State == cluster.StateRunning || w.JoinOnly && m.State == cluster.StateStarting)
	return instead || m.ID == before.ID || m.LaunchID == w.launch() && before.State != cluster.StateRunning
}

// Contends tells whether m keeps from the slot what is waited for.
func (w Want) Contends(m cluster.Member) bool { return !w.Kept || m.Kind != config.KindFunction }

// launch is the launch id of a want.
func (w Want) launch() string {
	if w.ID != "" {
		return w.ID
	}
	return cluster.LaunchID(w.Token)
}

// Secret is the network's own.
func Secret(network localcloud.NetworkInfo) ([]byte, error) {
	if network.Elsewhere != nil {
		return network.Elsewhere.Secret, nil
	}
	return (&config.Node{SecretRef: "file:" + network.SecretFile}).Secret()
}

// Observe watches the network with its own secret.
func Observe(ctx context.Context, network localcloud.NetworkInfo) (*cluster.Session, error) {
	secret, err := Secret(network)
	if err != nil {
		return nil, err
	}
	return cluster.Observe(ctx, cluster.Options{
		Network: network.Name,
		Secret:  secret,
		Seeds:   network.SeedEndpoints,
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

	return Await(ctx, session, wants, 250*time.Millisecond, l)
}

// Waits says in what way a member that does not run yet is under way.
func Waits(m cluster.Member) string {
	switch {
	case m.Guest.State == cluster.GuestWaiting && m.Guest.WaitsFor != "":
		return "waits for " + m.Guest.WaitsFor
	case m.Guest.State == cluster.GuestWaiting:
		return "waits"
	}
	return m.State
}

// Failed implements Platform.
func (l *Launcher) Failed(_ context.Context, w Want, m cluster.Member) error {
	f := Failure{Slot: w.Slot, Cause: m.Guest.Error, Output: l.output(w.Slot)}
	if m.Guest.State == cluster.GuestFailed && m.Guest.ExitCode != nil {
		f.CannotRun = *m.Guest.ExitCode
	}
	if f.Cause == "" {
		f.Cause = "the guest ended"
		if m.Guest.ExitCode != nil {
			f.Cause = fmt.Sprintf("the guest ended with exit status %d", *m.Guest.ExitCode)
		}
		f.Remedy = keepRunning
	}
	if why := l.OutOfMemory(context.Background(), w, m.Guest.ExitCode); why != "" {
		f.Cause, f.Remedy = f.Cause+": "+why, "Give the function more memory."
	}
	return f.readable()
}

// killed is the exit status of a guest that was killed, for lack of memory or
// otherwise.
const killed = 128 + 9

// OutOfMemory is what the platform says of a function whose guest ended with
// this status if it was for lack of memory, else "".
func (l *Launcher) OutOfMemory(ctx context.Context, w Want, exit *int) string {
	if w.Function == "" || exit == nil || *exit != killed {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // the sandbox ends soon after its guest
	defer cancel()
	for {
		invocations, err := l.Client.Invocations(ctx, w.Function)
		if err != nil {
			return ""
		}
		for _, inv := range invocations {
			if inv.LaunchID != w.launch() || inv.State == localcloud.InvocationRunning {
				continue
			}
			why, rest, _ := strings.Cut(inv.Error, ": ")
			if why != localcloud.OutOfMemory {
				return ""
			}
			size, _, _ := strings.Cut(rest, ": ")
			return why + ": " + size
		}
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Ended implements Platform: it notices hosts and sandboxes.
func (l *Launcher) Ended(ctx context.Context, want Want) error {
	if want.Function == "" {
		return l.checkHost(ctx, want)
	}
	return l.checkInvocation(ctx, want)
}

func (l *Launcher) checkHost(ctx context.Context, w Want) error {
	host, err := l.Client.Host(ctx, w.Slot)
	switch {
	case errors.Is(err, localcloud.ErrNotFound):
		return Failure{Slot: w.Slot, Cause: "its host disappeared while it started", Output: l.output(w.Slot)}.readable()
	case err != nil:
		return nil // the daemon may be busy; the deadline of ctx bounds the wait
	case host.Error != "" || host.State == localcloud.HostExited:
		cause := host.Error
		if cause == "" {
			cause = "its host ended while it started"
		}
		return Failure{Slot: w.Slot, Cause: cause, Output: l.output(w.Slot)}.readable()
	}
	return nil
}

func (l *Launcher) checkInvocation(ctx context.Context, w Want) error {
	invocations, err := l.Client.Invocations(ctx, w.Function)
	if err != nil {
		return nil
	}
	for _, inv := range invocations {
		if inv.LaunchID != w.launch() || inv.State == localcloud.InvocationRunning {
			continue
		}
		cause := inv.Error
		if cause == "" {
			cause = "its invocation ended while it started"
		}
		return Failure{Slot: w.Slot, Cause: cause, Output: l.output(w.Slot)}.readable()
	}
	return nil
}

// Late implements Platform.
func (l *Launcher) Late(_ context.Context, missing []string, first Want, joined bool, waited time.Duration) error {
	f := Failure{
		Slot:   strings.Join(missing, ", "),
		Cause:  fmt.Sprintf("not running after %s", waited),
		Output: l.output(first.Slot),
		Remedy: "Its log: " + l.Client.LogPath(strings.Fields(missing[0])[0]),
	}
	if !joined {
		f.Cause += fmt.Sprintf("; %s never joined the network", first.Slot)
	}
	return f.readable()
}

// Lost implements Platform.
func (l *Launcher) Lost(err error) error {
	return fmt.Errorf("the connection to the seed of network %q is lost: %w", l.Network.Name, err)
}

// Waiting implements Platform.
func (l *Launcher) Waiting(_ context.Context, waited time.Duration, missing []string) {
	if l.Progress != nil {
		l.Progress(waited, missing)
	}
}

// output is what the guest said last or, if it said nothing, the host.
func (l *Launcher) output(slot string) []string {
	lines, err := l.Client.Tail(slot, tailLines)
	if err == nil && len(lines) > 0 {
		return lines
	}
	if lines, err = l.Client.NodeTail(slot, tailLines); err != nil {
		return nil
	}
	return lines
}
