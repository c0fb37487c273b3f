// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// watchTick is how often a watched view is asked for again without a reason.
const watchTick = time.Second

// view is what a verb shows: for programs, and for people.
type view struct {
	data  any // what --json prints; a view is new when this is
	table table
	note  string // after the table, for people
}

// print shows v once.
func (g *globals) print(w io.Writer, v view) error {
	if g.json {
		return printJSON(w, v.data)
	}
	if err := v.table.write(w); err != nil || v.note == "" {
		return err
	}
	_, err := fmt.Fprintln(w, "\n"+v.note)
	return err
}

// printJSON writes v, indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// show prints what look returns, with watch again whenever it has changed.
func (g *globals) show(c *cobra.Command, watch bool, look func(context.Context, *cluster.Session) (view, error)) error {
	return g.observe(c.Context(), func(ctx context.Context, info localcloud.NetworkInfo, s *cluster.Session) error {
		if watch {
			return g.watch(ctx, c, info, s, look)
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		v, err := look(ctx, s)
		if err != nil {
			return err
		}
		return g.print(c.OutOrStdout(), v)
	})
}

// watch shows a view until it is interrupted or the network ends.
func (g *globals) watch(ctx context.Context, c *cobra.Command, info localcloud.NetworkInfo, s *cluster.Session,
	look func(context.Context, *cluster.Session) (view, error)) error {
	p := &painter{w: c.OutOrStdout(), json: g.json, title: c.CommandPath() + " --network " + info.Name}
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	for {
		v, err := look(ctx, s)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			err = p.paint(v)
		case errors.Is(err, cluster.ErrDisconnected):
			err = nil // it connects again by itself, or the network is gone
		}
		if err == nil {
			err = g.ended(info.Name, s)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.Changed():
		case <-tick.C:
		}
	}
}

// ended says that a network that is watched is no more.
func (g *globals) ended(name string, s *cluster.Session) error {
	if err := g.gone(name); err != nil {
		return err
	}
	return s.Err()
}

// gone says that a network was deleted, or has ended.
func (g *globals) gone(name string) error {
	if g.platform == platformAWS {
		return nil // its seeds say so
	}
	store, err := g.store()
	if err != nil {
		return err
	}
	info, err := store.Network(name)
	if errors.Is(err, localcloud.ErrNotFound) {
		return fmt.Errorf("network %q was deleted", name)
	} else if err != nil {
		return err
	}
	return checkAlive(info)
}

// painter shows views one after the other: a terminal is drawn anew, anything
// else gets the next one below the last.
type painter struct {
	w     io.Writer
	json  bool
	title string
	data  any
	drawn string
}

func (p *painter) paint(v view) error {
	f, ok := p.w.(*os.File)
	if ok && !p.json && term.IsTerminal(int(f.Fd())) {
		return p.draw(f, v)
	}
	if p.data != nil && reflect.DeepEqual(p.data, v.data) {
		return nil
	}
	first := p.data == nil
	p.data = v.data
	if p.json {
		return json.NewEncoder(p.w).Encode(v.data) // one line each
	}
	if !first {
		fmt.Fprintln(p.w)
	}
	return v.table.write(p.w)
}

func (p *painter) draw(f *os.File, v view) error {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return err
	}
	lines := v.table.lines(width)
	if v.note != "" {
		lines = append(lines, "", clip(v.note, width))
	}
	if room := height - 3; room > 1 && len(lines) > room { // title and prompt
		more := len(lines) - room + 1
		lines = append(lines[:room-1], fmt.Sprintf("%s %d more lines", ellipsis, more))
	}
	text := strings.Join(lines, "\n")
	if text == p.drawn {
		return nil
	}
	p.drawn = text
	title := clip(fmt.Sprintf("%s  %s  (Ctrl-C ends it)", p.title, time.Now().Format(time.TimeOnly)), width)
	_, err = fmt.Fprintf(f, "\x1b[H\x1b[2J%s\n\n%s\n", title, text)
	return err
}
