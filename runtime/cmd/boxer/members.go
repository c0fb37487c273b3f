// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

func membersCommand(g *globals) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Print the members of the network, or every change among them",
		Long: `Print the members of the network as every node knows them, one a line, as in a
guest's $BOXER_DIR/members.txt. With --follow, the present members and then every
change as it happens: join, update, leave; with --json as JSON lines, like a
guest's $BOXER_DIR/members.sock.`,
		Example: `  boxer members --network shop
  boxer members --follow --json | jq -c '[.type, .member.slot, .member.state]'`,
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if !follow {
				return g.show(c, false, func(_ context.Context, s *cluster.Session) (view, error) {
					return viewMembers(s.Members()), nil
				})
			}
			return g.observe(c.Context(), func(ctx context.Context, info localcloud.NetworkInfo, s *cluster.Session) error {
				return g.follow(ctx, c.OutOrStdout(), info.Name, s)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print every change, until interrupted")
	return cmd
}

func viewMembers(members []cluster.Member) view {
	t := table{columns: []column{
		{title: "ID", fixed: true}, {title: "ADDRESS", fixed: true}, {title: "NAME"}, {title: "SERVICE"},
		{title: "KIND", fixed: true}, {title: "STATE", fixed: true}, {title: "PORTS", optional: true},
	}}
	for _, m := range members {
		t.rows = append(t.rows, []string{
			strconv.FormatUint(uint64(m.ID), 10), m.OverlayAddress.String(), m.Slot, m.Service, m.Kind, stateWord(m), ports(m.Listeners),
		})
	}
	return view{data: members, table: t}
}

// follow prints events until ctx or the network ends.
func (g *globals) follow(ctx context.Context, w io.Writer, name string, s *cluster.Session) error {
	events, stop := s.Subscribe()
	defer stop()
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-events:
			if !open {
				return g.ended(name, s)
			}
			if err := g.printEvent(w, e); err != nil {
				return err
			}
		case <-tick.C:
			if err := g.ended(name, s); err != nil {
				return err
			}
		}
	}
}

func (g *globals) printEvent(w io.Writer, e cluster.Event) error {
	if g.json {
		return json.NewEncoder(w).Encode(e)
	}
	m := e.Member
	line := fmt.Sprintf("%s %-6s %d %s %s %s %s %s %s", time.Now().Format(time.TimeOnly), e.Type,
		m.ID, m.OverlayAddress, m.Slot, m.Service, m.Kind, stateWord(m), ports(m.Listeners))
	if width := widthOf(w); width > 0 {
		line = clip(line, width)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
