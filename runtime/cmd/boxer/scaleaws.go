// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

const (
	scaleTime = 2 * time.Minute
	scaleTick = 200 * time.Millisecond
)

// scaleOnAWS has the network's controller keep another number of replicas, and
// waits until they run. What it declares there is Terraform's to change.
func (g *globals) scaleOnAWS(ctx context.Context, out io.Writer, name string, count int) error {
	fail := func(err error) error { return fmt.Errorf("scale %s %d: %w", name, count, err) }
	info, err := g.running(ctx)
	if err != nil {
		return fail(err)
	}
	interrupted := ctx
	ctx, cancel := context.WithTimeout(ctx, scaleTime)
	defer cancel()
	var before, view controller.View
	if err := launch.Control(ctx, info, controller.MethodView, controller.Order{Name: name}, &before); err != nil {
		return fail(err)
	}
	var resized controller.Resized
	if err := launch.Control(ctx, info, controller.MethodScale, controller.Resize{Name: name, Count: count, Why: "boxer scale"}, &resized); err != nil {
		return fail(err)
	}
	w := waiting(counted(count, "replica") + " of " + name)
	defer w.done()
	for view = resized.View; !settled(view, count); {
		select {
		case <-ctx.Done():
			return goesOn(interrupted, fail(fmt.Errorf("%d of %d replicas run%s; the controller goes on: see boxer events: %w", view.Running, count, reasons(view), ctx.Err())), scaleGoesOn)
		case <-time.After(scaleTick):
		}
		if err := launch.Control(ctx, info, controller.MethodView, controller.Order{Name: name}, &view); err != nil && ctx.Err() == nil {
			return fail(err)
		}
	}
	w.done()
	had, has := slotNames(before), slotNames(view)
	s := &scaling{Name: name, Replicas: count, Started: without(has, had), Stopped: without(had, has)}
	if g.json {
		return printJSON(out, s)
	}
	_, err = fmt.Fprintln(out, s)
	return err
}

// settled: so many run, and none is left over.
func settled(v controller.View, count int) bool {
	return v.Running == count && len(slotNames(v)) == count
}

// slotNames are the slots that somebody holds.
func slotNames(v controller.View) []string {
	names := []string{}
	for _, s := range v.Slots {
		if s.State == cluster.StateRunning {
			names = append(names, s.Slot)
		}
	}
	return names
}

func without(all, those []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(those, name) })
}

// reasons are why slots do not run.
func reasons(v controller.View) string {
	var why []string
	for _, s := range v.Slots {
		if s.Reason != "" {
			why = append(why, s.Slot+": "+s.Reason)
		}
	}
	if len(why) == 0 {
		return ""
	}
	return " (" + strings.Join(why, "; ") + ")"
}
