// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// TestNoNamespaces runs where user namespaces are used up, as a root that may use
// no other user.
func TestNoNamespaces(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	openLoopback(t)
	s := testStore(t)
	const remedy = "sudo sysctl -w user.max_user_namespaces="
	for _, spec := range []NetworkSpec{{Isolation: IsolationNamespaces}, {Isolation: "none"}, {Isolation: IsolationProcesses, Port: 80}} {
		spec.Name = "shop"
		want := map[string]string{IsolationNamespaces: remedy, "none": `isolation "none": want auto, namespaces or processes`, IsolationProcesses: "port 80: "}[spec.Isolation]
		if _, err := s.CreateNetwork(testContext(t), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", spec, err)
		}
		if entries, _ := os.ReadDir(s.Dir()); len(entries) != 0 {
			t.Errorf("left: %v", entries)
		}
	}
	blank, err := Open(filepath.Join(t.TempDir(), "a b"), testRuntime(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blank.CreateNetwork(testContext(t), NetworkSpec{Name: "shop"}); err == nil || !strings.Contains(err.Error(), "without blanks") || !strings.Contains(err.Error(), StateDirEnv) {
		t.Errorf("a path that LD_PRELOAD cannot hold: %v", err)
	}
	c := testNetwork(t, s, "shop")
	info, err := s.Network("shop")
	if err != nil || info.Isolation != IsolationProcesses || strings.Contains(info.Notice, "\n") ||
		!strings.Contains(info.Notice, remedy) || !strings.Contains(info.Notice, "not behind NAT") {
		t.Errorf("%+v %v", info, err)
	}
	t.Run("processes", func(t *testing.T) { tryPlainProcesses(t, c) })
	t.Run("function", func(t *testing.T) { tryPlainFunction(t, c) })
	t.Run("update", func(t *testing.T) { tryPlainUpdate(t, c) })
	t.Run("daemon killed", func(t *testing.T) { tryPlainDaemonKilled(t, s, c) })
	if err := s.DeleteNetwork(testContext(t), "shop"); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(s.Dir()); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// sleeping counts the processes that sleep for so long.
func sleeping(seconds int) (count int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		if line, _ := os.ReadFile(path); string(line) == fmt.Sprintf("sleep\x00%d\x00", seconds) {
			count++
		}
	}
	return count
}

func nobodySleeps(t *testing.T, seconds int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if sleeping(seconds) == 0 {
			return
		}
	}
	t.Errorf("%d processes of a host that is gone", sleeping(seconds))
}

// daemonize is a guest with a child that leaves its session and its parent.
func daemonize(seconds int) []string {
	return []string{"sh", "-c", fmt.Sprintf("(setsid sleep %d &); echo started; exec sleep %d", seconds, seconds)}
}

func tryPlainProcesses(t *testing.T, c *Client) {
	for i, end := range []func(Host) error{
		func(h Host) error { return c.DeleteHost(testContext(t), h.Slot) },
		func(h Host) error { return unix.Kill(h.MachinePID, unix.SIGKILL) },
	} {
		mark := os.Getpid()*100 + i
		h := vm(t, c, "a", nil, daemonize(mark)...)
		if output(t, c, "a", "started"); h.PID != h.MachinePID || !strings.HasPrefix(h.UnderlayAddress, "127.") {
			t.Errorf("%+v", h)
		}
		if err := end(h); err != nil {
			t.Fatal(err)
		}
		nobodySleeps(t, mark)
	}
	var h Host
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if h, err = c.Host(testContext(t), "a"); err != nil || h.State == HostExited {
			break // it is told with the last of its processes
		}
	}
	if err != nil || h.State != HostExited || h.Error != "killed from outside" {
		t.Errorf("%+v %v", h, err)
	}
}

func tryPlainFunction(t *testing.T, c *Client) {
	mark := os.Getpid()*100 + 10
	testFunction(t, c, FunctionSpec{Name: "f"})
	id := invoke(t, c, "f", "f-0", "sh", "-c", "ulimit -n; echo api $AWS_LAMBDA_RUNTIME_API")
	if i := ended(t, c, "f", id); i.State != InvocationSucceeded {
		t.Errorf("%+v", i)
	}
	api, _ := c.Tail("f-0", 2)
	if len(api) != 2 || api[0] != "1024" || !strings.HasPrefix(api[1], "api 127.") || strings.Contains(api[1], "127.0.0.1") {
		t.Errorf("%q", api)
	}
	id = invoke(t, c, "f", "f-1", daemonize(mark)...)
	output(t, c, "f-1", "started")
	if err := c.StopInvocation(testContext(t), "f", "f-1"); err != nil {
		t.Error(err)
	}
	if n := sleeping(mark); n != 0 { // at once: the stop waits
		t.Errorf("%d processes are left", n)
	}
	if i := findInvocation(t, c, "f", id); i.Error == "" {
		t.Errorf("%+v", i)
	}
}

// tryPlainUpdate: files, source and command change, what the guest wrote stays, and
// nothing of it goes on.
func tryPlainUpdate(t *testing.T, c *Client) {
	mark := os.Getpid()*100 + 30
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "a"), []byte("one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const show = "cat $TMPDIR/../etc/app.conf; ls $TMPDIR/../var/task $TMPDIR; "
	n := config.Node{Network: "shop", Slot: "updated", LaunchToken: "token", Files: map[string]string{"/etc/app.conf": "first\n", "/etc/old": ""},
		Argv: []string{"sh", "-c", show + fmt.Sprintf("touch $TMPDIR/kept; (setsid sleep %d &); echo first-end; exec sleep %d", mark, mark)}}
	before, err := c.CreateHost(testContext(t), HostSpec{Config: n, SourceDir: source})
	if err != nil {
		t.Fatal(err)
	}
	output(t, c, "updated", "first-end")
	if err := os.Rename(filepath.Join(source, "a"), filepath.Join(source, "b")); err != nil {
		t.Fatal(err)
	}
	n.Files = map[string]string{"/etc/app.conf": "second\n"}
	n.Argv = []string{"sh", "-c", show + "ls $TMPDIR/../etc/old || echo no-old; echo second-end; exec sleep 1000"}
	after, err := c.UpdateHost(testContext(t), HostSpec{Config: n, SourceDir: source})
	if err != nil {
		t.Fatal(err)
	}
	if left := sleeping(mark); left != 0 {
		t.Errorf("%d processes of the first guest go on", left)
	}
	text := output(t, c, "updated", "second-end")
	root := c.dir.join("hosts", "updated", "root", "tmp")
	want := strings.ReplaceAll("first\n@:\n\n@/../var/task:\na\nfirst-end\nsecond\n@:\nkept\n\n@/../var/task:\nb\nno-old\nsecond-end", "@", root)
	text = strings.ReplaceAll(text, "ls: cannot access '"+root+"/../etc/old': No such file or directory\n", "")
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if after.PID != before.PID || after.UnderlayAddress != before.UnderlayAddress {
		t.Errorf("another host: %+v, was %+v", after, before)
	}
	if err := c.DeleteHost(testContext(t), "updated"); err != nil {
		t.Error(err)
	}
}

// tryPlainDaemonKilled kills the daemon's halves, and then all that could tell whose the
// rest is.
func tryPlainDaemonKilled(t *testing.T, s *Store, c *Client) {
	for i, halves := range []string{"outer", "inner", "outer inner", "outer inner inits"} {
		mark := os.Getpid()*100 + 20 + i
		slot := fmt.Sprintf("k%d", i)
		again, err := s.Connect(testContext(t), "shop")
		if err != nil {
			t.Fatal(err)
		}
		again.Locate = true
		vm(t, again, slot, nil, daemonize(mark)...)
		output(t, again, slot, "started")
		hosts, err := again.Hosts(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.dir.daemon()
		if err != nil {
			t.Fatal(err)
		}
		doomed := map[string][]int{"outer": {p.Outer.PID}, "inner": {p.Inner.PID}}
		for _, h := range hosts {
			doomed["inits"] = append(doomed["inits"], h.MachinePID)
		}
		var pids []int
		for _, which := range strings.Fields(halves) {
			pids = append(pids, doomed[which]...)
		}
		for _, signal := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} { // none sees another's end
			for _, pid := range pids {
				if pid <= 1 {
					t.Fatalf("no process to kill (%d) among %v", pid, pids)
				}
				if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
					t.Fatal(err)
				}
			}
		}
		awaitEnds(t, pids)
		if !strings.Contains(halves, "inits") {
			nobodySleeps(t, mark)
		} else if sleeping(mark) == 0 {
			t.Error("they ended by themselves, so this tells nothing")
		}
		next, err := s.Connect(testContext(t), "shop")
		if err != nil {
			t.Fatal(err)
		}
		if n := sleeping(mark); n != 0 {
			t.Errorf("%s: the next daemon began with %d processes of the last one", halves, n)
		}
		if list, err := next.Hosts(testContext(t)); err != nil || len(list) != 1 {
			t.Errorf("%s: %+v %v", halves, list, err)
		}
		next.Close()
		again.Close()
	}
}

// awaitEnds waits until killed processes have closed what they had open.
func awaitEnds(t *testing.T, pids []int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
			_, err := identify(pid) // which looks at all of its threads
			return err != nil
		})
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("killed, and still there: %v", left)
		}
	}
}

// TestProbe: what denies, and what does not answer, is told from what works. Not
// parallel: the limit is everybody's.
func TestProbe(t *testing.T) {
	s := testStore(t)
	defer func(before time.Duration) { probeTime = before }(probeTime)
	for script, want := range map[string]string{
		"exit 0":                           "<nil>",
		"echo mount /proc: denied; exit 1": "mount /proc: denied",
		"exit 3":                           "start a process in its own: exit status 3",
		"sleep 60":                         "making them takes longer than 200ms",
	} {
		probeTime = 200 * time.Millisecond
		if !strings.HasPrefix(script, "sleep") {
			probeTime = 20 * time.Second
		}
		rt := runtimeDir(t.TempDir())
		if err := os.WriteFile(rt.boxer(), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		denied, err := s.probe(testContext(t), rt)
		if err != nil || fmt.Sprint(denied) != want {
			t.Errorf("%s: %v, %v, want %s", script, denied, err, want)
		}
	}
	if entries, _ := os.ReadDir(s.Dir()); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// TestBlocks: networks get loopback addresses that no other has.
func TestBlocks(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) {
		return
	}
	openLoopback(t)
	taken := map[int]bool{}
	for {
		block, err := freeBlock("/some/network")
		if err != nil {
			if len(taken) != 56 || !strings.Contains(err.Error(), "delete some networks") {
				t.Errorf("after %d: %v", len(taken), err)
			}
			break
		}
		l, err := newLoopback(block, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer l.claim.Close()
		if taken[block] || block%2 != 0 || block < 128 || block > 238 {
			t.Errorf("block %d", block)
		}
		if _, err := newLoopback(block, 1); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "delete this network") {
			t.Errorf("a second network in block %d: %v", block, err)
		}
		taken[block] = true
		seed, _ := l.addSeed(0)
		first, err := l.addHost()
		if err != nil || seed.address != netip.AddrFrom4([4]byte{127, byte(block), 0, 1}) || first.address != seed.address.Next() {
			t.Errorf("%v %v %v", seed, first, err)
		}
	}
}

// TestPlainEvent: what a function's sandbox is told is the platform's word, the
// rest of an event goes through as it was.
func TestPlainEvent(t *testing.T) {
	d := &daemon{info: NetworkInfo{Isolation: IsolationProcesses, Loopback: 130, Port: 7717, SeedEndpoints: []string{"127.0.0.1:20000"}}}
	spec := initSpec{Staging: "/state/f", Address: "127.130.0.9", Files: map[string]string{"/etc/app.conf": "x"}}
	got, err := d.plainEvent([]byte(`{"version":1,"network":"shop","kind":"function","slot":"f-0","argv":["/opt/x"],"seed_endpoints":["100.64.1.1:7717"],"secret_ref":"file:/etc/boxer/secret","big":12345678901234567890}`), &spec)
	if err != nil || !strings.Contains(string(got), `"big":12345678901234567890`) {
		t.Fatalf("%s %v", got, err)
	}
	n, err := config.Parse(got)
	if err != nil || n.Root != "/state/f" || n.SecretRef != "file:/state/f/etc/boxer/secret" || !n.Shared || n.UnderlayAddress != "127.130.0.9" ||
		len(n.SeedEndpoints) != 1 || n.SeedEndpoints[0] != "127.130.0.1:7717" || strings.Join(n.Places, " ") != "/var/task /opt /etc/app.conf" || n.Argv[0] != "/opt/x" {
		t.Errorf("%+v %v", n, err)
	}
}

// openLoopback sets the loopback device of a fresh namespace up.
func openLoopback(t *testing.T) {
	t.Helper()
	ns, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	here, err := openSide(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer here.close()
	if err := here.loopbackUp(); err != nil {
		t.Fatal(err)
	}
}

// TestPlainRootKeepsInside: whoever changes a host does not follow links of its guest's.
func TestPlainRootKeepsInside(t *testing.T) {
	t.Parallel()
	outside, source := t.TempDir(), t.TempDir()
	if err := os.Chmod(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := &initSpec{
		Kind: config.KindVM, Slot: "store", Staging: t.TempDir(), Secret: "secret", Source: source, MapUID: os.Geteuid(), MapGID: os.Getegid(),
		Files: map[string]string{"/etc/app/app.conf": "x", "/var/task/below/y.conf": "y", "/var/task/current/z.conf": "z"},
	}
	if err := os.MkdirAll(source+"/releases/1", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(source+"/releases/1/main", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("releases/1", source+"/current"); err != nil { // the package's own
		t.Fatal(err)
	}
	r := &plainRoot{}
	if err := r.assemble(spec); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"/tmp", "/etc", "/run", "/var/lib", "/opt", "/var/task", source + "/below"} {
		if !strings.HasPrefix(place, source) {
			place = r.at(place)
		}
		if err := os.RemoveAll(place); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, place); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.assemble(spec); err != nil {
		t.Error(err)
	}
	entries, _ := os.ReadDir(outside)
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o755 || len(entries) != 0 {
		t.Errorf("outside of the host: %v %v, %v", info, entries, err)
	}
	for name, want := range spec.Files {
		if got, err := os.ReadFile(r.at(name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(source + "/current/main"); err != nil {
		t.Errorf("a link of the package's own is gone: %v", err)
	}
}
