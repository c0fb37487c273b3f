// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// askTimeout bounds questions to the seed.
const askTimeout = 10 * time.Second

// observe watches the network that is meant for the length of fn.
func (g *globals) observe(ctx context.Context, fn func(context.Context, localcloud.NetworkInfo, *cluster.Session) error) error {
	info, err := g.running(ctx)
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	session, err := launch.Observe(opening, info)
	if err != nil {
		return err
	}
	defer session.Close()
	return fn(ctx, info, session)
}

func nodesCommand(g *globals) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes of the network and what their guests do",
		Long: `List the nodes of the network: what each is, where it is, and what its guest does.

Two nodes of one name are a launch that is being renewed: the "successor" joins and
takes the name and its address when it runs, the other one is then "draining" and
leaves when its connections have ended. One that nobody uses any more drains, too.

A "dormant" one has a name and an address but no process: the first connect starts
it.

A terminal that is too narrow for all columns gets the important ones; --json has
everything.`,
		Example: `  boxer nodes --network shop
  boxer nodes --watch
  boxer nodes --json | jq -r '.[] | select(.state != "running") | .slot'`,
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return g.show(c, watch, func(_ context.Context, s *cluster.Session) (view, error) {
				members, reserved := s.Network()
				return viewNodes(append(members, cluster.Dormant(members, reserved)...), time.Now()), nil
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "keep showing them, again whenever something has changed")
	return cmd
}

func viewNodes(members []cluster.Member, now time.Time) view {
	t := table{columns: []column{
		{title: "ID", fixed: true}, {title: "NAME"}, {title: "KIND", fixed: true}, {title: "STATE", fixed: true},
		{title: "ADDRESS", fixed: true}, {title: "GUEST"}, {title: "SINCE", fixed: true, optional: true},
		{title: "SERVICE", optional: true}, {title: "PORTS", optional: true},
		{title: "UNDERLAY", fixed: true, optional: true}, {title: "NAT", fixed: true, optional: true},
	}}
	for _, m := range members {
		guest, underlay := guestWord(m.Guest), "-"
		if m.Leader {
			guest = "leads" // a seed has no guest
		}
		nat := m.NAT
		if m.NATReport != nil {
			nat = m.NATReport.Kind()
		}
		if m.UnderlayAddress.IsValid() {
			underlay = m.UnderlayAddress.String()
		}
		id, since := strconv.FormatUint(uint64(m.ID), 10), age(now.Sub(m.Since))
		if m.State == cluster.StateDormant {
			id, since, guest, nat = "-", "-", "-", "-"
		}
		t.rows = append(t.rows, []string{
			id, m.Slot, m.Kind, stateWord(m), m.OverlayAddress.String(), guest,
			since, m.Service, ports(m.Listeners), underlay, nat,
		})
	}
	return view{data: members, table: t}
}

// stateWord is a member's state or, while its slot changes hands, its part in that.
func stateWord(m cluster.Member) string {
	switch {
	case m.State == cluster.StateLost || m.Holds():
		return m.State
	case m.Retired:
		return "draining"
	}
	return "successor"
}

// ports a guest listens on.
func ports(list []uint16) string {
	if len(list) == 0 {
		return "-"
	}
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = strconv.FormatUint(uint64(p), 10)
	}
	return strings.Join(words, ",")
}

// age in the largest unit that says enough.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func guestWord(g cluster.Guest) string {
	word := g.State
	switch {
	case word == "":
		return "-"
	case g.State == cluster.GuestExited && g.ExitCode != nil:
		word = fmt.Sprintf("exited %d", *g.ExitCode)
	}
	if g.State == cluster.GuestWaiting && g.WaitsFor != "" {
		word = "waits for " + g.WaitsFor
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
	Sampled   bool   `json:"sampled,omitempty"` // a lower bound
	Failed    uint64 `json:"failed,omitempty"`
	P50       int64  `json:"setup_p50_us,omitempty"`
	P99       int64  `json:"setup_p99_us,omitempty"`
	// The last names of those that have left, where they are known.
	FromLeft string `json:"from_left,omitempty"`
	ToLeft   string `json:"to_left,omitempty"`
}

// lastName is how a table calls a node that may have left.
func lastName(name, left string) string {
	if left == "" {
		return name
	}
	return left + " (left)"
}

// sampledNote says what the counts are not.
const sampledNote = "Native connections are seen by sampling: those shorter than a second may be missing."

func pathsCommand(g *globals) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "paths",
		Short: "Show which transport connected which nodes, and how often",
		Long: `Show, per pair of nodes and transport, how many connections the first has made to
the second since it started. Connections that come in by published ports are not
among them.

    native  the kernel connects; nobody is asked, so these are counted by looking
            at open sockets up to four times a second: short ones may be missed
    direct  to the peer's overlay port, nobody in between
    relay   the peer was asked to come: met at a third node, or dialled back

FAILED are those that could not be made although nobody refused them. P50 and
P99 say how long half, and 99 of 100, took to set up at most, where the
supervisor set them up; native and direct ones are the kernel's.`,
		Example: `  boxer paths --network shop
  boxer paths --watch
  boxer paths --json | jq '.[] | select(.transport == "relay")'`,
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return g.show(c, watch, func(ctx context.Context, s *cluster.Session) (view, error) {
				ctx, cancel := context.WithTimeout(ctx, askTimeout)
				defer cancel()
				paths, err := s.Paths(ctx)
				if err != nil {
					return view{}, err
				}
				return tabulatePaths(viewPaths(s.Members(), paths)), nil
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "keep showing them, again whenever something has changed")
	return cmd
}

func tabulatePaths(paths []pathView) view {
	v := view{data: paths, table: table{columns: []column{
		{title: "FROM"}, {title: "TO"}, {title: "TRANSPORT", fixed: true}, {title: "CONNECTIONS", fixed: true},
		{title: "FAILED", fixed: true, optional: true}, {title: "P50", fixed: true, optional: true}, {title: "P99", fixed: true, optional: true},
	}}}
	for _, p := range paths {
		count := strconv.FormatUint(p.Count, 10)
		if p.Sampled {
			count, v.note = "~"+count, sampledNote
		}
		v.table.rows = append(v.table.rows, []string{lastName(p.From, p.FromLeft), lastName(p.To, p.ToLeft), p.Transport, count, strconv.FormatUint(p.Failed, 10), setupTime(p.P50), setupTime(p.P99)})
	}
	return v
}

// setupTime of so many microseconds, in two or three digits.
func setupTime(us int64) string {
	switch ms := float64(us) / 1000; {
	case us == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0fms", ms)
	default:
		return fmt.Sprintf("%.1fs", ms/1000)
	}
}

// viewPaths puts slots in the place of ids; a node that has left keeps node-<id>,
// and its last name where no other has that now.
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
		views[i] = pathView{
			From: name(p.From), To: name(p.To), FromLeft: p.FromLeft, ToLeft: p.ToLeft, Transport: p.Transport, Count: p.Count, Sampled: p.Transport == config.TransportNative,
			Failed: p.Failed, P50: p.P50, P99: p.P99,
		}
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
