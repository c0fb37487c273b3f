// SPDX-License-Identifier: Apache-2.0

package guestcheck

import (
	"debug/elf"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == InsideVerb {
		Inside(os.Args[2:])
	}
	os.Exit(m.Run())
}

func compile(t *testing.T, compiler, name, source string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path+".c", []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(compiler, append([]string{path + ".c", "-o", path}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", compiler, err, out)
	}
	return path
}

// weightsOf are the findings of that name, as vm/function.
func weightsOf(r *Report, name string) string {
	for _, f := range r.Findings {
		if f.Name == name {
			return string(f.VM) + "/" + string(f.Function)
		}
	}
	return ""
}

func checked(t *testing.T, o Options) *Report {
	t.Helper()
	r, err := Check(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Reason == "" || f.Remedy == "" || !strings.HasSuffix(f.Reason, ".") || !strings.HasSuffix(f.Remedy, ".") && !strings.HasSuffix(f.Remedy, ".)") {
			t.Errorf("a finding is a sentence, and so is its remedy: %+v", f)
		}
	}
	return r
}

// TestPrograms: what programs are and call.
func TestPrograms(t *testing.T) {
	const nothing = "int main(void){return 0;}"
	lib := compile(t, "gcc", "libgone.so", "int gone(void){return 1;}", "-shared", "-fPIC", "-Wl,-soname,libgone.so")
	privileged := compile(t, "gcc", "privileged", nothing)
	if err := os.Chmod(privileged, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	goProgram, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		program, finding, want string
		vm, function           Weight
	}{
		"static":     {compile(t, "gcc", "p", nothing, "-static"), "static", "cannot/cannot", Cannot, Cannot},
		"static pie": {compile(t, "gcc", "p", nothing, "-static-pie"), "static", "cannot/cannot", Cannot, Cannot},
		"go":         {goProgram, "go", "cannot/cannot", Cannot, Cannot},
		"musl":       {compile(t, "musl-gcc", "p", nothing), "libc", "note/change", Note, Change},
		"library":    {compile(t, "gcc", "p", "int gone(void); int main(void){return gone();}", lib), "library", "cannot/cannot", Cannot, Cannot},
		"privileges": {privileged, "privileges", "change/change", Change, Change},
		"shm":        {compile(t, "gcc", "p", "#include <sys/mman.h>\n#include <fcntl.h>\nint main(void){return shm_open(\"/x\", O_CREAT, 0);}"), "shared memory", "/change", Note, Change},
		"forks":      {compile(t, "gcc", "p", "#include <unistd.h>\nint main(void){return fork();}"), "processes", "/note", Note, Change},
		"ptrace":     {compile(t, "gcc", "p", "#include <sys/ptrace.h>\nint main(void){return ptrace(PTRACE_TRACEME);}"), "denied calls", "/note", Note, Change},
		"ring":       {compile(t, "gcc", "p", "#include <unistd.h>\n#include <sys/syscall.h>\nint main(void){char p[120] = {0}; return syscall(425, 8, p);}"), "io_uring", "note/note", Note, Change},
		"log":        {compile(t, "gcc", "p", "#include <stdio.h>\nint main(void){puts(\"x\"); return fopen(\"/var/log/app/x.log\", \"w\") != 0;}"), "files", "/note", Note, Change},
		"plain":      {compile(t, "gcc", "p", nothing), "static", "", Note, Change},
	} {
		r := checked(t, Options{Program: c.program})
		if got := weightsOf(r, c.finding); got != c.want || r.VM != c.vm || r.Function != c.function {
			t.Errorf("%s: %s weighs %q, want %q; in all %s and %s, want %s and %s: %+v", name, c.finding, got, c.want, r.VM, r.Function, c.vm, c.function, r.Findings)
		}
	}
}

func TestScripts(t *testing.T) {
	script := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(script, []byte("#!/usr/bin/env -S python3 -I\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if name, err := Interpreter(script); name != "python3" || err != nil {
		t.Errorf("interpreter %q, %v", name, err)
	}
	r := checked(t, Options{Program: script, Interpreter: "/usr/bin/python3", Args: []string{"-p", "80"}})
	if r.Libc != "glibc" || weightsOf(r, "denied calls") != "" || weightsOf(r, "port") != "/change" || !slices.Equal(r.Command, []string{script, "-p", "80"}) {
		t.Errorf("%+v", r)
	}
}

func TestArguments(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, []byte("x;\ndaemon off;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"redis --port 80":            "port 80",
		"redis --port=9001":          "port 9001",
		"redis --port 6379":          "",
		"web -p 3000":                "port 3000",
		"web 0.0.0.0:443":            "port 443",
		"web --listen [::]:25":       "port 25",
		"web --bind 127.0.0.1:8080":  "",
		"web --threads 80 8-30":      "",
		"web :22 :22":                "port 22",
		"nginx":                      "background",
		"nginx -g daemon_off;":       "background",
		"nginx -c " + conf:           "",
		"php-fpm8.2":                 "background",
		"php-fpm8.2 -F":              "",
		"redis --daemonize yes":      "background",
		"redis --daemonize no":       "",
		"redis --dir /var/lib/redis": "paths",
		"redis --dir=/srv /tmp/x":    "paths",
		"redis --dir /tmp/x /dev/fd": "",
	} {
		words := strings.Fields(line)
		r := &Report{}
		r.arguments(words[0], words[1:])
		got := ""
		for _, f := range r.Findings {
			got += f.Name
			if f.Name == "port" {
				_, rest, _ := strings.Cut(f.Reason, "name port ")
				got += " " + rest[:strings.IndexAny(rest, ":,")]
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	r := &Report{Command: []string{"nginx"}}
	r.arguments("nginx", nil)
	if want := []string{"nginx", "-g", "daemon off;"}; !slices.Equal(r.Command, want) {
		t.Errorf("command %q, want %q", r.Command, want)
	}
}

func TestSetsUpRing(t *testing.T) {
	arm := []byte{0x28, 0x35, 0x80, 0xd2, 0x1f, 0x20, 0x03, 0xd5, 0x01, 0, 0, 0xd4}
	for name, c := range map[string]struct {
		text    []byte
		machine elf.Machine
		libc    bool
		want    bool
	}{
		"amd64":             {[]byte{0x90, 0xb8, 0xa9, 1, 0, 0, 0x90, 0x0f, 0x05}, elf.EM_X86_64, false, true},
		"amd64, other":      {[]byte{0x90, 0xb8, 0xa0, 1, 0, 0, 0x90, 0x0f, 0x05}, elf.EM_X86_64, false, false},
		"amd64, a constant": {[]byte{0x90, 0xb8, 0xa9, 1, 0, 0, 0x90, 0xc3}, elf.EM_X86_64, false, false},
		"arm64":             {arm, elf.EM_AARCH64, false, true},
		"arm64, cut":        {arm[:9], elf.EM_AARCH64, false, false},
		"other":             {arm, elf.EM_RISCV, true, false},
	} {
		if got := setsUpRing(c.text, c.machine, c.libc); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// run runs a program, where this system lets it.
func run(t *testing.T, limit time.Duration, argv ...string) *Measured {
	t.Helper()
	m, err := Run(t.Context(), argv, limit)
	if err != nil && strings.Contains(err.Error(), "check without --run") && os.Getuid() != 0 {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRun: what programs do is seen, they are held to what functions may, and
// nothing of them is left.
func TestRun(t *testing.T) {
	t.Parallel()
	code := `import os, socket, threading, time
s = socket.create_server(("127.0.0.1", 9001))
big = b"x" * (40 << 20)
for i in range(3): threading.Thread(target=time.sleep, args=(77,), daemon=True).start()
assert os.getuid() == 993, os.getuid()
for path in ("/usr/x", "/var/tmp/x", "/dev/shm/x"):
    try: open(path, "w")
    except OSError: continue
    raise SystemExit(path)
open("/tmp/check-run-%d" % os.getpid(), "w").close(); os.unlink("/tmp/check-run-%d" % os.getpid())
time.sleep(77.125)`
	var m *Measured
	for limit := time.Second; limit < 20*time.Second; limit *= 4 { // longer on a machine that is busy
		if m = run(t, limit, "/usr/bin/python3", "-c", code); m.Tasks == 4 {
			break
		}
	}
	if m.Exit != nil || m.Background || !slices.Equal(m.Ports, []int{9001}) || m.Tasks != 4 || m.MemoryMB < 40 || m.MemoryMB > 80 {
		t.Errorf("%+v: want it to stay, with a port, 4 tasks and some 50 MB", *m)
	}
	r := &Report{}
	r.measured(*m)
	if got := weightsOf(r, "port"); got != "/change" {
		t.Errorf("port 9001 weighs %q", got)
	}
	if out, _ := exec.Command("pgrep", "-f", "sleep.77.125").Output(); len(out) > 0 {
		t.Errorf("left behind: %s", out)
	}
	if c, err := net.Dial("tcp", "127.0.0.1:9001"); err == nil {
		c.Close()
		t.Error("it listened on this machine")
	}
}

func TestRunEnds(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"echo one; echo two >&2; exit 7":  "exit 7, two",
		"kill -9 $$":                      "exit 137, ",
		"sleep 66 & exit 0":               "background, ",
		"exit 0":                          "exit 0, ",
		"printf 'a\\033[31m\\377'; false": "exit 1, a[31m?",
	} {
		m := run(t, 3*time.Second, "/bin/sh", "-c", script)
		got := "none, "
		switch {
		case m.Background:
			got = "background, "
		case m.Exit != nil:
			got = fmt.Sprintf("exit %d, ", *m.Exit)
		}
		if got += m.LastWords; got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	m := run(t, time.Second, "/bin/sh", "-c", "exit 3")
	r := &Report{}
	r.measured(*m)
	if got := weightsOf(r, "run"); got != "note/change" {
		t.Errorf("status 3 weighs %q", got)
	}
	if _, err := Run(t.Context(), []string{"/nowhere"}, time.Second); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no program: %v", err)
	}
}

// FuzzCode: whatever the file, an answer.
func FuzzCode(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"), uint16(elf.EM_X86_64))
	f.Add([]byte{0xb8, 0xa9, 1, 0, 0, 0x0f, 0x05}, uint16(elf.EM_AARCH64))
	f.Fuzz(func(_ *testing.T, data []byte, machine uint16) {
		for _, part := range append(code(data), data) {
			setsUpRing(part, elf.Machine(machine), true)
		}
		listening(data)
		field(data, "Threads")
	})
}
