// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// How many functions start at once, how often, and of which size.
const (
	burstSize    = 12
	burstRounds  = 8
	burstMemory  = 1769 // MB: as much as has one CPU
	burstPort    = 7010
	burstTime    = 60 * time.Second // none takes so long
	burstMeasure = "start"
)

// starts measures how long functions take that start all at once: bare ones, by
// the platform's Invoke API, and replicas, by `boxer scale`, one of which is there.
func (b *boxer) starts(ctx context.Context, dir string, r results, p plan) error {
	s, err := b.newStarter(ctx, dir)
	if err != nil {
		return err
	}
	sides := []string{"native", "boxer", "again"}
	rounds := burstRounds
	if p.Rounds > 0 {
		rounds = p.Rounds
	}
	r[burstMeasure] = map[string][]result{}
	draw := p.script(burstMeasure).draw
	for round := range rounds {
		for _, at := range draw.Perm(len(sides)) {
			measure := s.bare
			if sides[at] == "boxer" {
				measure = s.replicas
			}
			took, err := measure(ctx)
			if err == nil {
				err = s.calm(ctx)
			}
			if err != nil {
				return fmt.Errorf("start, %s, round %d: %w", sides[at], round, err)
			}
			slices.Sort(took)
			say("%s: the first after %d ms, all after %d ms", sides[at], took[0].Milliseconds(), took[len(took)-1].Milliseconds())
			r[burstMeasure][sides[at]] = append(r[burstMeasure][sides[at]], result{N: len(took), P50: float64(took[len(took)-1])})
		}
	}
	return s.end(ctx)
}

// starter starts functions of one network.
type starter struct {
	*boxer
	client *localcloud.Client
}

// newStarter makes the functions, one replica, and a VM whose guest asks replicas.
func (b *boxer) newStarter(ctx context.Context, dir string) (*starter, error) {
	b.t.Helper()
	s, err := b.newBare(ctx, dir)
	if err != nil {
		return nil, err
	}
	asks, err := os.ReadFile("testdata/asks.py")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "asks.py"), asks, 0o644); err != nil {
		return nil, err
	}
	port := strconv.Itoa(burstPort)
	b.must(ctx, "run", "--network", networkName, "--kind", "function", "--name", "many", "--detach", "--source-dir", dir,
		"--memory-size", strconv.Itoa(burstMemory), "--", "/var/task/probe", "serve", port)
	b.must(ctx, "scale", "--network", networkName, "many", "1")
	b.must(ctx, "run", "--network", networkName, "--kind", "vm", "--name", "asks", "--detach", "--source-dir", dir,
		"--", "python3", "/var/task/asks.py", "many", port)
	_, err = s.said(ctx, "asks", "greeted", time.Time{}, 1)
	return s, err
}

// newBare makes the bare handler's function.
func (b *boxer) newBare(ctx context.Context, dir string) (*starter, error) {
	b.t.Helper()
	store, err := localcloud.Open(filepath.Join(b.work, "state"), localcloud.Runtime{})
	if err != nil {
		return nil, err
	}
	client, err := store.Connect(ctx, networkName)
	if err != nil {
		return nil, err
	}
	bare := filepath.Join(dir, "bare")
	if err := os.MkdirAll(bare, 0o755); err != nil {
		return nil, err
	}
	source, err := filepath.Abs("testdata/handler.c")
	if err != nil {
		return nil, err
	}
	if _, err := b.command(ctx, dir, "gcc", "-O2", "-Wall", "-Wextra", "-static", "-o", filepath.Join(bare, "bootstrap"), source); err != nil {
		return nil, fmt.Errorf("build the bare handler: %w", err)
	}
	if _, err := client.CreateFunction(ctx, localcloud.FunctionSpec{Name: "bare", SourceDir: bare, MemoryMB: burstMemory}); err != nil {
		return nil, err
	}
	return &starter{b, client}, nil
}

// end takes away what newStarter made.
func (s *starter) end(ctx context.Context) error {
	s.must(ctx, "stop", "--network", networkName, "many")
	s.must(ctx, "stop", "--network", networkName, "asks")
	defer s.client.Close()
	return s.client.DeleteFunction(ctx, "bare")
}

// bare invokes the bare handler, and says how long each took to answer.
func (s *starter) bare(ctx context.Context) ([]time.Duration, error) { return s.invoke(ctx, burstSize) }

func (s *starter) invoke(ctx context.Context, count int) ([]time.Duration, error) {
	began := time.Now()
	failed := make([]error, count)
	var all sync.WaitGroup
	for i := range count {
		all.Go(func() {
			event, _ := json.Marshal(map[string]string{"slot": fmt.Sprintf("bare-%d", i)})
			_, failed[i] = s.client.Invoke(ctx, "bare", event)
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	var took []time.Duration
	for i := range count {
		at, err := s.said(ctx, fmt.Sprintf("bare-%d", i), "answers", began, 1)
		if err != nil {
			return nil, err
		}
		took = append(took, at[0].Sub(began))
	}
	return took, nil
}

// replicas scales out, and says how long each new replica took to answer.
func (s *starter) replicas(ctx context.Context) ([]time.Duration, error) {
	began := time.Now()
	if _, err := s.run(ctx, "scale", "--network", networkName, "many", strconv.Itoa(1+burstSize)); err != nil {
		return nil, err
	}
	at, err := s.said(ctx, "asks", "greeted", began, burstSize)
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for _, one := range at {
		took = append(took, one.Sub(began))
	}
	_, err = s.run(ctx, "scale", "--network", networkName, "many", "1")
	return took, err
}

// said is when a slot's guest printed lines that begin with word, after began. It
// looks seldom: it takes its time from those that are measured.
func (s *starter) said(ctx context.Context, slot, word string, began time.Time, count int) ([]time.Time, error) {
	for end := time.Now().Add(burstTime); ; {
		text, err := os.ReadFile(s.client.LogPath(slot))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		var found []time.Time
		for line := range strings.Lines(string(text)) {
			part := strings.Fields(line)
			if len(part) < 2 || part[0] != word {
				continue
			}
			ns, err := strconv.ParseInt(part[len(part)-1], 10, 64)
			if at := time.Unix(0, ns); err == nil && at.After(began) {
				found = append(found, at)
			}
		}
		if len(found) >= count {
			return found, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, fmt.Errorf("%s said %q %d times, want %d; its last words: %s", slot, word, len(found), count, tail(string(text), 500))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// calm waits until nothing of a start is left but the one replica.
func (s *starter) calm(ctx context.Context) error { return s.quiet(ctx, 1, "bare", "many") }

// quiet waits until so many sandboxes of these functions are left.
func (s *starter) quiet(ctx context.Context, count int, names ...string) error {
	for end := time.Now().Add(burstTime); ; time.Sleep(100 * time.Millisecond) {
		left := 0
		for _, name := range names {
			f, err := s.client.Function(ctx, name)
			if err != nil {
				return err
			}
			left += f.Running
		}
		if left == count {
			time.Sleep(time.Second) // the kernel takes namespaces away
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d sandboxes are left, want %d", left, count)
		}
	}
}
