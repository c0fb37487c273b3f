// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// The test binary is the supervisor as well: each node is a process of its
// own, on a loopback address of its own.
const (
	nodeVariable = "BOXER_TEST_CONFIG"
	testSecret   = "a secret of some thirty letters"
	overlayPort  = 17717
)

// nodeTask is what a supervisor process is told.
type nodeTask struct {
	Environment []string // of the supervisor
	Config      config.Node
	Library     string
	Foreground  bool
	Life        time.Duration // until the platform's deadline; 0: none
	Trace       string        // file for the time the supervisor began
	OnAWS       bool          // its document names a secret there
	Descriptors uint64        // it may have; 0: as many as this process
}

func TestMain(m *testing.M) {
	path := os.Getenv(nodeVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	os.Unsetenv(nodeVariable)
	os.Exit(supervise(path))
}

func supervise(path string) int {
	data, err := os.ReadFile(path)
	var t nodeTask
	if err == nil {
		err = json.Unmarshal(data, &t)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	if t.Descriptors > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: t.Descriptors, Max: t.Descriptors}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 99
		}
	}
	o := Options{
		Config: t.Config, Secret: []byte(testSecret), Library: t.Library, Version: "test",
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Foreground: t.Foreground,
		Ended:  func(r Result) { fmt.Fprintf(os.Stderr, "ended: %s\n", r.Reason) },
		Logger: zerolog.New(os.Stderr),
	}
	if t.Life > 0 {
		o.Deadline = time.Now().Add(t.Life)
	}
	if t.OnAWS {
		o.Config.SecretRef = "ssm:eu-west-1/boxer/shop/secret" // what it is has been given
	}
	var next *config.Node
	o.Configure = func(n config.Node) error { next = &n; return nil }
	code, err := Run(context.Background(), o)
	for errors.Is(err, ErrConfigured) {
		o.Config = *next
		code, err = Run(context.Background(), o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return code
}

var library = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../../lib")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("make", "-s", "-C", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("make libboxer.so: %w: %s", err, out)
	}
	return filepath.Join(dir, "build", runtime.GOARCH, "libboxer.so"), nil
})

// world is one network on loopback.
type world struct {
	t       *testing.T
	library string
	dir     string
	net     int // second byte of the nodes' addresses
	next    int
	seed    *supervisor
	watch   *cluster.Session
}

var worlds atomic.Int32

func newWorld(t *testing.T) *world {
	t.Helper()
	so, err := library()
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	w := &world{t: t, library: so, dir: t.TempDir(), net: 70 + int(worlds.Add(1))}
	w.seed = w.start(config.Node{Kind: config.KindSeed, Slot: "seed-0", CIDR: "100.80.0.0/16", StateDir: w.path("seed"),
		Metrics: "unix:" + w.path("seed.sock"), Invoke: "unix:" + w.path("invoke.sock")})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for w.watch == nil {
		s, err := cluster.Observe(ctx, cluster.Options{Network: "shop", Secret: []byte(testSecret), Seeds: []string{w.seedAddress()}, Logger: zerolog.Nop()})
		if err == nil {
			w.watch = s
			t.Cleanup(func() { s.Close() })
		} else if ctx.Err() != nil {
			t.Fatalf("%v\n%s", err, w.seed.log())
		}
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) seedAddress() string { return fmt.Sprintf("127.%d.0.1:%d", w.net, overlayPort) }

// supervisor is one node's process.
type supervisor struct {
	w       *world
	task    nodeTask
	cmd     *exec.Cmd
	out     *os.File
	errors  *os.File
	done    chan struct{}
	began   time.Time
	outFile string
}

func (w *world) start(n config.Node, changes ...func(*nodeTask)) *supervisor {
	w.t.Helper()
	w.next++
	n.Network, n.SecretRef, n.Port = "shop", "file:/dev/null", overlayPort
	if n.Kind != config.KindSeed {
		n.SeedEndpoints = []string{w.seedAddress()}
	}
	if n.Kind == config.KindVM || n.Kind == config.KindSeed {
		n.Site = "host"
	}
	if n.Kind != config.KindClient {
		n.UnderlayAddress = fmt.Sprintf("127.%d.0.%d", w.net, w.next)
	}
	if n.Kind == config.KindClient {
		n.Reach = config.ReachSeeds
	}
	n, err := config.New(n)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &supervisor{w: w, task: nodeTask{Config: n, Library: w.library, Foreground: n.Kind == config.KindClient}}
	for _, change := range changes {
		change(&s.task)
	}
	s.launch()
	return s
}

// launch starts the process, again after an earlier one has ended.
func (s *supervisor) launch() {
	t := s.w.t
	t.Helper()
	data, err := json.Marshal(s.task)
	if err != nil {
		t.Fatal(err)
	}
	base := s.w.path(s.task.Config.Slot)
	if err := os.WriteFile(base+".json", data, 0o600); err != nil {
		t.Fatal(err)
	}
	s.outFile = base + ".log"
	open := func(name string) *os.File {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	s.out, s.errors = open(s.outFile), open(base+".node.log")
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), nodeVariable+"="+base+".json", "TMPDIR="+s.w.dir, "GORACE=atexit_sleep_ms=0")
	s.cmd.Env = append(s.cmd.Env, s.task.Environment...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.errors
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(s.cmd, s.done)
	t.Cleanup(s.kill)
}

func (s *supervisor) kill() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	if s.w.t.Failed() {
		s.w.t.Logf("%s supervisor:\n%s", s.task.Config.Slot, s.log())
	}
	s.out.Close()
	s.errors.Close()
}

// wait returns the exit status.
func (s *supervisor) wait() int {
	s.w.t.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		s.w.t.Fatalf("%s does not end", s.task.Config.Slot)
		return -1
	}
}

func (s *supervisor) log() string {
	data, _ := os.ReadFile(strings.TrimSuffix(s.outFile, ".log") + ".node.log")
	return string(data)
}

func (s *supervisor) output() string {
	data, _ := os.ReadFile(s.outFile)
	return string(bytes.TrimSpace(data))
}

// member waits until the slot's member satisfies the condition.
func (w *world) member(slot string, condition func(cluster.Member) bool) cluster.Member {
	w.t.Helper()
	var last cluster.Member
	w.eventually(slot+" is as wanted", func() bool {
		for _, m := range w.watch.Members() {
			if m.Slot == slot {
				last = m
				return condition(m)
			}
		}
		return false
	})
	return last
}

func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within 30 s: %s; members %+v", what, w.watch.Members())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func in(state string) func(cluster.Member) bool {
	return func(m cluster.Member) bool { return m.State == state }
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func number(s string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(s))
	return n
}
