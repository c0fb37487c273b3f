// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

const (
	eventsWait  = 20 * time.Second // of one question with --follow
	eventsPause = time.Second      // after one that failed
)

func eventsCommand(g *globals) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what the controller did, and why",
		Long: `Print what the controller in the network's seed did to keep the declared number of
function nodes, and why: launches, replicas that run, end or fail, back-off,
throttling, budgets. A seed remembers its last events until it ends; with --follow,
print those that come as well, until interrupted. With --json, JSON lines.`,
		Example: `  boxer events --network shop
  boxer events --follow`,
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			info, err := g.running(ctx)
			if err != nil {
				return err
			}
			seq, err := g.printEvents(ctx, c.OutOrStdout(), info, controller.Since{})
			if err == nil && follow {
				err = g.followEvents(ctx, c.OutOrStdout(), info, seq)
			}
			if follow && ctx.Err() != nil {
				return nil // interrupted, as it is meant to be
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print those that come, too, until interrupted")
	return cmd
}

// followEvents prints what comes, until ctx or the network ends.
func (g *globals) followEvents(ctx context.Context, w io.Writer, info localcloud.NetworkInfo, seq uint64) error {
	for told := false; ; {
		next, err := g.printEvents(ctx, w, info, controller.Since{Seq: seq, WaitMS: eventsWait.Milliseconds()})
		seq = next
		if err == nil {
			told = false
			continue
		}
		if !passingEvents(err) || ctx.Err() != nil {
			return err
		}
		if err := g.gone(info.Name); err != nil {
			return err
		}
		if !told {
			fmt.Fprintf(os.Stderr, "boxer: events: %v; trying again\n", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(eventsPause): // another seed is about to lead
		}
	}
}

func passingEvents(err error) bool {
	return cluster.Passing(err) || errors.Is(err, cluster.ErrDisconnected) || errors.Is(err, cluster.ErrNoSuchNode)
}

// printEvents returns the number of the last one.
func (g *globals) printEvents(ctx context.Context, w io.Writer, info localcloud.NetworkInfo, since controller.Since) (uint64, error) {
	var events []controller.Event
	if err := launch.Control(ctx, info, controller.MethodEvents, since, &events); err != nil {
		return since.Seq, err
	}
	for _, e := range events {
		since.Seq = e.Seq
		if err := g.printControlEvent(w, e); err != nil {
			return since.Seq, err
		}
	}
	return since.Seq, nil
}

func (g *globals) printControlEvent(w io.Writer, e controller.Event) error {
	if g.json {
		return json.NewEncoder(w).Encode(e)
	}
	what := e.Slot
	if what == "" {
		what = e.Name
	}
	line := fmt.Sprintf("%s %-9s %s", e.Time.Local().Format(time.TimeOnly), e.Type, what)
	if e.Node != 0 {
		line += fmt.Sprintf(" node-%d", e.Node)
	}
	if e.Text != "" {
		line += ": " + e.Text
	}
	if width := widthOf(w); width > 0 {
		line = clip(line, width)
	}
	_, err := fmt.Fprintln(w, strings.TrimRight(line, " "))
	return err
}
