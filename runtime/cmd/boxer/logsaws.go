// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

const (
	logsTick = 2 * time.Second
	// lifeTime is how far back the words of a supervisor may lie that say whose the lines
	// of an environment are: a function lives for 15 minutes.
	lifeTime = 16 * time.Minute
	mostKept = 100_000 // lines, of which the last are looked for
)

// logsOnAWS prints the log group of a function node, or what one of its replicas has in it.
func (g *globals) logsOnAWS(ctx context.Context, w io.Writer, f *logsFlags, name string) error {
	fail := func(err error) error { return fmt.Errorf("logs of %q: %w", name, err) }
	if g.network == "" {
		return fail(errors.New("which network? On aws give its name with --network"))
	}
	client, err := cloud.Open(ctx, cloud.Config{})
	if err != nil {
		return fail(err)
	}
	network, err := openNetwork(ctx, client, g.network)
	if err != nil {
		return fail(err)
	}
	p := &awsPrinter{logsFlags: f, w: w, json: g.json, since: time.Now().Add(-f.since), slots: map[string]string{}}
	read := func(function string) (*cloud.LogReader, error) {
		r := client.ReadLog(network.LogGroup(function), p.since.Add(-lifeTime))
		return r, r.Next(ctx, p.line)
	}
	reader, err := read(name)
	if m := slotOf().FindStringSubmatch(name); m != nil && errors.Is(err, cloud.ErrNotFound) {
		p.slot = name
		reader, err = read(m[1])
	}
	if errors.Is(err, cloud.ErrNotFound) {
		return fail(g.noLogGroup(ctx, name))
	}
	for {
		if err == nil {
			err = p.flush()
		}
		switch {
		case ctx.Err() != nil && f.follow:
			return nil
		case err != nil:
			return fail(err)
		case !f.follow:
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logsTick):
		}
		err = reader.Next(ctx, p.line)
	}
}

// noLogGroup says where to look instead. It asks the seeds: the SDK's client of EC2 would
// double this program.
func (g *globals) noLogGroup(ctx context.Context, name string) error {
	return g.observe(ctx, func(_ context.Context, info localcloud.NetworkInfo, s *cluster.Session) error {
		for _, m := range s.Members() {
			if m.Slot == name && m.Kind != config.KindFunction && m.Kind != config.KindClient {
				return errors.New("it is a machine of its own, and what its guest writes is in its journal, 'journalctl -u boxer' there; its supervisor is on the console: " +
					"'aws ec2 get-console-output --latest --output text --instance-id ID'")
			}
		}
		return fmt.Errorf("network %q has no function node or replica of that name; see 'boxer nodes --platform aws --network %s'", info.Name, info.Name)
	})
}

// awsPrinter prints the lines of functions. Those of guests and of supervisors are in one
// stream for each environment, which serves one replica after the other.
type awsPrinter struct {
	*logsFlags
	w     io.Writer
	json  bool
	slot  string            // "": all
	since time.Time         // what is older tells only whose the rest is
	slots map[string]string // by stream: whose supervisor spoke last
	lines []slotLine        // of which the last are printed
}

type slotLine struct{ slot, text string }

// platformWords are lines of Lambda's own.
var platformWords = regexp.MustCompile(`^(START|END|REPORT) RequestId: |^INIT_(START|REPORT) |^(EXTENSION|TELEMETRY)\t`)

func (p *awsPrinter) line(l cloud.LogLine) error {
	text := strings.TrimRight(l.Text, "\n")
	var said struct{ Level, Slot, Time string }
	supervisor := strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &said) == nil && said.Level != "" && said.Time != ""
	if supervisor && said.Slot != "" {
		p.slots[l.Stream] = said.Slot
	}
	slot := p.slots[l.Stream]
	if l.Time.Before(p.since) || p.slot != "" && slot != p.slot || (supervisor || platformWords.MatchString(text)) != p.supervisor {
		return nil
	}
	if slot == "" {
		slot = "?"
	}
	one := slotLine{slot, text}
	if p.tail < 0 {
		return p.print(one)
	}
	if p.lines = append(p.lines, one); len(p.lines) > mostKept {
		p.lines = lastOfEach(p.lines, p.tail)
	}
	return nil
}

// flush prints the last lines of what there is, and has those that follow printed as they come.
func (p *awsPrinter) flush() error {
	if p.tail < 0 {
		return nil
	}
	last := lastOfEach(p.lines, p.tail)
	p.lines, p.tail = nil, -1
	for _, l := range last {
		if err := p.print(l); err != nil {
			return err
		}
	}
	return nil
}

func (p *awsPrinter) print(l slotLine) error {
	text := l.text
	switch {
	case p.json:
		data, err := json.Marshal(map[string]string{"slot": l.slot, "line": l.text})
		if err != nil {
			return err
		}
		text = string(data)
	case p.slot == "":
		text = l.slot + " | " + l.text
	}
	_, err := fmt.Fprintln(p.w, text)
	return err
}

// lastOfEach keeps the last n lines of each slot.
func lastOfEach(lines []slotLine, n int) []slotLine {
	count := map[string]int{}
	for _, l := range lines {
		count[l.slot]++
	}
	var kept []slotLine
	for _, l := range lines {
		if count[l.slot] <= n {
			kept = append(kept, l)
		}
		count[l.slot]--
	}
	return kept
}
