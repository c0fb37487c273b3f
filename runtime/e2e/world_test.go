// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// quick bounds verbs that ask or that start one node.
	quick = 60 * time.Second
	// guestPath leaves out what only the developer's shell has.
	guestPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// world is one state directory with the binaries that work on it.
type world struct {
	bin   string // directory of the binaries
	state string // BOXER_STATE_DIR
	net   string // its network
	cred  *syscall.Credential

	prefix []string // a command that runs another
}

// binaries is the directory of what `make build` makes.
func binaries(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("BOXER_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "boxer")); err != nil {
		t.Fatalf("%v: run `make build` first (or point BOXER_BIN at the binaries)", err)
	}
	return dir
}

// newWorld makes an empty state directory. Its path is short: unix sockets
// lie below it.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{bin: binaries(t)}
	dir, err := os.MkdirTemp("/tmp", "bx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	w.state = filepath.Join(dir, "s")
	return w
}

// network creates the world's network, and sees to it that nothing of it is
// left when the test ends.
func (w *world) network(t *testing.T, name string) {
	t.Helper()
	w.net = name
	t.Cleanup(func() { w.remove(t, name) })
	w.must(t, "network", "create", name)
}

func (w *world) remove(t *testing.T, name string) {
	t.Helper()
	if t.Failed() {
		w.dump(t)
	}
	began := time.Now()
	if r := w.run(t, "network", "delete", name); r.code != 0 {
		t.Errorf("network delete %s: %s", name, r)
	}
	t.Logf("network delete took %v", time.Since(began).Round(time.Millisecond))
	w.nothingLeft(t)
}

// dump shows the last lines of every log, to explain a failure.
func (w *world) dump(t *testing.T) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(w.state, "networks", "*", "logs", "*"))
	more, _ := filepath.Glob(filepath.Join(w.state, "networks", "*", "*.log"))
	for _, path := range append(logs, more...) {
		data, err := os.ReadFile(path)
		if err != nil || len(data) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		t.Logf("--- %s (%d lines)\n%s", filepath.Base(path), len(lines), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// task is a copy of testdata that guests of any user may read.
func (w *world) task(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(w.state), "task")
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// result of a boxer command.
type result struct {
	args   []string
	code   int
	stdout string
	stderr string
	took   time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("boxer %s: exit %d after %v\nstdout: %s\nstderr: %s",
		strings.Join(r.args, " "), r.code, r.took.Round(time.Millisecond), clip(r.stdout), clip(r.stderr))
}

func clip(s string) string {
	if len(s) > 3000 {
		return s[:1500] + "\n[...]\n" + s[len(s)-1500:]
	}
	return s
}

// command prepares the boxer binary with an environment of its own.
func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	line := append(append(slices.Clone(w.prefix), filepath.Join(w.bin, "boxer")), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = "/tmp"
	cmd.Env = []string{
		"PATH=" + guestPath, "HOME=" + filepath.Dir(w.state), "LC_ALL=C.UTF-8", "BOXER_STATE_DIR=" + w.state,
	}
	if w.net != "" {
		cmd.Env = append(cmd.Env, "BOXER_CLI_NETWORK="+w.net)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.cred}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run runs boxer to its end.
func (w *world) run(t *testing.T, args ...string) result {
	t.Helper()
	return w.runIn(t, quick, nil, args...)
}

// runIn runs boxer with input, and fails the test if it does not end in time.
func (w *world) runIn(t *testing.T, limit time.Duration, stdin []byte, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := w.command(ctx, args...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	return finish(t, ctx, cmd, args)
}

// finish runs cmd and says how it ended.
func finish(t *testing.T, ctx context.Context, cmd *exec.Cmd, args []string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	r := result{args: args, stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Errorf("%s\nit did not end in time", r)
		r.code = -1
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil: // exec.ErrWaitDelay: something it left behind holds its output open
		t.Errorf("%s\n%v", r, err)
		r.code = -1
	}
	return r
}

// must runs boxer, expects success and returns its standard output.
func (w *world) must(t *testing.T, args ...string) string {
	t.Helper()
	r := w.run(t, args...)
	if r.code != 0 {
		t.Fatal(r)
	}
	return r.stdout
}

// node is what `boxer nodes --json` says of a member.
type node struct {
	ID      uint32 `json:"id"`
	Name    string `json:"name"`
	Service string `json:"service"`
	Slot    string `json:"slot"`
	Kind    string `json:"kind"`
	State   string `json:"state"`
	Overlay string `json:"overlay_address"`
	NAT     string `json:"nat"`
	Guest   struct {
		State    string `json:"state"`
		PID      int    `json:"pid"`
		ExitCode *int   `json:"exit_code"`
		Restarts int    `json:"restarts"`
	} `json:"guest"`
	Relay *struct {
		Pairs int `json:"pairs"`
	} `json:"relay"`
}

// nodes lists the members by slot.
func (w *world) nodes(t *testing.T) map[string]node {
	t.Helper()
	var list []node
	if err := json.Unmarshal([]byte(w.must(t, "nodes", "--json")), &list); err != nil {
		t.Fatalf("nodes --json: %v", err)
	}
	all := make(map[string]node, len(list))
	for _, n := range list {
		if other, twice := all[n.Slot]; twice {
			t.Errorf("nodes: slot %s is listed twice: %+v, %+v", n.Slot, other, n)
		}
		all[n.Slot] = n
	}
	return all
}

// node waits for the slot's member to satisfy ok.
func (w *world) node(t *testing.T, slot string, limit time.Duration, what string, ok func(node) bool) node {
	t.Helper()
	var n node
	eventually(t, limit, fmt.Sprintf("node %s: %s", slot, what), func() (bool, string) {
		var found bool
		n, found = w.nodes(t)[slot]
		return found && ok(n), fmt.Sprintf("%+v (listed: %v)", n, found)
	})
	return n
}

// eventually polls until ok, and says what was seen last if that never comes.
func eventually(t *testing.T, limit time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		done, seen := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v; last seen: %s", what, limit, seen)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// vm starts a VM node that stays.
func (w *world) vm(t *testing.T, name string, args ...string) {
	t.Helper()
	w.must(t, append([]string{"run", "--kind", "vm", "--name", name, "--detach"}, args...)...)
}

// function starts a function node that stays; its slot is <name>-0.
func (w *world) function(t *testing.T, name string, args ...string) {
	t.Helper()
	w.must(t, append([]string{"run", "--kind", "function", "--name", name, "--detach"}, args...)...)
}
