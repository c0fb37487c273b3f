// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

func TestStateDirErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(file, Runtime{})
	if want := fmt.Sprintf("state directory %s: mkdir %[1]s: not a directory: remove the file in its place or set BOXER_STATE_DIR", file); err == nil || err.Error() != want {
		t.Errorf("a file: %v, want %s", err, want)
	}
	if os.Geteuid() == 0 {
		foreign := filepath.Join(dir, "foreign")
		if err := errors.Join(os.Mkdir(foreign, 0o700), os.Chown(foreign, 1234, 1234)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(foreign, Runtime{}); err == nil || !strings.Contains(err.Error(), "belongs to uid 1234, not to you") {
			t.Errorf("somebody else's: %v", err)
		}
		return
	}
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{closed, closed + "/below"} {
		if _, err := Open(d, Runtime{}); err == nil || !strings.Contains(err.Error(), "permission denied: make it writable or set BOXER_STATE_DIR") {
			t.Errorf("unwritable: %v", err)
		}
	}
	if _, err := Open("/proc/self/x", Runtime{}); err == nil {
		t.Error("in /proc")
	}
}

// inNewMounts runs the named test again in mount and user namespaces of its
// own, and reports whether this is that run.
func inNewMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv("BOXER_TEST_INNER") == t.Name() {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.v", "-test.run=^"+t.Name()+"$")
	zip, err := testLayer()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "BOXER_TEST_INNER="+t.Name(), "BOXER_TEST_LAYER="+zip)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestFullStateDir fills the disk at different moments.
// TestDeleteOnFullDisk: a full disk does not keep anybody from making room.
func TestDeleteOnFullDisk(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) {
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	s, err := Open(dir, testRuntime(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.netDir("shop").join("logs"), 0o700); err != nil { // half-made
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if s, err = Open(dir, testRuntime(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteNetwork(testContext(t), "shop"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(string(s.netDir("shop"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestFullStateDir(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) {
		return
	}
	for _, size := range []string{"4k", "64k", "4m"} {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, testRuntime(t))
		if err == nil {
			_, err = s.CreateNetwork(testContext(t), NetworkSpec{Name: "shop"})
		}
		if err == nil || !strings.Contains(err.Error(), "state directory "+dir+": ") ||
			!strings.HasSuffix(err.Error(), ": no space left on device: free space or set BOXER_STATE_DIR") {
			t.Errorf("size %s: %v", size, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 0 {
			t.Errorf("size %s: left %v", size, entries)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}
}

func TestCIDR(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) { // with addresses of our own choice
		return
	}
	for _, command := range []string{
		"link set lo up", "link add x0 type veth peer name x1", "addr add 10.9.8.7/24 dev x0", "link set x0 up", "link set x1 up",
		"route add 172.30.0.0/16 dev x0", "route add default dev x0", "route add 128.0.0.0/1 dev x0",
	} {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", command, err, out)
		}
	}
	for cidr, want := range map[string]string{
		"":               "want an IPv4 network",
		"10.0.0.1/16":    "want an IPv4 network",
		"10.0.0.0/30":    "want an IPv4 network",
		"fd00::/16":      "want an IPv4 network",
		"10.9.0.0/16":    "cidr 10.9.0.0/16 overlaps 10.9.8.0/24 (",
		"172.30.4.0/24":  "cidr 172.30.4.0/24 overlaps 172.30.0.0/16 (a route of this machine): choose another private network, such as 100.80.0.0/16",
		"100.64.0.0/10":  "the local cloud's own network",
		"127.1.0.0/16":   "loopback",
		"100.80.0.0/16":  "",
		"192.168.0.0/16": "",
	} {
		err := checkCIDR(cidr)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", cidr, err, want)
		}
	}
	if _, err := testStore(t).CreateNetwork(testContext(t), NetworkSpec{Name: "shop", CIDR: "10.9.8.0/24"}); err == nil || !strings.Contains(err.Error(), `create network "shop": cidr 10.9.8.0/24 overlaps`) {
		t.Error(err)
	}
}

func TestBadNetworks(t *testing.T) {
	s := testStore(t)
	for want, spec := range map[string]NetworkSpec{
		`name "Shop"`:       {Name: "Shop"},
		"port 70000":        {Name: "shop", Port: 70000},
		"too few":           {Name: "shop", Secret: []byte("short")},
		`cidr "everything"`: {Name: "shop", CIDR: "everything"},
	} {
		if _, err := s.CreateNetwork(testContext(t), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %s, got %v", want, err)
		}
	}
	if _, err := s.Network("../../etc"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := s.DeleteNetwork(testContext(t), ".."); err == nil {
		t.Error("deleted ..")
	}
	if entries, _ := os.ReadDir(s.Dir()); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestOtherMachine(t *testing.T) {
	s := testStore(t)
	d := s.netDir("shop")
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(d.join("network.json"), NetworkInfo{Name: "shop", MachineID: "another"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect(testContext(t), "shop"); !errors.Is(err, ErrOtherMachine) {
		t.Error(err)
	}
	if id, err := s.MachineID(); err != nil || len(id) != 32 {
		t.Errorf("%q %v", id, err)
	}
}

func TestCopySource(t *testing.T) {
	for want, prepare := range map[string]func(dir string) error{
		"leads out of the directory, to /etc/passwd": func(d string) error { return os.Symlink("/etc/passwd", d+"/x") },
		"leads out of the directory, to ../../x":     func(d string) error { return os.Symlink("../../x", d+"/sub/x") },
		"is a named pipe":                            func(d string) error { return unix.Mkfifo(d+"/x", 0o600) },
		"is a socket": func(d string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d + "/x"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		},
		"does not exist: create it": os.RemoveAll,
		"not a directory": func(d string) error {
			return errors.Join(os.RemoveAll(d), os.WriteFile(d, nil, 0o600))
		},
	} {
		dir, err := os.MkdirTemp("", "s") // short: one becomes a socket's path
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := errors.Join(os.Mkdir(dir+"/sub", 0o755), prepare(dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := copySource(dir, filepath.Join(t.TempDir(), "to")); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "source_dir") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	steps := []error{
		os.Mkdir(from+"/d", 0o700), os.WriteFile(from+"/d/f", []byte("hello"), 0o640), os.Symlink("../d/f", from+"/d/l"), os.Chmod(from+"/d", 0o500),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	hash, err := copySource(from, to)
	if err != nil {
		t.Fatal(err)
	}
	again, err := copySource(from, to+"2")
	if err != nil || hash != again {
		t.Errorf("%s and %s, %v", hash, again, err)
	}
	info, err := os.Stat(to + "/d/l")
	if err != nil || info.Mode() != 0o640 || info.Size() != 5 {
		t.Errorf("%v %v", info, err)
	}
	if err := errors.Join(removeAll(to), removeAll(to+"2"), removeAll(from)); err != nil {
		t.Error(err)
	}
}

func TestFunctionSpec(t *testing.T) {
	for _, spec := range []FunctionSpec{{Name: "X"}, {Name: "x", MemoryMB: 64}, {Name: "x", TimeoutS: 901}, {Name: "x", TimeoutS: -1}} {
		if spec.complete() == nil {
			t.Errorf("%+v passes", spec)
		}
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for text, want := range map[string]string{"": "[]", "\n": "[]", "a": "[a]", "a\nb\nc\n": "[b c]", strings.Repeat("x", tailBytes) + "\nlast\n": "[last]"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if lines, err := tail(path, 2); err != nil || fmt.Sprint(lines) != want {
			t.Errorf("%.20q: %.50q %v", text, lines, err)
		}
	}
}

func TestIndexes(t *testing.T) {
	x := newIndexes(3)
	var got []int
	for range 3 {
		i, err := x.take()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, i)
	}
	if _, err := x.take(); err == nil || fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("%v %v", got, err)
	}
	x.release(2)
	if i, err := x.take(); err != nil || i != 2 {
		t.Errorf("%d %v", i, err)
	}
	if addressAt(hostBase, 300).String() != "100.64.2.44" || addressAt(natBase, natCount-1).String() != "100.64.254.255" {
		t.Error(addressAt(hostBase, 300), addressAt(natBase, natCount-1))
	}
}

func FuzzErrorReport(f *testing.F) {
	for _, s := range []string{"", "{}", `{"errorMessage":"a","errorType":"b"}`, `{"errorMessage":1}`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if text := errorReport(body); text == "" || len(text) > len(body)+1000 {
			t.Errorf("%q -> %q", body, text)
		}
	})
}

func FuzzRights(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 16))
	f.Add(unix.UnixCredentials(&unix.Ucred{}))
	f.Fuzz(func(t *testing.T, oob []byte) {
		if len(oob) >= 16 && oob[8] == unix.SOL_SOCKET && oob[12] == unix.SCM_RIGHTS {
			t.Skip("numbers that would be closed as descriptors")
		}
		if file, err := firstRight(oob); err == nil && file != nil {
			t.Errorf("a descriptor from %x", oob)
		}
	})
}

func TestMachinePIDs(t *testing.T) {
	if found := machinePIDs(0); len(found) != 0 {
		t.Errorf("%v", found)
	}
	self, err := identify(os.Getpid())
	if err != nil || !self.alive() {
		t.Errorf("%+v %v", self, err)
	}
	self.Start += "0"
	if self.alive() || (processID{}).alive() {
		t.Error("another process is alive")
	}
	if _, err := config.New(config.Node{}); err == nil {
		t.Error("an empty node passes")
	}
}
