// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// traces are what a network leaves in the system while it runs.
type traces struct {
	dir, netns string
}

func tracesOf(t *testing.T, c *Client) traces {
	t.Helper()
	p, err := c.dir.daemon()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/%d/ns/net", p.Inner.PID)
	held, err := os.Open(path) // or its number would be free for another namespace
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close() })
	ns, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return traces{dir: string(c.dir), netns: ns}
}

// left lists what is still there.
func (tr traces) left() []string {
	var found []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		cmdline, _ := os.ReadFile(p + "/cmdline")
		mounts, _ := os.ReadFile(p + "/mountinfo")
		ns, _ := os.Readlink(p + "/ns/net")
		if strings.Contains(string(cmdline), tr.dir) || strings.Contains(string(mounts), tr.dir) || ns == tr.netns {
			found = append(found, p+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	if _, err := os.Lstat(tr.dir); err == nil {
		found = append(found, tr.dir)
	}
	return found
}

// gone waits until nothing but files may be left.
func (tr traces) gone(t *testing.T, files ...string) {
	t.Helper()
	var left []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left = tr.left(); strings.Join(left, " ") == strings.Join(files, " ") {
			return
		}
	}
	t.Errorf("left: %q", left)
}

func TestDeleteLeavesNothing(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	c := testNetwork(t, s, "shop")
	// One that ignores TERM would take drainTime; this takes up to a fork.
	vm(t, c, "a", nil, "sh", "-c", "sleep 1000 & sleep 1001")
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "closed"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "closed", "file"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "closed"), 0o555); err != nil {
		t.Fatal(err)
	}
	testFunction(t, c, FunctionSpec{Name: "f", SourceDir: dir})
	if err := removeAll(dir); err != nil {
		t.Error(err)
	}
	invoke(t, c, "f", "f-0", "sleep", "1000")
	tr := tracesOf(t, c)
	if len(tr.left()) < 4 {
		t.Errorf("traces see only %q", tr.left())
	}
	info, err := s.Network("shop")
	if err != nil || !info.Alive || info.PID == 0 || info.CIDR != config.DefaultCIDR || info.Port != config.DefaultPort {
		t.Errorf("%+v %v", info, err)
	}
	if err := s.DeleteNetwork(testContext(t), "shop"); err != nil {
		t.Fatal(err)
	}
	if left := tr.left(); len(left) != 0 { // at once: delete waits
		t.Errorf("left: %q", left)
	}
	if entries, _ := os.ReadDir(s.Dir()); len(entries) != 0 {
		t.Errorf("left in the state directory: %v", entries)
	}
	if _, err := s.Network("shop"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after delete: %v", err)
	}
	if err := s.DeleteNetwork(testContext(t), "shop"); err != nil {
		t.Errorf("deleting again: %v", err)
	}
	if _, err := s.Connect(testContext(t), "shop"); !errors.Is(err, ErrNotFound) {
		t.Errorf("connect after delete: %v", err)
	}
}

// A caller who has no time left to hear the daemon's answer must not take it for
// dead: starting it again would take every node down.
func TestConnectCutShortLeavesTheDaemonAlone(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	c := testNetwork(t, s, "shop")
	before, err := c.dir.daemon()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if _, err := s.Connect(ctx, "shop"); !errors.Is(err, context.Canceled) {
		t.Errorf("Connect: %v", err)
	}
	after, err := c.dir.daemon()
	if err != nil || after != before {
		t.Errorf("the daemon was %+v, is %+v, %v", before, after, err)
	}
}

// TestDaemonDies kills the daemon: everything goes with it, and the next
// Connect starts it again with the seed's state.
func TestDaemonDies(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	c := testNetwork(t, s, "shop")
	vm(t, c, "a", nil, "sleep", "1000")
	testFunction(t, c, FunctionSpec{Name: "f"})
	tr := tracesOf(t, c)
	for try, half := range []string{"outer", "inner"} {
		p, err := c.dir.daemon()
		if err != nil {
			t.Fatal(err)
		}
		pid := p.Outer.PID
		if half == "inner" {
			pid = p.Inner.PID
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		tr.gone(t, tr.dir)
		if info, err := s.Network("shop"); err != nil || info.Alive || info.PID != 0 {
			t.Errorf("%+v %v", info, err)
		}
		var wg sync.WaitGroup // several may find it dead at the same time
		for range 3 {
			wg.Go(func() {
				c, err := s.Connect(testContext(t), "shop")
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if hosts, err := c.Hosts(testContext(t)); err != nil || len(hosts) != 1 || hosts[0].Slot != cluster.SeedName(0) {
					t.Errorf("hosts after the restart: %+v %v", hosts, err)
				}
				if _, err := c.Function(testContext(t), "f"); err != nil {
					t.Errorf("the function is gone: %v", err)
				}
			})
		}
		wg.Wait()
		starts, err := os.ReadFile(c.dir.join("hosts", cluster.SeedName(0), "state", "starts"))
		if want := strings.Repeat(".", try+2); err != nil || string(starts) != want {
			t.Errorf("the seed's state: %q, %v, want %q", starts, err, want)
		}
		tr = tracesOf(t, c)
	}
	p, _ := c.dir.daemon()
	if err := unix.Kill(p.Outer.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteNetwork(testContext(t), "shop"); err != nil { // with a dead daemon
		t.Fatal(err)
	}
	if left := tr.left(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestTwoCreators(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	t.Cleanup(func() { _ = s.DeleteNetwork(context.Background(), "shop") })
	results := make([]error, 4)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { _, results[i] = s.CreateNetwork(testContext(t), NetworkSpec{Name: "shop"}) })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), `network "shop" exists already`) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d creators won", won)
	}
	if _, err := s.CreateNetwork(testContext(t), NetworkSpec{Name: "shop"}); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "choose another name or delete it first") {
		t.Error(err)
	}
	if list, err := s.Networks(); err != nil || len(list) != 1 || list[0].Name != "shop" {
		t.Errorf("%+v %v", list, err)
	}
}

// TestHalfMade: what a creator that was killed left is no network, can be
// deleted, and is replaced by the next creator.
func TestHalfMade(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	half := func() {
		for _, dir := range []string{"logs", "hosts/x"} {
			if err := os.MkdirAll(s.netDir("shop").join(dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(s.netDir("shop").join("pending.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half()
	if _, err := s.Network("shop"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if list, err := s.Networks(); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	if err := s.DeleteNetwork(testContext(t), "shop"); err != nil {
		t.Error(err)
	}
	half()
	testNetwork(t, s, "shop")
	if _, err := os.Stat(s.netDir("shop").join("hosts/x")); err == nil {
		t.Error("debris left")
	}
}

// TestCreatorKilled kills the process that creates a network before the seed
// is up: the daemon must not stay.
func TestCreatorKilled(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	d := s.netDir("shop")
	s.rt = brokenRuntime(t, "trap '' TERM; sleep 100 & wait") // a seed that never answers
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() {
		_, err := s.CreateNetwork(ctx, NetworkSpec{Name: "shop"})
		done <- err
	}()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if p, _ := d.daemon(); p.Inner.alive() {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(s.Dir()); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// brokenRuntime is a layer whose supervisor is a shell script; the daemon is
// still this test binary.
func brokenRuntime(t *testing.T, script string) Runtime {
	t.Helper()
	dir := t.TempDir()
	boxer, path := filepath.Join(dir, "boxer"), filepath.Join(dir, "layer.zip")
	if err := os.WriteFile(boxer, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var zip bytes.Buffer
	if err := layer.Build(&zip, layer.Files{Boxer: boxer, Library: boxer}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, zip.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Runtime{Boxer: exe, Layers: map[string]string{runtime.GOARCH: path}}
}

// TestSeedFails: a network whose seed does not start is undone, and the error
// has the seed's own words.
func TestSeedFails(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	s.rt = brokenRuntime(t, "echo the seed is unhappy >&2; kill -9 $PPID")
	_, err := s.CreateNetwork(testContext(t), NetworkSpec{Name: "shop"})
	if err == nil || !strings.Contains(err.Error(), "the seed ended") || !strings.Contains(err.Error(), "the seed is unhappy") {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(s.Dir()); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// TestCorruptLayer damages the layer before and after the network was made.
func TestCorruptLayer(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	path := filepath.Join(t.TempDir(), "bad.zip")
	if err := os.WriteFile(path, []byte("PK not really"), 0o644); err != nil {
		t.Fatal(err)
	}
	bad := &Store{dir: s.dir, rt: Runtime{Layers: map[string]string{runtime.GOARCH: path}}}
	_, err := bad.CreateNetwork(testContext(t), NetworkSpec{Name: "shop"})
	if !errors.Is(err, layer.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(s.Dir()); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
	c := testNetwork(t, s, "shop")
	if err := os.WriteFile(s.runtimeDir(c.Info().Runtime).zip(), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	vm(t, c, "a", nil, "sleep", "1000")
	var h Host
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if h, _ = c.Host(testContext(t), "a"); h.State == HostExited {
			break
		}
	}
	sum, err := layer.Hash(s.rt.Layers[runtime.GOARCH])
	if err != nil || !strings.Contains(h.Error, "layer checksum mismatch: file:///run/boxer/layer.zip: expected SHA-256 "+sum+", found ") {
		t.Errorf("%+v", h)
	}
}

func TestLongStateDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40), "state")
	s, err := Open(dir, testRuntime(t))
	if err != nil {
		t.Fatal(err)
	}
	c := testNetwork(t, s, "a-network-with-quite-a-long-name-too")
	if _, err := c.Hosts(testContext(t)); err != nil {
		t.Error(err)
	}
}

// TestOrdinaryUser runs the tests of this package again as a user without any
// privilege, when they run as root.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is the ordinary user")
	}
	t.Parallel()
	const nobody = 65534
	dir, err := os.MkdirTemp("", "boxer-user-")
	if err != nil {
		t.Fatal(err)
	}
	defer removeAll(dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	zip, err := testLayer()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "localcloud.test")
	for _, err := range []error{copyFile(exe, program, 0o755), os.Chmod(dir, 0o755), os.Mkdir(dir+"/tmp", 0o755), os.Chown(dir+"/tmp", nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-test.v", "-test.timeout=10m", "-test.run="+os.Getenv("BOXER_TEST_RUN"))
	cmd.Env = []string{"PATH=" + hostPath, "HOME=" + dir + "/tmp", "TMPDIR=" + dir + "/tmp", "BOXER_TEST_LAYER=" + zip}
	cmd.Dir = dir + "/tmp"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as uid %s: %v\n%s", strconv.Itoa(nobody), err, out)
	}
	if passed := bytes.Count(out, []byte("--- PASS")); passed < 8 {
		t.Errorf("only %d tests passed as uid %d:\n%s", passed, nobody, out)
	}
}
