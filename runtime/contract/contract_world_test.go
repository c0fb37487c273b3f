// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// quick bounds verbs of boxer that start one node.
	quick = 60 * time.Second
	// guestPath leaves out what only the developer's shell has.
	guestPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	network   = "contract"
)

// world is a network of this package's own, with the guests of testdata.
type world struct {
	bin, dir, state, task string

	// The traps' cases are played once for all their tests.
	played sync.Once
	traps  map[route]map[string]seen
	lossy  map[string]seen
}

// route is where a client runs, whom it connects to and how.
type route struct {
	transport  string
	kind, host string // of the client, and the server's slot
}

var routes = []route{
	{"native", "vm", "alpha"},
	{"direct", "function", "alpha"},
	{"relay", "vm", "lambda-0"},
	{"punch", "function", "lambda-0"},
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.world != nil {
		if err := shared.world.remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var shared struct {
	once  sync.Once
	world *world
	err   error
}

// theWorld is the network that all tests use, made when first asked for.
func theWorld(t *testing.T) *world {
	t.Helper()
	shared.once.Do(func() { shared.world, shared.err = newWorld() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			shared.world.dump(t)
		}
	})
	return shared.world
}

func newWorld() (*world, error) {
	bin := os.Getenv("BOXER_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(bin, "boxer")); err != nil {
		return nil, fmt.Errorf("%w: run `make build` first (or point BOXER_BIN at the binaries)", err)
	}
	dir, err := os.MkdirTemp("/tmp", "bx") // short: unix sockets lie below it
	if err != nil {
		return nil, err
	}
	w := &world{bin: bin, dir: dir, state: filepath.Join(dir, "s"), task: filepath.Join(dir, "task"), traps: map[route]map[string]seen{}}
	if err := os.CopyFS(w.task, os.DirFS("testdata")); err != nil {
		return w, err
	}
	if err := w.compile("guest.c", "guest"); err != nil {
		return w, err
	}
	if _, err := w.boxer(quick, "network", "create", network); err != nil {
		return w, err
	}
	if err := w.agent("vm", "alpha"); err != nil {
		return w, err
	}
	return w, w.agent("function", "lambda")
}

// agent starts a node that serves cases and plays them.
func (w *world) agent(kind, name string, flags ...string) error {
	args := append([]string{"run", "--kind", kind, "--name", name, "--detach", "--source-dir", w.task}, flags...)
	_, err := w.boxer(quick, append(args, "--", "python3", "/var/task/agent.py", "serve", "7000", w.mark(name))...)
	return err
}

// mark is an argument by which an agent's process is found.
func (w *world) mark(name string) string { return filepath.Base(w.dir) + "-" + name }

// remove leaves nothing of the network.
func (w *world) remove() error {
	_, err := w.boxer(quick, "network", "delete", network)
	return errors.Join(err, os.RemoveAll(w.dir))
}

// compile builds a guest in C.
func (w *world) compile(source, program string) error {
	cmd := exec.Command("gcc", "-O1", "-Wall", "-Wextra", "-pthread", "-o", filepath.Join(w.task, program), filepath.Join("testdata", source))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", source, err, out)
	}
	return nil
}

// boxer runs a verb and returns what it printed.
func (w *world) boxer(limit time.Duration, args ...string) (string, error) {
	return w.program(limit, filepath.Join(w.bin, "boxer"), args...)
}

func (w *world) program(limit time.Duration, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = "/tmp"
	cmd.Env = []string{
		"PATH=" + guestPath, "HOME=" + w.dir, "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1",
		"BOXER_STATE_DIR=" + w.state, "BOXER_CLI_NETWORK=" + network,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it takes its node away
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\nstdout: %s\nstderr: %s",
			filepath.Base(path), strings.Join(args, " "), err, clip(stdout.String()), clip(stderr.String()))
	}
	return stdout.String(), nil
}

func clip(s string) string {
	if len(s) > 3000 {
		return s[:1500] + "\n[...]\n" + s[len(s)-1500:]
	}
	return s
}

// guest runs a program of testdata on a client node of the route.
func (w *world) guest(limit time.Duration, r route, args ...string) (string, error) {
	return w.boxer(limit, append([]string{"run", "--kind", r.kind, "--transports", r.transport, "--source-dir", w.task, "--"}, args...)...)
}

// must is for what a test cannot go on without.
func (w *world) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.boxer(quick, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// node is what `boxer nodes --json` says of a slot's member.
type node struct {
	Slot     string `json:"slot"`
	Overlay  string `json:"overlay_address"`
	Underlay string `json:"underlay_address"` // its overlay port
}

func (w *world) node(t *testing.T, slot string) node {
	t.Helper()
	var all []node
	if err := json.Unmarshal([]byte(w.must(t, "nodes", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if n.Slot == slot {
			return n
		}
	}
	t.Fatalf("no node %s in %+v", slot, all)
	return node{}
}

// dump shows the last lines of every log, to explain a failure.
func (w *world) dump(t *testing.T) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(w.state, "networks", "*", "logs", "*"))
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil || len(data) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		t.Logf("--- %s (%d lines)\n%s", filepath.Base(path), len(lines), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// eventually polls until ok, and says what was seen last if that never comes.
func eventually(t *testing.T, limit time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		done, seen := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v; last seen: %s", what, limit, seen)
		}
	}
}
