// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

const (
	maxReplicas  = 1000             // of one function
	drainTimeout = 30 * time.Second // a replica that leaves takes 20 s, and its guest's grace
)

func scaleCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "scale NAME N",
		Short: "Change how many replicas of a function node run",
		Long: `Change how many replicas of a function node run, and wait until they do. Slots that
are missing below N are started (logic-0, logic-1, ...), as the others were; those
from N up let their connections end, for 20 s at most, and are stopped. With 0 the
function stays, and nothing of it runs.

From then on the network's seed keeps that number: a replica that ends is followed
by another in its slot, at its address. What it does is told by boxer events. Until
the first scale nobody keeps the replicas that boxer run started.

Of a function that Terraform declares with desired_count, the next apply brings
that number back. Without, it may have min_count to max_count replicas, and any
number of them stays.`,
		Example: `  boxer scale logic 5
  boxer scale logic 0`,
		Args:              exactArgs(2),
		ValidArgsFunction: first(g.functions),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 || n > maxReplicas {
				return fmt.Errorf("scale %s: %q: want a number of replicas from 0 to %d", args[0], args[1], maxReplicas)
			}
			if g.platform == platformAWS {
				return g.scaleOnAWS(c.Context(), c.OutOrStdout(), args[0], n)
			}
			store, info, err := g.find()
			if err == nil {
				err = checkAlive(info)
			}
			if err != nil {
				return err
			}
			client, err := store.Connect(c.Context(), info.Name)
			if err != nil {
				return err
			}
			defer client.Close()
			s := &scaling{Launcher: launch.Launcher{Network: info, Client: client}, Name: args[0], Replicas: n}
			if err := s.run(c.Context()); err != nil {
				return fmt.Errorf("scale %s %d: %w", args[0], n, err)
			}
			if g.json {
				return printJSON(c.OutOrStdout(), s)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), s)
			return err
		},
	}
}

// scaling is one `boxer scale`, as --json shows it.
type scaling struct {
	launch.Launcher `json:"-"`

	Name     string   `json:"name"`
	Replicas int      `json:"replicas"`
	Started  []string `json:"started"` // slots
	Stopped  []string `json:"stopped"`
}

func (s *scaling) String() string {
	text := fmt.Sprintf("%s has %s", s.Name, counted(s.Replicas, "replica"))
	if len(s.Started) > 0 {
		text += "; started: " + strings.Join(s.Started, ", ")
	}
	if len(s.Stopped) > 0 {
		text += "; stopped: " + strings.Join(s.Stopped, ", ")
	}
	return text
}

func (s *scaling) run(ctx context.Context) error {
	s.Started, s.Stopped = []string{}, []string{}
	f, err := s.Client.Function(ctx, s.Name)
	if errors.Is(err, localcloud.ErrNotFound) {
		return s.noFunction(ctx)
	} else if err != nil {
		return err
	}
	running, err := s.running(ctx)
	if err != nil {
		return err
	}
	wanted := launch.Slots(s.Name, s.Replicas)
	for _, slot := range running {
		if !slices.Contains(wanted, slot) {
			s.Stopped = append(s.Stopped, slot)
		}
	}
	for _, slot := range wanted {
		if !slices.Contains(running, slot) {
			s.Started = append(s.Started, slot)
		}
	}
	if err := s.declare(ctx, f, len(running)); err != nil {
		return err
	}
	err = s.drained(ctx)
	if err == nil {
		err = s.stop(ctx, s.Stopped)
	}
	return goesOn(ctx, err, scaleGoesOn)
}

// scaleGoesOn is what becomes of a number that was changed already.
const scaleGoesOn = "the number stays changed: see 'boxer events'"

// drained waits until those that are too many have left: they let their
// connections end. Who cannot is stopped then.
func (s *scaling) drained(ctx context.Context) error {
	if len(s.Stopped) == 0 {
		return nil
	}
	w := waiting("the connections of " + strings.Join(s.Stopped, ", ") + " to end")
	defer w.done()
	for end := time.Now().Add(drainTimeout); time.Now().Before(end); {
		running, err := s.running(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(s.Stopped, func(slot string) bool { return slices.Contains(running, slot) }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// noFunction says what the name stands for instead.
func (s *scaling) noFunction(ctx context.Context) error {
	if _, err := s.Client.Host(ctx, s.Name); err == nil {
		return errors.New("it is a vm node, of which there is one: start others with 'boxer run --kind vm --service " + s.Name + " --count N --detach'")
	}
	all, err := s.Client.Functions(ctx)
	if err != nil {
		return err
	}
	names := strings.Join(functionNames(all), ", ")
	if names == "" {
		return fmt.Errorf("network %q has no functions: start one with 'boxer run --kind function --name %s --count N --detach'", s.Network.Name, s.Name)
	}
	return fmt.Errorf("network %q has no function of that name; choose one of its functions: %s", s.Network.Name, names)
}

// running are the slots that have a sandbox.
func (s *scaling) running(ctx context.Context) ([]string, error) {
	all, err := s.Client.Invocations(ctx, s.Name)
	if err != nil {
		return nil, err
	}
	var slots []string
	for _, i := range all {
		if i.State == localcloud.InvocationRunning && !slices.Contains(slots, i.Slot) {
			slots = append(slots, i.Slot)
		}
	}
	slices.SortFunc(slots, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }) // by number
	return slots, nil
}

// declare has the controller keep the number, and waits for what it launches:
// all or none.
func (s *scaling) declare(ctx context.Context, f localcloud.Function, before int) error {
	w := waiting(s.Name + " to run")
	defer w.done()
	s.Progress = func(_ time.Duration, missing []string) { w.now(strings.Join(missing, ", ")) }
	timed, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	wants, before, err := s.change(timed, f, s.Replicas, before)
	if err == nil && len(s.Started) > 0 {
		_, err = s.Wait(timed, slices.DeleteFunc(wants, func(w launch.Want) bool { return !slices.Contains(s.Started, w.Slot) }))
	}
	if err == nil || before < 0 {
		return err
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	_, _, undone := s.change(undo, f, before, before)
	return errors.Join(err, undone, s.stop(undo, s.Started))
}

// change the number that the controller keeps. Who was not kept by it, of whom
// before ran, is from then on. Before is negative if nothing was changed.
func (s *scaling) change(ctx context.Context, f localcloud.Function, count, before int) ([]launch.Want, int, error) {
	r, err := s.Scale(ctx, s.Name, count, "boxer scale")
	if !errors.Is(err, controller.ErrNotDeclared) {
		if err != nil && r.Name == "" {
			return nil, -1, err
		}
		return launch.Wants(s.Name, r.View), r.Was, err
	}
	if f.Config == nil {
		return nil, -1, errors.New("it is not known what its replicas run: it was made by an earlier version; make it again")
	}
	wants, err := s.Declare(ctx, controller.Declaration{Name: s.Name, Function: s.Name, Node: *f.Config, Count: count, MemoryMB: f.MemoryMB})
	return wants, before, err
}

func (s *scaling) stop(ctx context.Context, slots []string) error {
	if len(slots) == 0 {
		return nil
	}
	w := waiting("the guests of " + strings.Join(slots, ", ") + " to end")
	defer w.done()
	ended := make(chan error, len(slots))
	for _, slot := range slots {
		go func() { ended <- s.Client.StopInvocation(ctx, s.Name, slot) }()
	}
	var all []error
	for range slots {
		all = append(all, <-ended)
	}
	return errors.Join(all...)
}
