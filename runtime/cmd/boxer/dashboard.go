// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/dashboard"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// shownLines are asked of every guest's log.
const shownLines = 6

func dashboardCommand(g *globals) *cobra.Command {
	var address string
	var open bool
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Show the network on a page, live, until interrupted",
		Long: `Serve a page on this machine: nodes and their states, services and who holds
them, the transport of every pair, what guests wrote last. The address printed has
a token in it, and works for as long as the command runs.`,
		Example: `  boxer dashboard --network shop
  boxer dashboard --open`,
		Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			store, info, err := g.find()
			if err == nil {
				err = checkAlive(info)
			}
			if err != nil {
				return err
			}
			source := &networkSource{store: store, name: info.Name, tails: map[string]tailOf{}}
			defer source.close()
			if _, err := source.Look(c.Context()); err != nil {
				return err
			}
			l, err := dashboard.Listen(c.Context(), address)
			if err != nil {
				return err
			}
			defer l.Close()
			d := dashboard.New(dashboard.Options{Network: info.Name, CIDR: info.CIDR, Source: source})
			url := d.URL(l)
			if g.json {
				err = printJSON(c.OutOrStdout(), map[string]string{"url": url})
			} else {
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", url)
			}
			if err != nil {
				return fmt.Errorf("print the address of the dashboard: %w", err)
			}
			if open {
				if err := openBrowser(c.Context(), url); err != nil {
					fmt.Fprintf(os.Stderr, "boxer: %v\n", err)
				}
			}
			return d.Serve(c.Context(), l)
		},
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1:0", "where to serve: a loopback address; port 0: any free one")
	cmd.Flags().BoolVar(&open, "open", false, "open the page in the browser")
	return cmd
}

// openBrowser asks the desktop to show the page; it does not wait for it.
func openBrowser(ctx context.Context, url string) error {
	cmd := exec.CommandContext(ctx, "xdg-open", url)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("--open: %w: install xdg-utils, or open the address yourself", err)
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// networkSource looks at a network as an observer of its seed, and into its logs.
type networkSource struct {
	store   *localcloud.Store
	name    string
	seed    string // that session observes
	session *cluster.Session
	events  eventLog
	deeds   uint64 // the last event of the controller that was seen
	tails   map[string]tailOf
}

func (s *networkSource) close() {
	if s.session != nil {
		s.session.Close()
	}
}

// maxEvents are kept from one look to the next.
const maxEvents = 4096

// eventLog keeps the events of sessions until they are taken.
type eventLog struct {
	mu   sync.Mutex
	list []cluster.Event
}

// follow takes events in until their session ends.
func (l *eventLog) follow(events <-chan cluster.Event) {
	for e := range events {
		l.mu.Lock()
		if len(l.list) < maxEvents {
			l.list = append(l.list, e)
		}
		l.mu.Unlock()
	}
}

func (l *eventLog) take() []cluster.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

// Look gathers what is true now. A network that was started or created again is
// found again.
func (s *networkSource) Look(ctx context.Context) (dashboard.Facts, error) {
	info, err := s.store.Network(s.name)
	switch {
	case errors.Is(err, localcloud.ErrNotFound):
		return dashboard.Facts{}, fmt.Errorf("network %q was deleted", s.name)
	case err != nil:
		return dashboard.Facts{}, err
	}
	if err := checkAlive(info); err != nil {
		return dashboard.Facts{}, err
	}
	if err := s.observe(ctx, info); err != nil {
		return dashboard.Facts{}, err
	}
	facts := dashboard.Facts{}
	if facts.Paths, err = s.session.Paths(ctx); err != nil {
		return facts, fmt.Errorf("network %q: its seed at %s does not answer: %w", s.name, info.SeedEndpoint, err)
	}
	facts.Deeds = s.done(ctx)
	facts.Events = s.events.take() // before the members: they are newer, if anything
	members, reserved := s.session.Network()
	facts.Members, facts.Dormant = members, cluster.Dormant(members, reserved)
	facts.Lines = s.lines(info, facts.Members)
	return facts, nil
}

// done is what the controller did since the last look; without one that answers,
// nothing.
func (s *networkSource) done(ctx context.Context) (deeds []dashboard.Deed) {
	var events []controller.Event
	if launch.CallLeader(ctx, s.session, controller.MethodEvents, controller.Since{Seq: s.deeds}, &events) != nil {
		return nil
	}
	for _, e := range events {
		s.deeds = e.Seq
		switch e.Type {
		case controller.EventRunning, controller.EventEnded:
			continue // the members say so
		}
		d := dashboard.Deed{Slot: cmp.Or(e.Slot, e.Name), What: e.Type}
		if e.Text != "" {
			d.What += ", " + e.Text
		}
		deeds = append(deeds, d)
	}
	return deeds
}

func (s *networkSource) observe(ctx context.Context, info localcloud.NetworkInfo) error {
	if s.session != nil {
		select {
		case <-s.session.Done():
		default:
			if s.seed == info.SeedEndpoint {
				return nil
			}
			s.session.Close()
		}
	}
	s.session = nil
	session, err := launch.Observe(ctx, info)
	if err != nil {
		return err
	}
	s.session, s.seed = session, info.SeedEndpoint
	events, _ := session.Subscribe() // until the session ends
	go s.events.follow(events)
	return nil
}

// tailOf is the end of a log that had this size and time.
type tailOf struct {
	size  int64
	time  time.Time
	lines []string
}

// lines are what each member's guest wrote last; only logs that have grown are read.
func (s *networkSource) lines(info localcloud.NetworkInfo, members []cluster.Member) map[string][]string {
	all := make(map[string][]string, len(members))
	tails := make(map[string]tailOf, len(members))
	for _, m := range members {
		file, err := os.Stat(info.LogPath(m.Slot))
		if err != nil {
			continue // it has none, as clients and seeds
		}
		t := s.tails[m.Slot]
		if t.size != file.Size() || !t.time.Equal(file.ModTime()) {
			t = tailOf{size: file.Size(), time: file.ModTime()}
			if t.lines, err = info.Tail(m.Slot, shownLines); err != nil {
				continue
			}
		}
		tails[m.Slot], all[m.Slot] = t, t.lines
	}
	s.tails = tails
	return all
}
