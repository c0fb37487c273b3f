// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestScalesByConnections: a service has more replicas while there is more to do,
// then fewer, and nobody who uses it notices.
func TestScalesByConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.task(t)
	w.network(t, "surge")
	cloud := w.natClient(t)
	if _, err := cloud.CreateFunction(t.Context(), localcloud.FunctionSpec{Name: "web", SourceDir: task}); err != nil {
		t.Fatal(err)
	}
	l := &launch.Launcher{Network: cloud.Info(), Client: cloud}
	n := config.Node{Slot: "web-0", Name: "web", Argv: []string{"python3", "/var/task/echo.py", "9000", "marker"}}
	wants, err := l.Declare(t.Context(), controller.Declaration{
		Name: "web", Function: "web", Node: n, Count: -1, Min: 1, Max: 4, MemoryMB: 512,
		Scale: &controller.Scale{Metric: controller.MetricConnections, Target: 4, CooldownS: 3},
	})
	if err == nil {
		_, err = l.Wait(t.Context(), wants)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := w.runIn(t, 3*time.Minute, nil, "run", "--kind", "vm", "--name", "users", "--source-dir", task, "--",
		"python3", "/var/task/surge.py", "web", "9000", "16", "2", "4")
	events := w.must(t, "events")
	t.Logf("%s%s", r.stdout, events)
	made, _, _ := strings.Cut(lastLine(r.stdout), " ")
	if count, _ := strconv.Atoi(made); r.code != 0 || !strings.HasSuffix(strings.TrimSpace(r.stdout), " made 0 failed") || count < 20 {
		t.Errorf("%s", r)
	}
	for _, want := range []string{" 4 addresses\n", " 1 addresses\n"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("never%s", want)
		}
	}
	if !strings.Contains(events, "scaled    web: 1 -> ") || !strings.Contains(events, " -> 1: connections ") {
		t.Error("no event says why")
	}
	eventually(t, 30*time.Second, "one replica is left", func() (bool, string) {
		out := w.must(t, "nodes")
		return strings.Count(out, "web-") == 1, out
	})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// memory is a store of one seed that always leads.
type memory struct{}

func (m *memory) Leading() (uint64, bool)                       { return 1, true }
func (m *memory) Turned() <-chan struct{}                       { return nil }
func (m *memory) Notes() map[string]json.RawMessage             { return nil }
func (m *memory) LetGo(uint64, string, uint32) error            { return nil }
func (m *memory) Reserve(uint64, []cluster.Reserved) error      { return nil }
func (m *memory) Note(uint64, map[string]json.RawMessage) error { return nil }

// twice delivers every event twice, and the first of one slot late.
type twice struct {
	client *localcloud.Client
	slot   string
	late   time.Duration

	mu   sync.Mutex
	kept bool
	sent map[string]int
	done sync.WaitGroup
}

func (i *twice) Invoke(ctx context.Context, function string, payload []byte) error {
	var n config.Node
	if err := json.Unmarshal(payload, &n); err != nil {
		return err
	}
	i.mu.Lock()
	keep := n.Slot == i.slot && !i.kept
	i.kept = i.kept || keep
	i.sent[n.Slot] += 2
	i.mu.Unlock()
	send := func(ctx context.Context) (err error) {
		for range 2 {
			if _, err = i.client.Invoke(ctx, function, payload); err != nil {
				break
			}
		}
		return err
	}
	if !keep {
		return send(ctx)
	}
	i.done.Go(func() {
		time.Sleep(i.late)
		_ = send(context.WithoutCancel(ctx))
	})
	return nil
}

// TestEventsThatComeTwiceAndLate: a platform may deliver an event twice, or a
// minute late. Each slot has one node, and it stays the same.
func TestEventsThatComeTwiceAndLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.task(t)
	w.network(t, "twice")
	cloud := w.natClient(t)
	if _, err := cloud.CreateFunction(t.Context(), localcloud.FunctionSpec{Name: "web", SourceDir: task}); err != nil {
		t.Fatal(err)
	}
	session, err := launch.Observe(t.Context(), cloud.Info())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	platform := &twice{client: cloud, slot: "web-1", late: 50 * time.Second, sent: map[string]int{}}
	c := controller.New(controller.Options{
		Secret: []byte("a secret of the test"), Store: &memory{}, Network: session, Invoker: platform, Logger: zerolog.Nop(), Patience: 10 * time.Second,
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	n := config.Node{Slot: "web-0", Name: "web", Argv: []string{"python3", "/var/task/echo.py", "9000", "marker"}}
	body, err := json.Marshal(controller.Declaration{Name: "web", Function: "web", Node: cloud.FunctionConfig(n), Count: 3, MemoryMB: 512})
	if err == nil {
		_, err = c.Handlers()[controller.MethodDeclare](t.Context(), 1, body)
	}
	if err != nil {
		t.Fatal(err)
	}
	holders := func() (all []string) {
		for _, m := range session.Members() {
			if m.Kind == config.KindFunction && m.State == cluster.StateRunning {
				all = append(all, fmt.Sprint(m.Slot, " ", m.ID))
			}
		}
		slices.Sort(all)
		return all
	}
	eventually(t, 45*time.Second, "three nodes", func() (bool, string) { return len(holders()) == 3, fmt.Sprint(holders()) })
	before := holders()
	platform.done.Wait() // the late one
	settled := func() bool {
		running := map[string]int{}
		all, err := cloud.Invocations(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range all {
			if i.State == localcloud.InvocationRunning {
				running[i.Slot]++
			}
		}
		return len(all) == 8 && running["web-0"] == 1 && running["web-1"] == 1 && running["web-2"] == 1
	}
	eventually(t, 30*time.Second, "what came twice or late has ended", func() (bool, string) {
		all, _ := cloud.Invocations(t.Context(), "web")
		return settled(), fmt.Sprintf("%+v", all)
	})
	if after := holders(); !slices.Equal(before, after) || !strings.HasPrefix(after[1], "web-1 ") {
		t.Errorf("the nodes were %v, and are %v", before, after)
	}
	platform.mu.Lock()
	if platform.sent["web-0"] != 2 || platform.sent["web-1"] != 4 || platform.sent["web-2"] != 2 {
		t.Errorf("events: %v", platform.sent)
	}
	platform.mu.Unlock()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
