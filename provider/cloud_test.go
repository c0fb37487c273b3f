// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// localCloud is a state directory of the real local platform for one test, which
// ends with nothing left of it.
type localCloud struct {
	t   *testing.T
	dir string
	zip []byte
}

// builtFile reads one of the files that make build puts into bin/.
func builtFile(t *testing.T, name string) string {
	t.Helper()
	bin := os.Getenv("BOXER_BIN")
	if bin == "" {
		bin = "../bin"
	}
	path, err := filepath.Abs(filepath.Join(bin, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%v: CI requires these tests: run make build", err)
	}
	t.Skipf("%v: run make build", err)
	return ""
}

// plainLayer is the layer that was built, without compression: inflating it takes
// a race detector two seconds for each network. TestAccQuickstart uses it as it is.
var plainLayer = sync.OnceValues(func() ([]byte, error) {
	built, err := zip.OpenReader(builtLayer)
	if err != nil {
		return nil, err
	}
	defer built.Close()
	var plain bytes.Buffer
	w := zip.NewWriter(&plain)
	for _, file := range built.File {
		header := zip.FileHeader{Name: file.Name, Method: zip.Store, Modified: file.Modified}
		header.SetMode(file.Mode())
		to, err := w.CreateHeader(&header)
		if err != nil {
			return nil, err
		}
		from, err := file.Open()
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(to, from); err != nil {
			return nil, err
		}
		from.Close()
	}
	err = w.Close()
	return plain.Bytes(), err
})

var builtLayer string // set by newCloud

func newCloud(t *testing.T) *localCloud {
	t.Helper()
	terraformPath(t) // skips
	builtLayer = builtFile(t, "boxer-layer-"+runtime.GOARCH+".zip")
	zip, err := plainLayer()
	if err != nil {
		t.Fatal(err)
	}
	zip = bytes.Clone(zip)                     // some tests damage theirs
	dir, err := os.MkdirTemp("", "boxer-acc-") // short: the path of a unix socket is limited
	if err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	c := &localCloud{t: t, dir: dir, zip: zip}
	t.Cleanup(c.remove)
	return c
}

// remove deletes what a failed test left, and shows the logs it left too.
func (c *localCloud) remove() {
	defer os.RemoveAll(c.dir)
	networks, err := c.store().Networks()
	if err != nil {
		c.t.Logf("list networks: %v", err)
	}
	for _, network := range networks {
		if c.t.Failed() {
			c.showLogs(network.Directory)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := c.store().DeleteNetwork(ctx, network.Name); err != nil {
			c.t.Errorf("clean up: %v", err)
		}
		cancel()
	}
}

func (c *localCloud) showLogs(dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "logs", "*"))
	for _, path := range append(logs, filepath.Join(dir, "cloud.log")) {
		if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
			c.t.Logf("%s:\n%s", filepath.Base(path), data[max(0, len(data)-3000):])
		}
	}
}

func (c *localCloud) store() *localcloud.Store {
	c.t.Helper()
	store, err := localcloud.Open(c.dir, localcloud.Runtime{})
	if err != nil {
		c.t.Fatal(err)
	}
	return store
}

func (c *localCloud) layers() Option {
	return WithLayers(func(string) ([]byte, error) { return c.zip, nil })
}

func (c *localCloud) workspace(options ...Option) *workspace {
	c.t.Helper()
	return newWorkspace(c.t, append([]Option{c.layers()}, options...)...)
}

// block is the provider block that uses this state directory.
func (c *localCloud) block() string {
	return fmt.Sprintf("provider \"boxer\" {\n  local = { state_dir = %q }\n}\n", c.dir)
}

func (c *localCloud) client(network string) *localcloud.Client {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := c.store().Connect(ctx, network)
	if err != nil {
		c.t.Fatal(err)
	}
	client.Locate = true
	c.t.Cleanup(client.Close)
	return client
}

// hosts lists the slots of all hosts that are there, dead ones too.
func (c *localCloud) hosts(network string) []string {
	c.t.Helper()
	hosts, err := c.client(network).Hosts(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	var slots []string
	for _, host := range hosts {
		slots = append(slots, host.Slot)
	}
	return slots
}

// onlySeed fails the test if anything but the network itself exists.
func (c *localCloud) onlySeed(network string) {
	c.t.Helper()
	if hosts := c.hosts(network); !slices.Equal(hosts, []string{"seed-0"}) {
		c.t.Errorf("hosts: %q, want only the seed", hosts)
	}
	functions, err := c.client(network).Functions(context.Background())
	if err != nil || len(functions) > 0 {
		c.t.Errorf("functions: %v (%v), want none", functions, err)
	}
}

// killHost kills init of a VM host.
func (c *localCloud) killHost(network, slot string) {
	c.t.Helper()
	host := c.host(network, slot)
	if err := syscall.Kill(host.MachinePID, syscall.SIGKILL); err != nil {
		c.t.Fatalf("kill %s: %v", slot, err)
	}
	c.eventually(slot+" is dead", func() bool {
		return c.host(network, slot).State == localcloud.HostExited
	})
}

// keepDead kills a host again whenever its daemon has started it, until the
// returned function is called.
func (c *localCloud) keepDead(network, slot string) (stop func()) {
	c.t.Helper()
	client := c.client(network)
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			if host, err := client.Host(ctx, slot); err == nil && host.State == localcloud.HostRunning && host.MachinePID > 1 {
				_ = syscall.Kill(host.MachinePID, syscall.SIGKILL)
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	c.t.Cleanup(stop)
	return stop
}

// killDaemon kills the daemon of the network shop, and with it all that runs there.
func (c *localCloud) killDaemon() {
	c.t.Helper()
	info, err := c.store().Network("shop")
	if err == nil {
		err = syscall.Kill(info.PID, syscall.SIGKILL)
	}
	if err != nil {
		c.t.Fatalf("kill the daemon: %v", err)
	}
	c.eventually("the daemon is dead", func() bool {
		info, err := c.store().Network("shop")
		return err == nil && !info.Alive
	})
}

func (c *localCloud) host(network, slot string) localcloud.Host {
	c.t.Helper()
	host, err := c.client(network).Host(context.Background(), slot)
	if err != nil {
		c.t.Fatal(err)
	}
	return host
}

// supervisor is the pid of `boxer node` on a VM host.
func (c *localCloud) supervisor(network, slot string) (int, bool) {
	c.t.Helper()
	for _, pid := range descendants(c.host(network, slot).MachinePID) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		argv := strings.Split(string(cmdline), "\x00")
		if len(argv) > 1 && filepath.Base(argv[0]) == "boxer" && argv[1] == "node" {
			return pid, true
		}
	}
	return 0, false
}

// members of the network, as an observer sees them.
func (c *localCloud) members(network string) map[string]cluster.Member {
	c.t.Helper()
	info, err := c.store().Network(network)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	session, err := launch.Observe(ctx, info)
	if err != nil {
		c.t.Fatal(err)
	}
	defer session.Close()
	bySlot := map[string]cluster.Member{}
	for _, m := range session.Members() {
		bySlot[m.Slot] = m
	}
	return bySlot
}

func (c *localCloud) eventually(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// processes are the daemon of the network shop and everything below it, by pid and
// start time.
func (c *localCloud) processes() []string {
	c.t.Helper()
	info, err := c.store().Network("shop")
	if err != nil || !info.Alive {
		c.t.Fatalf("the network: alive %v, %v", info.Alive, err)
	}
	var all []string
	for _, pid := range append(descendants(info.PID), info.PID) {
		if _, start, ok := parentAndStart(pid); ok {
			all = append(all, fmt.Sprintf("%d/%s", pid, start))
		}
	}
	if len(all) < 4 {
		c.t.Fatalf("only %d processes: %v", len(all), all)
	}
	return all
}

// nothingLeft says what destroy left behind: processes that were noted before,
// files in the state directory, mounts.
func (c *localCloud) nothingLeft(noted []string) error {
	var left []string
	for _, process := range noted {
		pid, _ := strconv.Atoi(process[:strings.IndexByte(process, '/')])
		if _, start, ok := parentAndStart(pid); ok && process == fmt.Sprintf("%d/%s", pid, start) {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			left = append(left, fmt.Sprintf("process %d %q", pid, cmdline))
		}
	}
	err := filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && path != c.dir && entry.Name() != "machine-id" {
			left = append(left, path)
		}
		return err
	})
	mounts, mountErr := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), c.dir) {
		left = append(left, "a mount of "+c.dir)
	}
	if len(left) > 0 {
		err = errors.Join(err, errors.New("left behind: "+strings.Join(left, ", ")))
	}
	return errors.Join(err, mountErr)
}

// descendants of a process, on this machine.
func descendants(root int) []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if parent, _, ok := parentAndStart(pid); ok {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	var found []int
	for queue := children[root]; len(queue) > 0; queue = queue[1:] {
		found = append(found, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return found
}

// parentAndStart reads /proc/<pid>/stat; a zombie does not count.
func parentAndStart(pid int) (parent int, start string, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", false
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return 0, "", false
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[19], err == nil
}

// freePort finds a port of 127.0.0.1 that nobody uses.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
