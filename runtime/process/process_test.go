// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var testEnv = []string{"PATH=" + os.Getenv("PATH")}

func outcome(t *testing.T, p *Process) int {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the guest does not end")
	}
	if p.ExitCode() == nil {
		return -1
	}
	return *p.ExitCode()
}

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 143, "kill -KILL $$": 137} {
		p, err := Start(Spec{Argv: []string{"sh", "-c", script}, Env: testEnv})
		if err != nil {
			t.Fatal(err)
		}
		if got := outcome(t, p); got != want {
			t.Errorf("%q ended with %d, want %d", script, got, want)
		}
		if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("a signal after the end gives %v", err)
		}
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", "#!/bin/sh\n", 0o644)
	noInterpreter := write("lost", "#!/no/such/shell\n", 0o755)
	noise := write("noise", "just text", 0o755)
	for _, tt := range []struct {
		spec Spec
		code int
		want string
	}{
		{Spec{Argv: []string{"no-such-command"}, Env: testEnv}, 127, `command "no-such-command" not found in `},
		{Spec{Argv: []string{"/no/such/file"}}, 127, "there is no such file on this node"},
		{Spec{Argv: []string{"sh"}, Env: []string{"PATH=/nowhere"}}, 127, "not found in /nowhere"},
		{Spec{Argv: []string{plain}}, 126, "no permission to execute it"},
		{Spec{Argv: []string{"plain"}, Env: []string{"PATH=" + dir}}, 126, "no permission"},
		{Spec{Argv: []string{dir}}, 126, "it is a directory"},
		{Spec{Argv: []string{noInterpreter}}, 126, "the interpreter or loader it names is missing"},
		{Spec{Argv: []string{noise}}, 126, "not a program for this machine"},
		{Spec{Argv: []string{"sh"}, Env: testEnv, Dir: "/no/such/dir"}, 126, "working directory: stat /no/such/dir"},
		{Spec{}, 127, "no command to run"},
	} {
		_, err := Start(tt.spec)
		var start *StartError
		if !errors.As(err, &start) || start.Code != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v; want %d, %q", tt.spec.Argv, err, tt.code, tt.want)
		}
	}
}

func TestCommandIsFoundAsTheGuestWould(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tools"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tools", "mine"), []byte("#!/bin/sh\nexit 5\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range []Spec{
		{Argv: []string{"mine"}, Env: []string{"PATH=/nowhere:" + dir + "/tools"}},
		{Argv: []string{"mine"}, Env: []string{"PATH=tools"}, Dir: dir},
		{Argv: []string{"tools/mine"}, Dir: dir},
		{Argv: []string{"mine"}, Env: []string{"PATH="}, Dir: dir + "/tools"},
	} {
		p, err := Start(s)
		if err != nil {
			t.Errorf("%+v: %v", s, err)
			continue
		}
		if got := outcome(t, p); got != 5 {
			t.Errorf("%+v ended with %d", s, got)
		}
	}
}

func TestDetachedGuestWritesToTheFileItself(t *testing.T) {
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p, err := Start(Spec{
		Argv: []string{"sh", "-c", "readlink /proc/self/fd/1 /proc/self/fd/2; readlink /proc/self/fd/0; ps -o sid= -p $$ | tr -d ' '; echo $$"},
		Env:  testEnv, Stdout: log, Stderr: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	outcome(t, p)
	data, _ := os.ReadFile(log.Name())
	pid := strconv.Itoa(p.PID())
	want := []string{log.Name(), log.Name(), "/dev/null", pid, pid}
	if got := strings.Fields(string(data)); !slices.Equal(got, want) {
		t.Errorf("the guest saw %q, want %q", got, want)
	}
}

func TestForegroundGuestSharesTheGroup(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := Start(Spec{Argv: []string{"sh", "-c", "ps -o pgid= -p $$"}, Env: testEnv, Stdout: w, Foreground: true})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(r)
	outcome(t, p)
	if got := strings.TrimSpace(string(data)); got != strconv.Itoa(syscall.Getpgrp()) {
		t.Errorf("process group %s, want %d", got, syscall.Getpgrp())
	}
}

// record collects the phases a guest goes through.
type record struct{ states chan State }

func (r record) next(t *testing.T) State {
	t.Helper()
	select {
	case s := <-r.states:
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("no change of state")
		return State{}
	}
}

func run(t *testing.T, o Options) (*Guest, record, context.CancelFunc, chan State) {
	r := record{make(chan State, 100)}
	o.Changed = func(s State) { r.states <- s }
	if o.Spec.Env == nil {
		o.Spec.Env = testEnv
	}
	g := NewGuest(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan State, 1)
	go func() { done <- g.Run(ctx, nil, 0) }()
	t.Cleanup(cancel)
	return g, r, cancel, done
}

func TestRestartPolicies(t *testing.T) {
	for _, tt := range []struct {
		restart string
		code    string
		again   bool
	}{
		{RestartNo, "1", false}, {RestartOnFailure, "0", false}, {RestartOnFailure, "1", true}, {RestartAlways, "0", true},
	} {
		_, r, _, _ := run(t, Options{Spec: Spec{Argv: []string{"sh", "-c", "exit " + tt.code}}, Restart: tt.restart})
		if s := r.next(t); s.Phase != PhaseRunning || s.PID == 0 || s.StartTime == 0 {
			t.Errorf("first state %+v", s)
		}
		s := r.next(t)
		if again := s.Phase == PhaseWaiting; again != tt.again || strconv.Itoa(*s.ExitCode) != tt.code {
			t.Errorf("%s, exit %s: then %+v", tt.restart, tt.code, s)
		}
		if tt.again {
			if s := r.next(t); s.Phase != PhaseRunning || s.Restarts != 1 {
				t.Errorf("after the pause %+v", s)
			}
		}
	}
}

func TestAStartFailureIsFinal(t *testing.T) {
	_, _, _, done := run(t, Options{Spec: Spec{Argv: []string{"no-such-command"}}, Restart: RestartAlways})
	if s := <-done; s.Phase != PhaseFailed || *s.ExitCode != 127 || s.Err == nil {
		t.Errorf("ended as %+v", s)
	}
}

func TestStopTerminatesThenKills(t *testing.T) {
	for _, tt := range []struct {
		script string
		grace  time.Duration
		want   int
	}{
		{"trap 'exit 3' TERM; echo; while :; do sleep 0.05; done", 20 * time.Second, 3},
		{"trap '' TERM; echo; while :; do sleep 0.05; done", 300 * time.Millisecond, 137},
	} {
		ready, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_, r, cancel, done := run(t, Options{Spec: Spec{Argv: []string{"sh", "-c", tt.script}, Stdout: w}, Grace: tt.grace})
		r.next(t)
		w.Close()
		_, _ = ready.Read(make([]byte, 1))
		cancel()
		if s := <-done; s.Phase != PhaseExited || s.ExitCode == nil || *s.ExitCode != tt.want {
			t.Errorf("%q ended as %+v", tt.script, s)
		}
		// All holders of the pipe are gone: the whole group was stopped.
		_ = ready.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, ready); err != nil {
			t.Errorf("processes are left: %v", err)
		}
		ready.Close()
	}
}

func TestSignalReachesTheGuest(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	g, states, _, done := run(t, Options{Spec: Spec{Argv: []string{"sh", "-c", "trap 'exit 9' USR1; echo; while :; do sleep 0.05; done"}, Stdout: w}})
	states.next(t)
	w.Close()
	_, _ = r.Read(make([]byte, 1))
	g.Signal(syscall.SIGUSR1)
	if s := <-done; *s.ExitCode != 9 {
		t.Errorf("ended as %+v", s)
	}
}

func TestAdoption(t *testing.T) {
	// Started by somebody else, so that it is not this process's to reap.
	out, err := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	started, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(pid, started+1); err == nil {
		t.Error("another process of the same number was adopted")
	}
	p, err := Adopt(pid, started)
	if err != nil {
		t.Fatal(err)
	}
	states := make(chan State, 10)
	g := NewGuest(Options{Changed: func(s State) { states <- s }})
	done := make(chan State, 1)
	go func() { done <- g.Run(t.Context(), p, 4) }()
	if s := <-states; s.Phase != PhaseRunning || s.PID != pid || s.Restarts != 4 {
		t.Errorf("adopted as %+v", s)
	}
	g.Signal(syscall.SIGTERM)
	select {
	case s := <-done:
		if s.Phase != PhaseExited || s.ExitCode != nil {
			t.Errorf("ended as %+v", s)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("its end was not noticed")
	}
	if _, err := Adopt(pid, started); err == nil {
		t.Error("a dead process was adopted")
	}
}

func FuzzParseStartTime(f *testing.F) {
	f.Add("1 (a b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0")
	f.Add("1 (a) b) R")
	f.Add("")
	f.Fuzz(func(t *testing.T, stat string) {
		if n, err := parseStartTime(stat); err == nil && !strings.Contains(stat, strings.TrimLeft(strconv.FormatUint(n, 10), "0")) {
			t.Errorf("%q gives %d", stat, n)
		}
	})
}

func TestFind(t *testing.T) {
	const mark = "BOXER_TEST_MARK=one-of-a-kind"
	if pid, _, ok := Find(mark); ok {
		t.Fatalf("process %d has it", pid)
	}
	p, err := Start(Spec{Argv: []string{"sh", "-c", "sleep 60 & wait"}, Env: append([]string{mark}, testEnv...)})
	if err != nil {
		t.Fatal(err)
	}
	pid, started, ok := Find(mark)
	if !ok || pid != p.PID() || started != p.StartTime() {
		t.Errorf("found %d, %d, %t; want %d, %d", pid, started, ok, p.PID(), p.StartTime())
	}
	_ = p.SignalAll(syscall.SIGKILL)
	outcome(t, p)
	if pid, _, ok := Find(mark); ok {
		t.Errorf("process %d is found when all have ended", pid)
	}
}
