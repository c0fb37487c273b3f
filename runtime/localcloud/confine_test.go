// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	_ "embed"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

//go:embed testdata/forbidden.py
var forbidden string

// strict is what forbidden.py finds in a function's sandbox.
var strict = map[string]string{
	"ptrace": "EPERM", "process_vm_readv": "EPERM", "process_vm_writev": "EPERM", "chroot": "EPERM", "unshare": "EPERM", "setns": "EPERM",
	"clone": "EPERM", "clone-plain": "ok", "clone3": "ENOSYS", "seccomp": "EPERM", "prctl-seccomp": "EPERM", "prctl-no-new-privs": "EPERM",
	"prctl-pdeathsig": "EPERM", "prctl-name": "ok", "bpf": "EPERM", "perf": "EPERM", "userfaultfd": "EPERM", "keyctl": "EPERM", "mount": "EPERM",
	"umount": "EPERM", "pivot_root": "EPERM", "kexec": "EPERM", "seteuid": "EPERM", "setgid": "EPERM", "raw": "EPERM", "packet": "EPERM",
	"low-port": "EACCES", "files": "EMFILE", "tasks": "EAGAIN", "shm": "ENOENT", "sem": "ENOENT", "home": "/tmp", "hosts": "refused",
	"resolv": "refused", "root": "refused", "CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
	"CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "ids": "(993, 993, 993, 990, 990, 990)", "maps": "993 1",
}

// lifted is what of it `--relaxed` lifts; the rest a user without capabilities
// may not do anyway, or is how the root is made.
var lifted = map[string]string{
	"ptrace": "ok", "process_vm_readv": "ok", "process_vm_writev": "ok", "unshare": "ok", "clone": "ok", "clone3": "ok", "seccomp": "ok",
	"prctl-seccomp": "ok", "prctl-no-new-privs": "ok", "prctl-pdeathsig": "ok", "keyctl": "ok", "seteuid": "ok", "setgid": "ok",
	"low-port": "ok", "files": "ok", "tasks": "ok", "shm": "ok", "sem": "ok",
}

func TestSandboxForbids(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "rules")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "forbidden.py"), []byte(forbidden), 0o644); err != nil {
		t.Fatal(err)
	}
	wants := map[string]map[string]string{"strict": maps.Clone(strict), "relaxed": lifted}
	if runtime.GOARCH == "amd64" {
		wants["strict"]["x32"] = "ENOSYS"
	}
	for name, want := range wants {
		testFunction(t, c, FunctionSpec{Name: name, SourceDir: dir, Relaxed: name == "relaxed"})
		id := invoke(t, c, name, name+"-0", "python3", "/var/task/forbidden.py")
		expect(t, output(t, c, name+"-0", "the-end"), want)
		if i := ended(t, c, name, id); i.State != InvocationSucceeded {
			t.Errorf("%s: %+v", name, i)
		}
	}
}

// TestSandboxFilter runs the filter itself, for both architectures.
func TestSandboxFilter(t *testing.T) {
	for name, arch := range auditArch {
		vm, err := bpf.NewVM(sandboxFilter(arch))
		if err != nil {
			t.Fatal(err)
		}
		for _, try := range []struct {
			number, arch, arg, want uint32
		}{
			{unix.SYS_READ, arch, 0, answerAllow},
			{unix.SYS_CHROOT, arch, 0, answerEPERM},
			{unix.SYS_VHANGUP, arch, 0, answerEPERM},
			{unix.SYS_CLONE3, arch, 0, answerENOSYS},
			{unix.SYS_CLONE, arch, unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD | uint32(unix.SIGCHLD), answerAllow},
			{unix.SYS_CLONE, arch, unix.CLONE_NEWNET, answerEPERM},
			{unix.SYS_PRCTL, arch, unix.PR_SET_PDEATHSIG, answerEPERM},
			{unix.SYS_PRCTL, arch, unix.PR_SET_SECCOMP, answerEPERM},
			{unix.SYS_PRCTL, arch, unix.PR_SET_NAME, answerAllow},
			{unix.SYS_READ, unix.AUDIT_ARCH_I386, 0, answerENOSYS},
			{unix.SYS_READ, unix.AUDIT_ARCH_ARM, 0, answerENOSYS},
			{unix.SYS_READ | x32Numbers, arch, 0, answerENOSYS},
		} {
			data := make([]byte, 64) // the machine here reads in network order
			binary.BigEndian.PutUint32(data[seccompNumber:], try.number)
			binary.BigEndian.PutUint32(data[seccompArch:], try.arch)
			binary.BigEndian.PutUint32(data[seccompArg0:], try.arg)
			if got, err := vm.Run(data); err != nil || uint32(got) != try.want {
				t.Errorf("%s: %+v: %#x, %v", name, try, got, err)
			}
		}
	}
}

// sizes prints how much /tmp takes, and what happens beyond.
const sizes = `
import errno
block, written = b"x" * (1 << 20), 0
try:
    with open("/tmp/fill", "wb", buffering=0) as f:
        while written < 1024: written += f.write(block) >> 20
except OSError as e: print("full=" + errno.errorcode[e.errno])
print("written=%d" % written, flush=True)
`

func TestSandboxStorage(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "storage")
	for mb, want := range map[int]map[string]string{512: {"full": "ENOSPC", "written": "511"}, 600: {"full": "ENOSPC", "written": "599"}} {
		name := "f" + strconv.Itoa(mb)
		testFunction(t, c, FunctionSpec{Name: name, EphemeralMB: mb})
		id := invoke(t, c, name, name+"-0", "python3", "-c", sizes)
		ended(t, c, name, id)
		text := output(t, c, name+"-0", "written=")
		if strings.Contains(text, "written="+strconv.Itoa(mb)) { // a block may just fit
			want["written"] = strconv.Itoa(mb)
		}
		expect(t, text, want)
	}
}

func TestSandboxEnvironment(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "environment")
	fits := map[string]string{"A": strings.Repeat("x", 4000), "B": strings.Repeat("y", 94)}
	testFunction(t, c, FunctionSpec{Name: "fits", Environment: fits})
	ended(t, c, "fits", invoke(t, c, "fits", "fits-0", "sh", "-c", "echo lengths=${#A},${#B}"))
	expect(t, output(t, c, "fits-0", "lengths"), map[string]string{"lengths": "4000,94"})
	fits["B"] += "y"
	_, err := c.CreateFunction(testContext(t), FunctionSpec{Name: "over", Environment: fits})
	if err == nil || !strings.Contains(err.Error(), "its environment has 4097 bytes, the limit is 4096 in total") {
		t.Errorf("too large: %v", err)
	}
}

// hog takes 300 MB of memory and says in which control groups it is.
const hog = `
print("groups=" + " ".join(open("/proc/self/cgroup").read().split()), flush=True)
b = bytearray(300 << 20)
b[::4096] = b"x" * (len(b) >> 12)
print("kept=yes", flush=True)
`

// TestSandboxMemory needs control groups; where there are none, the node's log
// says so.
func TestSandboxMemory(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "memory")
	try, missing := c.dir.newCgroup("try", 128)
	try.remove()
	for _, f := range []FunctionSpec{{Name: "small", MemoryMB: 128}, {Name: "large", MemoryMB: 1024}, {Name: "relaxed", MemoryMB: 128, Relaxed: true}} {
		testFunction(t, c, f)
		id := invoke(t, c, f.Name, f.Name+"-0", "python3", "-c", hog)
		i := ended(t, c, f.Name, id)
		text := output(t, c, f.Name+"-0", "groups=")
		log, _ := os.ReadFile(c.NodeLogPath(f.Name + "-0"))
		limited := !f.Relaxed && missing == nil
		if said := strings.Contains(string(log), "not held to its memory_size"); said != (!f.Relaxed && missing != nil) {
			t.Errorf("%s: the node's log: %s (%v)", f.Name, log, missing)
		}
		if got := strings.Contains(text, c.dir.cgroupPrefix()+id); got != limited {
			t.Errorf("%s: in its control groups: %v: %s", f.Name, got, text)
		}
		if f.Name == "small" && limited {
			if want := "out of memory: memory_size = 128 MB: "; i.State != InvocationFailed || !strings.HasPrefix(i.Error, want) {
				t.Errorf("%s: %+v", f.Name, i)
			}
			continue
		}
		if i.State != InvocationSucceeded || !strings.Contains(text, "kept=yes") {
			t.Errorf("%s: %+v: %s", f.Name, i, text)
		}
	}
	if missing != nil {
		t.Skipf("memory and CPU cannot be limited here: %v", missing)
	}
}

// TestSandboxGroups: the control groups have the size of the function, and end
// with it, or with the network when its daemon is killed.
func TestSandboxGroups(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "groups")
	try, missing := c.dir.newCgroup("try", 128)
	try.remove()
	if missing != nil {
		t.Skipf("memory and CPU cannot be limited here: %v", missing)
	}
	testFunction(t, c, FunctionSpec{Name: "f", MemoryMB: 128})
	groups := func() []string {
		var dirs []string
		for _, base := range c.dir.cgroupBases() {
			found, _ := filepath.Glob(filepath.Join(base, c.dir.cgroupPrefix()+"*"))
			dirs = append(dirs, found...)
		}
		return dirs
	}
	first := invoke(t, c, "f", "f-0", "sh", "-c", "echo up; exec sleep 1000")
	output(t, c, "f-0", "up")
	values := map[string]string{}
	for _, dir := range groups() {
		for _, file := range []string{"memory.max", "cpu.max", "memory.limit_in_bytes", "cpu.cfs_period_us", "cpu.cfs_quota_us"} {
			if data, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				values[strings.TrimPrefix(file, "cpu.cfs_")] = strings.TrimSpace(string(data))
			}
		}
	}
	memory, cpu := values["memory.max"]+values["memory.limit_in_bytes"], values["cpu.max"]
	if cpu == "" {
		cpu = values["quota_us"] + " " + values["period_us"]
	}
	if memory != "134217728" || cpu != "1447 20000" {
		t.Errorf("of 128 MB: memory %q, CPU %q", memory, cpu)
	}
	if err := c.StopInvocation(testContext(t), "f", "f-0"); err != nil {
		t.Fatal(err)
	}
	ended(t, c, "f", first)
	if left := groups(); len(left) != 0 {
		t.Errorf("left by an invocation: %v", left)
	}
	invoke(t, c, "f", "f-1", "sh", "-c", "echo up; exec sleep 1000")
	output(t, c, "f-1", "up")
	p, err := c.dir.daemon()
	if err != nil {
		t.Fatal(err)
	}
	p.Outer.kill(unix.SIGKILL)
	for p.Inner.alive() {
		time.Sleep(5 * time.Millisecond)
	}
	if len(groups()) == 0 {
		t.Error("nothing to clean up")
	}
	if err := c.dir.stopDaemon(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if left := groups(); len(left) != 0 {
		t.Errorf("left by a killed daemon: %v", left)
	}
}
