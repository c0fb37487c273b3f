// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// joinLimit is what the documentation promises after a seed died, generously.
const joinLimit = 20 * time.Second

// seeds is a network with three seeds, some of which die.
type seeds struct {
	*faults
	client *localcloud.Client
}

// TestThreeSeeds: a seed may die, and even two, without harm to what runs.
func TestThreeSeeds(t *testing.T) {
	t.Parallel()
	s := &seeds{faults: &faults{world: newWorld(t)}}
	s.task = filepath.Join(filepath.Dir(s.state), "task")
	if err := os.CopyFS(s.task, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	s.net = "bank"
	t.Cleanup(func() { s.remove(t, "bank") })
	if out := s.must(t, "network", "create", "bank", "--seeds", "3"); strings.Count(out, "127.0.0.1:") != 3 {
		t.Errorf("network create says %q", out)
	}
	store, err := localcloud.Open(s.state, localcloud.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	if s.client, err = store.Connect(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	defer s.client.Close()
	s.client.Locate = true // its hosts are killed
	stop := s.steady(t, "base")
	callers := s.relayed(t)
	before := s.nodes(t)
	t.Run("the leader killed", func(t *testing.T) { s.leaderKilled(t, before, callers) })
	t.Run("two killed", func(t *testing.T) { s.twoKilled(t, before) })
	t.Run("a damaged state", s.damaged)
	stop()
}

// shown is what `network show --json` says of the seeds.
type shown struct {
	Seeds []struct {
		Slot, State, Error string
		Leader             bool
	}
	Nodes   map[string]int
	Problem string
}

func (s *seeds) show(t *testing.T) shown {
	t.Helper()
	var v shown
	if err := json.Unmarshal([]byte(s.must(t, "network", "show", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// leader waits until a seed leads and all three are in the network.
func (s *seeds) leader(t *testing.T) string {
	t.Helper()
	leader := ""
	eventually(t, 60*time.Second, "three seeds, one of which leads", func() (bool, string) {
		v := s.show(t)
		for _, seed := range v.Seeds {
			if seed.Leader {
				leader = seed.Slot
			}
		}
		return leader != "" && v.Nodes["seed"] == 3, fmt.Sprintf("%+v", v)
	})
	return leader
}

// strike kills the host of a seed, if it runs.
func (s *seeds) strike(t *testing.T, slot string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	host, err := s.client.Host(ctx, slot)
	if err != nil || host.State != localcloud.HostRunning || host.MachinePID <= 1 {
		return false
	}
	kill(t, host.MachinePID)
	return true
}

// relayed starts a server and clients behind NATs of their own, whose open
// connections meet at third nodes.
func (s *seeds) relayed(t *testing.T) (callers []string) {
	t.Helper()
	s.function(t, "hidden", "--source-dir", s.task, "--", "python3", "/var/task/echo.py", "9000", "hidden-marker")
	for i := range 3 {
		name := fmt.Sprintf("caller%d", i)
		s.function(t, name, "--source-dir", s.task, "--transports", "relay", "--", "python3", "/var/task/kept.py", "hidden-0", "9000", "4", name+"-marker")
		callers = append(callers, name+"-0")
		eventually(t, 20*time.Second, name+" talks", func() (bool, string) {
			out := s.must(t, "logs", name+"-0")
			return strings.HasPrefix(out, "open "), out
		})
	}
	return callers
}

func (s *seeds) leaderKilled(t *testing.T, before map[string]node, callers []string) {
	leader := s.leader(t)
	if !s.strike(t, leader) {
		t.Fatalf("%s does not run", leader)
	}
	began := time.Now()
	var joining sync.WaitGroup
	for i := range 3 {
		joining.Go(func() {
			r := s.run(t, "run", "--name", fmt.Sprintf("late%d", i), "--", "true")
			if took := time.Since(began); r.code != 0 || took > joinLimit {
				t.Errorf("a node that joins while the leader dies, after %v: %s", took, r)
			} else {
				t.Logf("a node joined and ended %v after the leader's death", took.Round(10*time.Millisecond))
			}
		})
	}
	s.goesOn(t, never) // native and direct, open and new ones, by name
	joining.Wait()
	if next := s.leader(t); next == leader {
		t.Logf("%s leads again", next)
	}
	s.unchanged(t, before)
	s.goesOn(t, never)
	for _, slot := range callers { // those that met at other nodes are open
		for line := range strings.Lines(s.must(t, "logs", slot)) {
			t.Logf("%s: %s", slot, strings.TrimSpace(line))
			if r := (keptRound{}); json.Unmarshal([]byte(line), &r) == nil && (r.Open == 0 || r.Slowest > joinLimit.Seconds()) {
				t.Errorf("%s: %+v: want open connections, and new ones", slot, r)
			}
		}
	}
	s.ask2(t, "hidden-0")
}

// unchanged: all nodes but the seeds and the relays' clients are as they were.
func (s *seeds) unchanged(t *testing.T, before map[string]node) {
	t.Helper()
	eventually(t, 30*time.Second, "everybody is as before", func() (bool, string) {
		after := s.nodes(t)
		for slot, n := range before {
			m := after[slot]
			if n.Kind != "seed" && !strings.HasPrefix(slot, "caller") && (m.ID != n.ID || m.Overlay != n.Overlay || m.State != "running") {
				return false, fmt.Sprintf("before %+v, after %+v", n, m)
			}
			if n.Kind == "seed" && m.Overlay != n.Overlay {
				return false, fmt.Sprintf("before %+v, after %+v", n, m)
			}
		}
		return true, ""
	})
}

func (s *seeds) twoKilled(t *testing.T, before map[string]node) {
	leader := s.leader(t)
	doomed := []string{leader, map[string]string{"seed-0": "seed-1", "seed-1": "seed-2", "seed-2": "seed-0"}[leader]}
	ctx, revive := context.WithCancel(t.Context())
	var striking sync.WaitGroup
	struck := make(chan bool)
	striking.Go(func() { // as often as the daemon starts them
		for first := true; ctx.Err() == nil; first = false {
			for _, slot := range doomed {
				s.strike(t, slot)
			}
			if first {
				close(struck)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	<-struck
	defer striking.Wait()
	defer revive()
	eventually(t, 30*time.Second, "a clear refusal", func() (bool, string) {
		r := s.run(t, "run", "--", "true")
		return r.code == 125 && strings.Contains(r.stderr, "is in touch with no majority of the network's 3 seeds, so no node can join or return; running nodes go on"), r.String()
	})
	v := s.show(t)
	if len(v.Seeds) != 3 || v.Problem == "" {
		t.Errorf("network show without a majority: %+v", v)
	}
	s.goesOn(t, never)
	revive()
	striking.Wait()
	began := time.Now()
	s.leader(t)
	t.Logf("three seeds again after %v", time.Since(began).Round(time.Millisecond))
	s.unchanged(t, before)
	s.goesOn(t, never)
	s.ask2(t, "base")
}

// damaged: a seed whose state is damaged says so and stays away; the others go on.
func (s *seeds) damaged(t *testing.T) {
	const slot = "seed-1"
	s.leader(t)
	state := filepath.Join(s.state, "networks", "bank", "hosts", slot, "state", "raft")
	if !s.strike(t, slot) {
		t.Fatalf("%s does not run", slot)
	}
	eventually(t, 20*time.Second, "its host is gone", func() (bool, string) {
		host, err := s.client.Host(t.Context(), slot)
		return err == nil && host.State == localcloud.HostExited, fmt.Sprint(host.State, err)
	})
	if err := os.Truncate(filepath.Join(state, "log.db"), 5000); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the seed says what is wrong", func() (bool, string) {
		log, err := os.ReadFile(s.client.NodeLogPath(slot))
		return err == nil && strings.Contains(string(log), "is damaged (5000 bytes are no whole file): while the other two seeds run, remove its directory"), string(log[max(0, len(log)-2000):])
	})
	s.ask2(t, "base")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	s.leader(t)
	s.goesOn(t, never)
}
