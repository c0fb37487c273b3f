// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// proc is one process of this machine.
type proc struct {
	pid, parent int
	args        []string
}

// is reports whether p is the boxer binary running one of the verbs.
func (p proc) is(verbs ...string) bool {
	if len(p.args) < 2 || filepath.Base(p.args[0]) != "boxer" {
		return false
	}
	for _, v := range verbs {
		if p.args[1] == v {
			return true
		}
	}
	return false
}

// processes lists every process that still has a command line (no zombies).
func processes() map[int]proc {
	all := map[int]proc{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		stat, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err1 != nil || err2 != nil || len(line) == 0 {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		all[pid] = proc{pid, parent, strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")}
	}
	return all
}

// below reports whether pid is root or a descendant of it.
func below(all map[int]proc, pid, root int) bool {
	for hops := 0; pid > 1 && hops < 100; hops++ {
		if pid == root {
			return true
		}
		pid = all[pid].parent
	}
	return false
}

// daemon is the pid of the network's daemon.
func (w *world) daemon(t *testing.T) int {
	t.Helper()
	var list []struct {
		Name string `json:"name"`
		PID  int    `json:"pid"`
	}
	if err := json.Unmarshal([]byte(w.must(t, "network", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		if n.Name == w.net && n.PID > 0 {
			return n.PID
		}
	}
	t.Fatalf("network %s has no daemon: %+v", w.net, list)
	return 0
}

// guest finds the one process of this world's nodes with marker as one of its
// arguments, and is 0 if there is none.
func (w *world) guest(t *testing.T, marker string) int {
	t.Helper()
	root, all, found := w.daemon(t), processes(), 0
	for pid, p := range all {
		for _, arg := range p.args[1:] {
			if arg != marker || !below(all, pid, root) {
				continue
			}
			if found != 0 {
				t.Fatalf("more than one process with argument %q: %d and %d", marker, found, pid)
			}
			found = pid
		}
	}
	return found
}

// host is the init of the host or sandbox in which the guest with marker runs.
func (w *world) host(t *testing.T, marker string) int {
	t.Helper()
	// The list is read one by one: a process whose parent just died may be below nobody.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		pid, host := w.guest(t, marker), 0
		for all := processes(); pid > 1; pid = all[pid].parent {
			if all[pid].is("local-host") {
				host = pid // the outermost one wins
			}
		}
		if host != 0 {
			return host
		}
	}
	t.Fatalf("no host above the guest with argument %q", marker)
	return 0
}

// supervisor is the supervisor of the guest with marker, 0 if there is none now.
func (w *world) supervisor(t *testing.T, marker string) int {
	t.Helper()
	host, all := w.host(t, marker), processes()
	for pid, p := range all {
		if p.is("node", "function") && below(all, pid, host) {
			return pid
		}
	}
	return 0
}

// kill -9, and nothing softer.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process to kill (%d)", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// awaitEnds waits until killed processes have closed what they had open: the first
// thread may be a zombie before the last one has ended.
func awaitEnds(t *testing.T, pids []int) {
	t.Helper()
	eventually(t, 20*time.Second, "the killed have ended", func() (bool, string) {
		var left []string
		for _, pid := range pids {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			if err == nil && (!strings.Contains(string(stat), ") Z ") || len(threads) > 1) {
				left = append(left, string(stat))
			}
		}
		return len(left) == 0, strings.Join(left, "")
	})
}

// nothingLeft proves that no process, mount or file of the world's networks is left.
func (w *world) nothingLeft(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(w.state, "networks")); err == nil && len(left) > 0 {
		t.Errorf("left in %s/networks: %v", w.state, left)
	}
	var left []string
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if left = w.traces(); len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
			return
		}
	}
}

// traces lists processes that name the state directory or live on mounts of
// it, and mounts of this namespace that name it.
func (w *world) traces() []string {
	var found []string
	for pid, p := range processes() {
		if pid == os.Getpid() {
			continue
		}
		switch mounts, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid)); {
		case strings.Contains(strings.Join(p.args, " "), w.state):
			found = append(found, fmt.Sprintf("process %d: %v", pid, p.args))
		case strings.Contains(string(mounts), w.state):
			found = append(found, fmt.Sprintf("process %d lives on mounts of the state directory: %v", pid, p.args))
		}
	}
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return append(found, err.Error())
	}
	for line := range strings.Lines(string(own)) {
		if strings.Contains(line, w.state) {
			found = append(found, "mount: "+strings.TrimSpace(line))
		}
	}
	return found
}

// output collects what a process writes while the test reads it.
type output struct {
	mu   sync.Mutex
	data []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data = append(o.data, p...)
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.data)
}

// background is a boxer command under way.
type background struct {
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
	err            error
}

// begin starts boxer; the test's end kills it.
func (w *world) begin(t *testing.T, args ...string) *background {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &background{cmd: w.command(ctx, args...), ended: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = &b.stdout, &b.stderr
	if err := b.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		b.err = b.cmd.Wait()
		close(b.ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-b.ended
	})
	return b
}

// says waits until the command has written text to its standard output.
func (b *background) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, quick, fmt.Sprintf("output %q", text), func() (bool, string) {
		select {
		case <-b.ended:
			if !strings.Contains(b.stdout.String(), text) {
				t.Fatalf("ended (%v) without saying %q; stdout: %s\nstderr: %s", b.err, text, b.stdout.String(), b.stderr.String())
			}
		default:
		}
		return strings.Contains(b.stdout.String(), text), b.stdout.String() + b.stderr.String()
	})
}

// end waits for the exit status.
func (b *background) end(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case <-b.ended:
	case <-time.After(limit):
		t.Fatalf("%v has not ended within %v; stdout: %s\nstderr: %s", b.cmd.Args[1:], limit, b.stdout.String(), b.stderr.String())
	}
	var exit *exec.ExitError
	if errors.As(b.err, &exit) {
		return exit.ExitCode()
	}
	if b.err != nil {
		t.Fatal(b.err)
	}
	return 0
}
