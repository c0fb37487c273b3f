// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

const wakeMeasure = "wake"

// wakes measures how long the first connect to a service takes that nobody runs,
// and a bare function to start.
func (b *boxer) wakes(ctx context.Context, dir string, r results, p plan) error {
	s, err := b.newBare(ctx, dir)
	if err != nil {
		return err
	}
	defer s.client.Close()
	if err := s.sleeper(ctx, dir); err != nil {
		return err
	}
	sides, rounds := []string{"native", "boxer", "again"}, burstRounds
	if p.Rounds > 0 {
		rounds = p.Rounds
	}
	r[wakeMeasure] = map[string][]result{}
	draw := p.script(wakeMeasure).draw
	for round := range rounds {
		for _, at := range draw.Perm(len(sides)) {
			took, err := s.first(ctx, dir, sides[at] == "boxer")
			if err == nil {
				err = s.quiet(ctx, 0, "bare", "sleeps")
			}
			if err != nil {
				return fmt.Errorf("wake, %s, round %d: %w", sides[at], round, err)
			}
			say("%s: after %d ms", sides[at], took.Milliseconds())
			r[wakeMeasure][sides[at]] = append(r[wakeMeasure][sides[at]], result{N: 1, P50: float64(took)})
		}
	}
	s.must(ctx, "stop", "--network", networkName, "sleeps")
	return s.client.DeleteFunction(ctx, "bare")
}

// sleeper declares the node that nobody runs.
func (s *starter) sleeper(ctx context.Context, dir string) error {
	first, err := os.ReadFile("testdata/first.py")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "first.py"), first, 0o644); err != nil {
		return err
	}
	if _, err := s.client.CreateFunction(ctx, localcloud.FunctionSpec{Name: "sleeps", SourceDir: dir, MemoryMB: burstMemory}); err != nil {
		return err
	}
	n := config.Node{Name: "sleeps", Slot: "sleeps-0", Argv: []string{"/var/task/probe", "serve", strconv.Itoa(burstPort)}}
	d := controller.Declaration{Name: "sleeps", Function: "sleeps", Node: s.client.FunctionConfig(n), Count: -1, Max: 1, MemoryMB: burstMemory}
	return launch.Control(ctx, s.client.Info(), controller.MethodDeclare, d, nil)
}

// first is how long a bare function takes to answer, or a connect to the one
// that sleeps, which sleeps again then.
func (s *starter) first(ctx context.Context, dir string, connects bool) (time.Duration, error) {
	if !connects {
		took, err := s.invoke(ctx, 1)
		if err != nil {
			return 0, err
		}
		return took[0], nil
	}
	out, err := s.run(ctx, "run", "--network", networkName, "--kind", "vm", "--source-dir", dir,
		"--", "python3", "/var/task/first.py", "sleeps", strconv.Itoa(burstPort))
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("it says %q: %w", out, err)
	}
	_, err = s.run(ctx, "scale", "--network", networkName, "sleeps", "0")
	return time.Duration(ns), err
}
