// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestStandby: a function has a VM node's slot while that is gone.
func TestStandby(t *testing.T) {
	t.Parallel()
	s := &seeds{faults: &faults{world: newWorld(t)}}
	s.task = s.world.task(t)
	s.network(t, "spared")
	s.client = s.natClient(t)
	s.client.Locate = true
	s.tick(t, "vm", "home", "home-marker")
	s.standBy(t, "home")
	session, err := launch.Observe(t.Context(), s.client.Info())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	holder := func() (h cluster.Member) {
		for _, m := range session.Members() {
			if m.Slot == "home" && m.Holds() {
				return m
			}
		}
		return h
	}
	await := func(what string, ok func(cluster.Member) bool) cluster.Member {
		t.Helper()
		eventually(t, 30*time.Second, what, func() (bool, string) {
			m := holder()
			return m.State == cluster.StateRunning && ok(m), fmt.Sprintf("%+v", m)
		})
		return holder()
	}
	first := holder()
	standsIn := func(other uint32) func(cluster.Member) bool {
		return func(m cluster.Member) bool {
			return m.Standby && m.ID != other && m.OverlayAddress == first.OverlayAddress
		}
	}

	// A supervisor that is started again where it ran is no death. One that ends soon
	// after it began is started later.
	up := time.Now()
	eventually(t, 20*time.Second, "it has run for a while", func() (bool, string) { return time.Since(up) > 3*time.Second, "" })
	old := s.supervisor(t, "home-marker")
	kill(t, old)
	eventually(t, 20*time.Second, "another supervisor", func() (bool, string) {
		now := s.supervisor(t, "home-marker")
		return now != 0 && now != old, ""
	})
	await("its node is back as it was", func(m cluster.Member) bool { return m.ID == first.ID })
	s.launched(t, 0)

	kill(t, s.host(t, "home-marker"))
	began := time.Now()
	spare := await("a standby", standsIn(first.ID))
	t.Logf("a standby ran after %v", time.Since(began).Round(time.Millisecond))
	s.ask(t, "vm", "home")
	s.ask(t, "function", "home")
	s.launched(t, 1)

	kill(t, s.running(t)[0].MachinePID)
	spare = await("another standby", standsIn(spare.ID))
	s.launched(t, 2)

	// The seed dies, and the node returns.
	struck, err := s.client.Host(t.Context(), "seed-0")
	if err != nil || !s.strike(t, "seed-0") {
		t.Errorf("the seed did not run: %v", err)
	}
	eventually(t, 30*time.Second, "a seed again", func() (bool, string) {
		host, err := s.client.Host(t.Context(), "seed-0")
		if err != nil || host.State != localcloud.HostRunning || host.PID == struck.PID {
			return false, fmt.Sprintf("%+v, %v", host, err)
		}
		r := s.run(t, "nodes") // which fails while it starts
		return r.code == 0, r.String()
	})
	await("the same standby", func(m cluster.Member) bool { return m.ID == spare.ID })
	s.tick(t, "vm", "home", "home-marker")
	await("its own node", func(m cluster.Member) bool {
		return m.Kind == config.KindVM && m.OverlayAddress == first.OverlayAddress
	})
	s.ask(t, "vm", "home")
	s.ask(t, "function", "home")
	eventually(t, 40*time.Second, "the standby leaves", func() (bool, string) { return len(s.running(t)) == 0, "" })
	s.launched(t, 2)

	// Who leaves in order is not stood in for.
	s.must(t, "stop", "home")
	for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		s.launched(t, 2)
	}
	s.must(t, "stop", "spare")
}

// standBy declares a function node that stands by for a slot.
func (s *seeds) standBy(t *testing.T, slot string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), quick)
	defer cancel()
	n := s.client.FunctionConfig(config.Node{
		Version: config.Version, Kind: config.KindFunction, Network: s.net, Name: "spare", Slot: "spare-0",
		Argv: []string{"python3", "/var/task/tick.py", "9000", "spare-marker"},
	})
	if _, err := s.client.CreateFunction(ctx, localcloud.FunctionSpec{Name: "spare", SourceDir: s.task, Config: &n}); err != nil {
		t.Fatal(err)
	}
	d := controller.Declaration{Name: "spare", Function: "spare", Node: n, StandbyFor: slot}
	if err := launch.Control(ctx, s.client.Info(), controller.MethodDeclare, d, nil); err != nil {
		t.Fatal(err)
	}
}

// launched checks how often the standby was.
func (s *seeds) launched(t *testing.T, want int) {
	t.Helper()
	if all := s.spares(t); len(all) != want {
		t.Fatalf("the standby was launched %d times, want %d: %+v", len(all), want, all)
	}
}

func (s *seeds) spares(t *testing.T) []localcloud.Invocation {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), quick)
	defer cancel()
	all, err := s.client.Invocations(ctx, "spare")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// running are the standby's sandboxes.
func (s *seeds) running(t *testing.T) (all []localcloud.Invocation) {
	t.Helper()
	for _, i := range s.spares(t) {
		if i.State == localcloud.InvocationRunning {
			all = append(all, i)
		}
	}
	return all
}
