// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestStartOnUse: nodes that nobody runs are started by who connects to them.
func TestStartOnUse(t *testing.T) {
	t.Parallel()
	w := &wakes{world: newWorld(t)}
	w.dir = w.task(t)
	w.network(t, "wake")
	w.cloud = w.natClient(t)
	t.Run("cases", func(t *testing.T) { // the network is there until all have ended
		t.Run("a hundred at once", w.hundred)
		t.Run("again and again", w.again)
		t.Run("forward", w.forward)
		t.Run("a crash", w.crash)
		t.Run("it never runs", w.never)
		t.Run("names", w.names)
	})
}

// names: nobody else takes those of replicas, and who tries is told so before anything is made.
func (w *wakes) names(t *testing.T) {
	t.Parallel()
	w.sleeper(t, "named", echo("9000"), 60)
	for _, args := range [][]string{{"--kind", "vm", "--detach"}, {}} {
		r := w.run(t, append(append([]string{"run", "--name", "named-1"}, args...), "--", "sleep", "60")...)
		if r.code == 0 || !strings.Contains(r.stderr, `that of a replica of function node "named"`) {
			t.Errorf("a node with the name of a replica: %s", r)
		}
	}
	if _, err := w.cloud.Host(t.Context(), "named-1"); !errors.Is(err, localcloud.ErrNotFound) {
		t.Errorf("its host: %v", err)
	}
}

// TestStartOnUseWithoutALeader: who connects waits for the next leader, which
// does not launch again what was launched.
func TestStartOnUseWithoutALeader(t *testing.T) {
	t.Parallel()
	w := &wakes{world: newWorld(t)}
	w.dir, w.net = w.task(t), "wakes"
	t.Cleanup(func() { w.remove(t, "wakes") })
	w.must(t, "network", "create", "wakes", "--seeds", "3")
	w.cloud = w.natClient(t)
	w.cloud.Locate = true // a host of it is killed
	n := config.Node{Argv: []string{"sh", "-c", "sleep 1; exec python3 /var/task/echo.py 9000 marker"}}
	w.sleeper(t, "slow", n, 60)
	s := &seeds{faults: &faults{world: w.world}, client: w.cloud}
	leader := s.leader(t)
	asked := make(chan []string, 1)
	go func() {
		defer close(asked)
		asked <- w.ask(t, []string{"--kind", "vm"}, "slow", 20, 0)
	}()
	eventually(t, 20*time.Second, "a launch", func() (bool, string) { return w.launches(t, "slow") > 0, "" })
	if !s.strike(t, leader) {
		t.Error("the leader did not run")
	}
	counts, slowest := outcome(t, <-asked)
	if counts["ok"] != 20 || w.launches(t, "slow") != 1 {
		t.Errorf("first connects: %v, with %d launches\n%s", counts, w.launches(t, "slow"), w.must(t, "events"))
	}
	t.Logf("while the leader is killed the slowest took %v", slowest)
}

type wakes struct {
	*world
	cloud *localcloud.Client
	dir   string
}

// sleeper declares a node that nobody runs yet.
func (w *wakes) sleeper(t *testing.T, name string, n config.Node, cooldown int) {
	t.Helper()
	if _, err := w.cloud.CreateFunction(t.Context(), localcloud.FunctionSpec{Name: name, SourceDir: w.dir}); err != nil {
		t.Fatal(err)
	}
	n.Slot, n.Name = name+"-0", name
	d := controller.Declaration{
		Name: name, Function: name, Node: w.cloud.FunctionConfig(n), Count: -1, Max: 2, MemoryMB: 512,
		Scale: &controller.Scale{Metric: controller.MetricConnections, Target: 1000, CooldownS: cooldown},
	}
	if err := launch.Control(t.Context(), w.cloud.Info(), controller.MethodDeclare, d, nil); err != nil {
		t.Fatal(err)
	}
	w.asleep(t, name+"-0")
	var all []node
	if err := json.Unmarshal([]byte(w.must(t, "nodes", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(all, func(n node) bool { return n.Slot == name+"-0" }); all[i].State != "dormant" || all[i].ID != 0 || all[i].Overlay == "" {
		t.Errorf("--json says %+v", all[i])
	}
}

func echo(port string) config.Node {
	return config.Node{Argv: []string{"python3", "/var/task/echo.py", port, "marker"}}
}

// ask connects from a node of its own, and returns what came of each.
func (w *wakes) ask(t *testing.T, flags []string, to string, count int, pause float64, more ...string) (lines []string) {
	t.Helper()
	args, dir := append([]string{"run"}, flags...), w.dir
	if !slices.Contains(flags, "client") {
		args, dir = append(args, "--source-dir", w.dir), "/var/task"
	}
	r := w.runIn(t, 2*quick, nil, append(append(args, "--", "python3", dir+"/wake.py", to, "9000", strconv.Itoa(count), fmt.Sprint(pause)), more...)...)
	if lines = strings.Split(strings.TrimSpace(r.stdout), "\n"); r.code != 0 || len(lines) != count {
		t.Fatal(r)
	}
	return lines
}

// outcome counts what was said of the connects, and finds the slowest.
func outcome(t *testing.T, lines []string) (counts map[string]int, slowest time.Duration) {
	t.Helper()
	counts = map[string]int{}
	for _, line := range lines {
		word, took, _ := strings.Cut(line, " ")
		ms, err := strconv.Atoi(took)
		if err != nil {
			t.Fatalf("%q", line)
		}
		counts[word]++
		slowest = max(slowest, time.Duration(ms)*time.Millisecond)
	}
	return counts, slowest
}

func (w *wakes) launches(t *testing.T, name string) int {
	t.Helper()
	list, err := w.cloud.Invocations(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func (w *wakes) asleep(t *testing.T, slot string) {
	t.Helper()
	row := regexp.MustCompile(`(?m)^- +` + slot + ` +function +dormant `) // beside one that drains
	eventually(t, 30*time.Second, slot+" is dormant", func() (bool, string) {
		table := w.must(t, "nodes")
		return row.MatchString(table), table
	})
}

func (w *wakes) hundred(t *testing.T) {
	t.Parallel()
	w.sleeper(t, "many", echo("9000"), 60)
	if members := w.must(t, "members"); strings.Contains(members, "many-0") {
		t.Errorf("a dormant node is a member:\n%s", members)
	}
	lines := w.ask(t, []string{"--kind", "function"}, "many", 100, 0)
	counts, slowest := outcome(t, lines)
	if counts["ok"] != 100 || w.launches(t, "many") != 1 {
		t.Errorf("a hundred first connects: %v, with %d launches\n%s", counts, w.launches(t, "many"), w.must(t, "events"))
	}
	t.Logf("the slowest of a hundred took %v", slowest)
}

// again connects while it sleeps, starts, runs and drains.
func (w *wakes) again(t *testing.T) {
	t.Parallel()
	w.sleeper(t, "often", echo("9000"), 1)
	for count, flags := range map[int][]string{4: {"--kind", "vm"}, 3: {"--kind", "vm", "--transports", "relay"}, 2: {"--kind", "client"}} {
		lines := w.ask(t, flags, "often-0", count, 1.6)
		if counts, _ := outcome(t, lines); counts["ok"] != count {
			t.Errorf("from %v, with pauses: %q\n%s", flags, lines, w.must(t, "events"))
		}
	}
	if n := w.launches(t, "often"); n < 3 {
		t.Errorf("it has slept %d times only:\n%s", n-1, w.must(t, "events"))
	}
	w.asleep(t, "often-0")
	if events := w.must(t, "events"); !strings.Contains(events, "connects to often-0") || !strings.Contains(events, "no connection for 1") {
		t.Errorf("events say nothing of it:\n%s", events)
	}
}

func (w *wakes) forward(t *testing.T) {
	t.Parallel()
	w.sleeper(t, "led", echo("9000"), 1)
	port := freePort(t)
	w.inBackground(t, "forward", "led", fmt.Sprintf("%d:9000", port))
	for range 2 {
		began := time.Now()
		var conn net.Conn
		eventually(t, 10*time.Second, "a connection", func() (ok bool, seen string) {
			var err error
			conn, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			return err == nil, fmt.Sprint(err)
		})
		conn.SetDeadline(time.Now().Add(quick))
		said := make([]byte, 6)
		_, err := fmt.Fprint(conn, "hello\n")
		if err == nil {
			_, err = conn.Read(said)
		}
		if err != nil || string(said) != "hello\n" {
			t.Errorf("it says %q: %v\n%s", said, err, w.must(t, "events"))
		}
		conn.Close()
		t.Logf("forwarded after %v", time.Since(began).Round(time.Millisecond))
		w.asleep(t, "led-0")
	}
}

func (w *wakes) crash(t *testing.T) {
	t.Parallel()
	w.sleeper(t, "bad", config.Node{Argv: []string{"python3", "-c", "import sys; sys.exit(7)"}}, 1)
	counts, slowest := outcome(t, w.ask(t, []string{"--kind", "vm"}, "bad", 6, 0))
	if counts["ECONNREFUSED"] != 6 || slowest > 20*time.Second {
		t.Errorf("connects to what crashes: %v, the slowest after %v", counts, slowest)
	}
	if events := w.must(t, "events"); !strings.Contains(events, "its guest ended with exit status 7") {
		t.Errorf("events say nothing of it:\n%s", events)
	}
	w.asleep(t, "bad-0")
}

func (w *wakes) never(t *testing.T) {
	t.Parallel()
	n := echo("9000")
	n.WaitFor = map[string]int{"nodes": 99}
	w.sleeper(t, "late", n, 60)
	// Those that block have a limit of their own.
	counts, slowest := outcome(t, w.ask(t, []string{"--kind", "vm"}, "late", 6, 0, "1"))
	if counts["EINPROGRESS"] != 3 || counts["ETIMEDOUT"] != 3 || slowest > 21*time.Second {
		t.Errorf("connects to what never runs: %v, the slowest after %v", counts, slowest)
	}
	if n := w.launches(t, "late"); n != 1 {
		t.Errorf("%d launches", n)
	}
}

// inBackground runs a command until the test ends.
func (w *wakes) inBackground(t *testing.T, args ...string) {
	t.Helper()
	cmd := w.command(t.Context(), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { // the context has ended then
		if err := <-ended; err != nil && !slices.Contains([]string{"context canceled", "signal: interrupt"}, err.Error()) {
			t.Errorf("boxer %s: %v", strings.Join(args, " "), err)
		}
	})
}
