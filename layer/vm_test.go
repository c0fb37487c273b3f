// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
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

func itoa(n int) string { return strconv.Itoa(n) }

// fakeSupervisor writes down that it ran, and lives until a signal.
const fakeSupervisor = `#!/bin/sh
# arguments: node --config FILE; state next to the prefix
dir=$(dirname "$(dirname "$(dirname "$0")")")
trap 'echo drained >>"$dir/log"; exit 0' TERM
echo "start $* $$" >>"$dir/log"
cp "$3" "$dir/seen.json"
[ ! -e "$dir/exit" ] || exit "$(cat "$dir/exit")"
while :; do sleep 0.02; done
`

// vmRun is a run of the bootstrap script in a prefix of its own.
type vmRun struct {
	t      *testing.T
	dir    string
	vm     VM
	cmd    *exec.Cmd
	stderr said
	done   chan struct{}
}

// said collects what a program writes while the test reads it.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *said) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Reset()
}

func newVMRun(t *testing.T) *vmRun {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "it's a vm") // quotes and blanks must not matter
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path, hash := write(t, build(t, testFiles(t, fakeSupervisor, "library")))
	return &vmRun{t: t, dir: dir, vm: VM{
		Layer: Fetch{URL: "file://" + path, SHA256: hash}, Prefix: dir + "/prefix", ConfigFile: dir + "/etc/node.json",
		Node: `{"argv":["sh","-c","echo 'it''s' \"$HOME\" $(id) \\ ` + "`id`" + `"]}`,
	}}
}

func (r *vmRun) start() {
	r.t.Helper()
	script, err := VMScript(r.vm)
	if err != nil {
		r.t.Fatal(err)
	}
	file := filepath.Join(r.dir, "user-data")
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.stderr.Reset()
	r.cmd = exec.Command("/bin/sh", file)
	r.cmd.Stderr = &r.stderr
	r.done = make(chan struct{})
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = r.cmd.Wait(); close(r.done) }()
	r.t.Cleanup(func() { _ = r.cmd.Process.Signal(syscall.SIGTERM); r.wait() })
}

func (r *vmRun) wait() int {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		_ = r.cmd.Process.Kill()
		r.t.Fatal("the script does not end")
	}
	return r.cmd.ProcessState.ExitCode()
}

// log waits until the supervisor's log has n lines.
func (r *vmRun) log(n int) []string {
	r.t.Helper()
	for range 1000 {
		data, _ := os.ReadFile(r.dir + "/log")
		if lines := strings.Split(strings.TrimSpace(string(data)), "\n"); len(lines) >= n && lines[0] != "" {
			return lines
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("the supervisor was not started %d times; %s", n, r.stderr.String())
	return nil
}

func TestVMScript(t *testing.T) {
	r := newVMRun(t)
	if err := os.Mkdir(r.vm.Prefix, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.vm.Prefix+"/wanted", nil, 0o644); err != nil { // as an upgrade on a full disk left it
		t.Fatal(err)
	}
	r.start()
	first := r.log(1)[0]
	if !strings.HasPrefix(first, "start node --config "+r.vm.ConfigFile+" ") {
		t.Errorf("%q", first)
	}
	for range 300 { // the fake copies it just after its line
		if seen, _ := os.ReadFile(r.dir + "/seen.json"); string(seen) == r.vm.Node+"\n" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if seen, _ := os.ReadFile(r.dir + "/seen.json"); string(seen) != r.vm.Node+"\n" {
		t.Errorf("node.json: %q, want %q", seen, r.vm.Node)
	}
	if info, err := os.Stat(r.vm.ConfigFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if left, _ := filepath.Glob(r.vm.Prefix + "/.new*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	pid, err := strconv.Atoi(first[strings.LastIndexByte(first, ' ')+1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.log(2) // started again
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := r.wait(); status != 0 {
		t.Errorf("status %d after TERM", status)
	}
	if lines := r.log(3); lines[2] != "drained" || len(lines) != 3 {
		t.Errorf("TERM was not passed on: %q", lines)
	}
	if !strings.Contains(r.stderr.String(), "the supervisor ended with status 137; starting it again") {
		t.Errorf("stderr %q", r.stderr.String())
	}
}

func TestVMScriptEndsWithTheSupervisor(t *testing.T) {
	r := newVMRun(t)
	if err := os.WriteFile(r.dir+"/exit", []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	if status := r.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	// Again, as after a reboot: what is installed is not fetched again.
	if err := os.Remove(strings.TrimPrefix(r.vm.Layer.URL, "file://")); err != nil {
		t.Fatal(err)
	}
	r.start()
	if status := r.wait(); status != 0 || len(r.log(2)) != 2 {
		t.Errorf("second run: status %d: %s", status, r.stderr.String())
	}
}

// TestVMScriptStopsBetweenStarts: TERM while it waits to start the supervisor
// again ends it at once.
func TestVMScriptStopsBetweenStarts(t *testing.T) {
	r := newVMRun(t)
	if err := os.WriteFile(r.dir+"/exit", []byte("3"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(r.stderr.String(), "starting it again"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not wait to start the supervisor again: %s", r.stderr.String())
		}
	}
	start := time.Now()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if status := r.wait(); status != 0 || time.Since(start) > 900*time.Millisecond {
		t.Errorf("status %d after %s", status, time.Since(start))
	}
}

// TestVMScriptStopsWhatItHasJustStarted: TERM comes just before the supervisor is
// started, which for a moment is a copy of the shell.
func TestVMScriptStopsWhatItHasJustStarted(t *testing.T) {
	r := newVMRun(t)
	bin := t.TempDir() // with a date that the script asks for then
	if err := os.WriteFile(bin+"/date", []byte("#!/bin/sh\n[ -e $0.asked ] || kill -TERM $PPID\n: >$0.asked\nexec /bin/date \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	r.start()
	if status := r.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if lines := r.log(2); lines[1] != "drained" || len(lines) != 2 {
		t.Errorf("TERM was not passed on: %q", lines)
	}
}

func TestVMScriptFailures(t *testing.T) {
	r := newVMRun(t)
	good := r.vm
	r.vm.Layer.SHA256 = strings.Repeat("0", 64)
	r.start()
	if status := r.wait(); status != 1 {
		t.Errorf("status %d", status)
	}
	want := "boxer bootstrap: layer checksum mismatch: " + good.Layer.URL + ": expected SHA-256 " + r.vm.Layer.SHA256 + ", found " + good.Layer.SHA256 + ": build or publish the layer again\n"
	if r.stderr.String() != want {
		t.Errorf("got  %q\nwant %q", r.stderr.String(), want)
	}
	if left, _ := filepath.Glob(r.vm.Prefix + "/.new*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	r.vm = good
	r.vm.Layer.URL = "file:///does/not/exist"
	r.start()
	if status := r.wait(); status != 1 || !strings.Contains(r.stderr.String(), "cannot fetch the layer from file:///does/not/exist") {
		t.Errorf("status %d: %s", status, r.stderr.String())
	}
	if _, err := os.Stat(r.dir + "/log"); !errors.Is(err, os.ErrNotExist) {
		t.Error("a supervisor ran")
	}
}

// TestVMScriptFullDisk: whatever cannot be written, the reason is said.
func TestVMScriptFullDisk(t *testing.T) {
	for program, step := range map[string]struct{ does, url, says string }{
		"curl":  {"exit 23", "https://127.0.0.1:1/layer.zip", "cannot fetch the layer from https://127.0.0.1:1/layer.zip: cannot write "},
		"unzip": {"echo 'bin/boxer: write error (disk full?)' >&2; exit 50", "", ": bin/boxer: write error (disk full?)"},
	} {
		r := newVMRun(t)
		if step.url != "" {
			r.vm.Layer.URL = step.url
		}
		fake, calls := filepath.Join(r.dir, "bin"), filepath.Join(r.dir, "calls")
		if err := os.Mkdir(fake, 0o755); err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("#!/bin/sh\necho >>%s\n%s\n", quote(calls), step.does)
		if err := os.WriteFile(filepath.Join(fake, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", fake+":"+os.Getenv("PATH"))
		r.start()
		if step.url != "" { // it goes on trying: the second time the reason was said
			for again := false; !again; time.Sleep(20 * time.Millisecond) {
				seen, _ := os.ReadFile(calls)
				again = len(seen) > 1
			}
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
		}
		r.wait()
		if said := r.stderr.String(); !strings.Contains(said, step.says) || !strings.Contains(said, "disk full?") {
			t.Errorf("%s: %s", program, said)
		}
	}
}

func TestVMScriptChecks(t *testing.T) {
	good := VM{Layer: Fetch{URL: "https://example.com/layer.zip?a=b&c='d'", SHA256: strings.Repeat("a", 64)}, Node: "{}"}
	script, err := VMScript(good)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(script, `layer='https://example.com/layer.zip?a=b&c='\''d'\'''`) || !strings.Contains(script, "prefix='/opt/boxer'") {
		t.Error(script)
	}
	for want, change := range map[string]func(*VM){
		"SHA-256":              func(v *VM) { v.Layer.SHA256 = "x" },
		"https:// or file:///": func(v *VM) { v.Layer.URL = "http://example.com" },
		"absolute path":        func(v *VM) { v.Prefix = "opt" },
		"without quotes":       func(v *VM) { v.ConfigFile = "/etc/$x" },
		"more than the 16384 that a VM takes as user data": func(v *VM) { v.Node = strings.Repeat("x", MaxUserData+1) },
		"NUL": func(v *VM) { v.Node = "\x00" },
	} {
		vm := good
		change(&vm)
		if _, err := VMScript(vm); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// TestScriptsParse asks every shell of this machine.
func TestScriptsParse(t *testing.T) {
	script, err := VMScript(newVMRun(t).vm)
	if err != nil {
		t.Fatal(err)
	}
	for _, shell := range [][]string{{"sh", "-n"}, {"dash", "-n"}, {"bash", "--posix", "-n"}, {"busybox", "sh", "-n"}, {"shellcheck", "-s", "sh", "-"}} {
		if _, err := exec.LookPath(shell[0]); err != nil {
			continue
		}
		for name, text := range map[string]string{"vm": script, "bootstrap": bootstrap} {
			cmd := exec.Command(shell[0], shell[1:]...)
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %v %s", name, shell, err, out)
			}
			for _, bashism := range []string{"[[", "local ", "<(", "&>", "$'", "==", "pipefail"} {
				if strings.Contains(text, bashism) {
					t.Errorf("%s: %q is no sh", name, bashism)
				}
			}
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "'", "''", "a b", "$(id)", "\n\\\"`", "-n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, 0) {
			t.Skip("no NUL in arguments")
		}
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+quote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q -> %q, %v", s, out, err)
		}
	})
}
