// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// askTimeout bounds questions to the seed.
const askTimeout = 10 * time.Second

// observe watches the network that is meant for the length of fn.
func (g *globals) observe(ctx context.Context, fn func(context.Context, *cluster.Session) error) error {
	_, info, err := g.find()
	if err == nil {
		err = checkAlive(info)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	session, err := launch.Observe(ctx, info)
	if err != nil {
		return err
	}
	defer session.Close()
	return fn(ctx, session)
}

func nodesCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "nodes",
		Short: "List the members of the network",
		Args:  exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return g.observe(c.Context(), func(_ context.Context, session *cluster.Session) error {
				members := session.Members()
				if g.json {
					return printJSON(c.OutOrStdout(), members)
				}
				rows := make([][]string, len(members))
				for i, m := range members {
					rows[i] = nodeRow(m)
				}
				return table(c.OutOrStdout(), "ID\tNAME\tKIND\tSTATE\tOVERLAY\tUNDERLAY\tNAT\tGUEST\tSINCE", rows)
			})
		},
	}
}

func nodeRow(m cluster.Member) []string {
	return []string{
		strconv.FormatUint(uint64(m.ID), 10), m.Slot, m.Kind, m.State,
		m.OverlayAddress.String(), m.UnderlayAddress.String(), m.NAT,
		guestWord(m.Guest), time.Since(m.Since).Round(time.Second).String(),
	}
}

func guestWord(g cluster.Guest) string {
	word := g.State
	switch {
	case word == "":
		return "-"
	case g.State == cluster.GuestExited && g.ExitCode != nil:
		word = fmt.Sprintf("exited %d", *g.ExitCode)
	}
	if g.Restarts > 0 {
		word += fmt.Sprintf(" (%d restarts)", g.Restarts)
	}
	return word
}

// pathView is one pair and transport as `paths --json` shows it.
type pathView struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Transport string `json:"transport"`
	Count     uint64 `json:"connections"`
}

func pathsCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "paths",
		Short: "Show which transport connected which nodes, and how often",
		Args:  exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return g.observe(c.Context(), func(ctx context.Context, session *cluster.Session) error {
				paths, err := session.Paths(ctx)
				if err != nil {
					return err
				}
				views := viewPaths(session.Members(), paths)
				if g.json {
					return printJSON(c.OutOrStdout(), views)
				}
				rows := make([][]string, len(views))
				for i, v := range views {
					rows[i] = []string{v.From, v.To, v.Transport, strconv.FormatUint(v.Count, 10)}
				}
				return table(c.OutOrStdout(), "FROM\tTO\tTRANSPORT\tCONNECTIONS", rows)
			})
		},
	}
}

// viewPaths puts slots in the place of ids; a node that has left keeps node-<id>.
func viewPaths(members []cluster.Member, paths []cluster.Path) []pathView {
	slots := make(map[uint32]string, len(members))
	for _, m := range members {
		slots[m.ID] = m.Slot
	}
	name := func(id uint32) string {
		if s, ok := slots[id]; ok {
			return s
		}
		return fmt.Sprintf("node-%d", id)
	}
	views := make([]pathView, len(paths))
	for i, p := range paths {
		views[i] = pathView{name(p.From), name(p.To), p.Transport, p.Count}
	}
	sort.Slice(views, func(i, j int) bool {
		a, b := views[i], views[j]
		if a.From != b.From {
			return a.From < b.From
		}
		if a.To != b.To {
			return a.To < b.To
		}
		return a.Transport < b.Transport
	})
	return views
}
