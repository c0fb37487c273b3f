// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// followTick is how often a followed log is looked at.
const followTick = 100 * time.Millisecond

// logsFlags of `boxer logs`.
type logsFlags struct {
	follow, supervisor bool
	tail               int
	since              time.Duration // on aws
}

func logsCommand(g *globals) *cobra.Command {
	f := &logsFlags{}
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print what a node's guest has written",
		Long: `Print what a node's guest has written to its standard output and error. NAME is a
node's (store, logic-0), or that of nodes that share it (logic: all its slots, each
line after the name of its node).

A log holds one launch of a node, restarts of its guest included, and can be read
after the node has ended, until its name is used again or the network is deleted;
of nodes that were stopped the last 50 are kept. When a log has 16 MiB its oldest
part is dropped: 8 MiB stay.

With --platform aws, what replicas of a function node have written to its log group
in CloudWatch within --since. A VM node's is in the journal of its instance.`,
		Example: `  boxer logs store
  boxer logs -f --tail 20 logic
  boxer logs --supervisor store | tail
  boxer logs --platform aws --network shop --since 15m -f logic`,
		Args:              exactArgs(1),
		ValidArgsFunction: first(g.logged),
		RunE: func(c *cobra.Command, args []string) error {
			if g.platform == platformAWS {
				return g.logsOnAWS(c.Context(), c.OutOrStdout(), f, args[0])
			}
			if c.Flags().Changed("since") {
				return errors.New("logs: --since is for --platform aws: a local log has one launch of a node, use --tail")
			}
			return g.logs(c.Context(), c.OutOrStdout(), f, args[0])
		},
	}
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "keep printing what is added, also by a successor, until interrupted")
	cmd.Flags().BoolVar(&f.supervisor, "supervisor", false, "the node supervisor's own log instead of the guest's")
	cmd.Flags().IntVarP(&f.tail, "tail", "n", -1, "begin with the last `lines` (default: all that is kept)")
	cmd.Flags().DurationVar(&f.since, "since", time.Hour, "with --platform aws: how far back to begin")
	cmd.Flags().Lookup("tail").DefValue = "0" // said in words
	return cmd
}

func (g *globals) logs(ctx context.Context, w io.Writer, f *logsFlags, name string) error {
	_, info, err := g.find()
	if err != nil {
		return err
	}
	if err := config.CheckName(name); err != nil {
		return fmt.Errorf("logs of %q: %w", name, err)
	}
	p := &logPrinter{w: w, dir: filepath.Join(info.Directory, "logs"), name: name, flags: f, json: g.json, open: map[string]*openLog{}}
	defer p.close()
	if err := p.find(); err != nil {
		return err
	}
	if len(p.open) == 0 {
		return fmt.Errorf("logs of %q: network %q has no log of that name; it has: %s", name, info.Name, logNames(p.dir))
	}
	for {
		if err := p.copy(); err != nil || !f.follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followTick):
		}
		if err := p.find(); err != nil { // slots that came since
			return err
		}
		if _, err := os.Stat(p.dir); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("logs of %q: network %q was deleted", name, info.Name)
		}
	}
}

// logNames are the names that have logs, in words.
func logNames(dir string) string {
	names := logSlots(dir)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// logPrinter prints the logs that a name stands for.
type logPrinter struct {
	w         io.Writer
	dir, name string
	flags     *logsFlags
	json      bool
	open      map[string]*openLog // by slot
}

type openLog struct {
	*localcloud.LogReader
	out io.Writer
}

func (p *logPrinter) close() {
	for _, l := range p.open {
		l.Close()
	}
}

// find opens the logs that are there and were not yet.
func (p *logPrinter) find() error {
	suffix := ".log"
	if p.flags.supervisor {
		suffix = ".node.log"
	}
	if p.open[p.name] != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(p.dir, p.name+suffix)); err == nil {
		return p.add(p.name, suffix)
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil // gone with its network: noticed elsewhere
	}
	slot := regexp.MustCompile(`^(` + regexp.QuoteMeta(p.name) + `-[0-9]+)` + regexp.QuoteMeta(suffix) + `$`)
	for _, e := range entries {
		if m := slot.FindStringSubmatch(e.Name()); m != nil && p.open[m[1]] == nil {
			if err := p.add(m[1], suffix); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *logPrinter) add(slot, suffix string) error {
	l := &openLog{localcloud.NewLogReader(filepath.Join(p.dir, slot+suffix)), p.w}
	switch {
	case p.json:
		l.out = &lineWriter{w: p.w, line: func(line string) string {
			data, _ := json.Marshal(map[string]string{"slot": slot, "line": line}) // never fails
			return string(data)
		}}
	case slot != p.name:
		l.out = &lineWriter{w: p.w, line: func(line string) string { return slot + " | " + line }}
	}
	l.Lost = func(n int64) {
		fmt.Fprintf(os.Stderr, "boxer: %s: the oldest %.1f MiB of its log are no longer kept\n", slot, float64(n)/(1<<20))
	}
	p.open[slot] = l
	if p.flags.tail < 0 {
		return nil
	}
	return l.Last(p.flags.tail)
}

func (p *logPrinter) copy() error {
	slots := make([]string, 0, len(p.open))
	for slot := range p.open {
		slots = append(slots, slot)
	}
	slices.Sort(slots)
	for _, slot := range slots {
		l := p.open[slot]
		err := l.Copy(l.out)
		if lines, ok := l.out.(*lineWriter); ok && err == nil && !p.flags.follow {
			err = lines.end()
		}
		if err != nil {
			return fmt.Errorf("logs of %q: %w", slot, err)
		}
	}
	return nil
}

// lineWriter changes every line before it is written.
type lineWriter struct {
	w    io.Writer
	line func(string) string
	rest []byte
}

func (l *lineWriter) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		if _, err := fmt.Fprintln(l.w, l.line(string(l.rest[:i]))); err != nil {
			return 0, err
		}
		l.rest = l.rest[i+1:]
	}
}

// end writes what came without a line's end.
func (l *lineWriter) end() error {
	if len(l.rest) == 0 {
		return nil
	}
	_, err := l.Write([]byte("\n"))
	return err
}
