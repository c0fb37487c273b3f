// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestTranscripts plays testdata/script: what each verb of the command line
// prints, and its exit status. Besides testscript's own commands there are:
//
//	exits N CMD...  run CMD, which must end with status N; parts of its output
//	                that vary are replaced, so that whole outputs can be compared
//	retry CMD...    run CMD again until it succeeds, for 30 s
//	freeport VAR    set VAR to a port of 127.0.0.1 that is free
//
// -update writes the expected outputs anew.
func TestTranscripts(t *testing.T) {
	bin := binaries(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, UpdateScripts: *update,
		Setup: func(env *testscript.Env) error { return setUpScript(env, bin) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "retry": scriptRetry, "freeport": scriptFreePort,
		},
	})
}

// setUpScript gives a script a state directory, of which nothing may be left.
func setUpScript(env *testscript.Env, bin string) error {
	dir, err := os.MkdirTemp("/tmp", "bx") // short: sockets lie below it
	if err != nil {
		return err
	}
	w := &world{bin: bin, state: filepath.Join(dir, "s")}
	env.Setenv("BOXER_STATE_DIR", w.state)
	env.Setenv("PATH", bin+":"+guestPath)
	env.Setenv("BIN", bin)
	env.Setenv("NODE_BOXER", filepath.Join(bin, "stage-"+runtime.GOARCH, "boxer"))
	env.Setenv("HOME", dir)
	env.Setenv("LC_ALL", "C.UTF-8")
	env.Defer(func() {
		defer os.RemoveAll(dir)
		entries, _ := os.ReadDir(filepath.Join(w.state, "networks"))
		for _, e := range entries {
			cmd := exec.Command(filepath.Join(bin, "boxer"), "network", "delete", e.Name(), "--state-dir", w.state)
			if out, err := cmd.CombinedOutput(); err != nil {
				env.T().Log(fmt.Sprintf("delete network %s: %v: %s", e.Name(), err, out))
				env.T().FailNow()
			}
		}
		for end := time.Now().Add(20 * time.Second); len(w.traces()) > 0; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				env.T().Fatal("left behind:", strings.Join(w.traces(), "\n"))
			}
		}
	})
	return nil
}

// scriptVariables is what differs from run to run, besides what variables names.
var scriptVariables = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(?m)^boxer: waiting .*\n`), ""}, // progress, on a busy machine
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]+  `), "127.0.0.1:PORT "},
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\b[0-9]{5}:`), "PORT:"},
	{regexp.MustCompile(`\b(forward|client|vm|function)-[0-9a-f]{6}\b *`), "$1-XXXXXX "},
	{regexp.MustCompile(`\b[0-9]+[smh]  `), "AGE "},
	{regexp.MustCompile(`\b[0-9]+[smh]\b`), "AGE"},
	{regexp.MustCompile(`\b[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+Z?`), "TIME"},
	{regexp.MustCompile(`\b[0-9]{2}:[0-9]{2}:[0-9]{2}\b`), "TIME"},
	{regexp.MustCompile(`"(pid|machine_pid|setup_p50_us|setup_p99_us)": [0-9]+`), `"$1": N`},
	{regexp.MustCompile(`\b[0-9.]+ms\b *`), "SETUP  "},
	{regexp.MustCompile(`(P50|-) +(P99|-)\n`), "$1  $2\n"},
	{regexp.MustCompile(`"launch_id": "[0-9a-f]+"`), `"launch_id": "ID"`},
	{regexp.MustCompile(`169\.254\.[0-9]+\.[0-9]+:`), "169.254.X.Y:"},
	{regexp.MustCompile(` +(\n|$)`), "$1"},
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS CMD...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got, err = exit.ExitCode(), nil
	}
	ts.Check(err)
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	normal := func(s string) []byte {
		s = strings.ReplaceAll(s, ts.Getenv("BOXER_STATE_DIR"), "STATE")
		s = strings.ReplaceAll(s, ts.Getenv("BIN"), "BIN")
		for _, v := range scriptVariables {
			s = v.pattern.ReplaceAllString(s, v.with)
		}
		return []byte(s)
	}
	_, err = ts.Stdout().Write(normal(stdout))
	ts.Check(err)
	_, err = ts.Stderr().Write(normal(stderr))
	ts.Check(err)
}

func scriptRetry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: retry CMD...")
	}
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			stdout := ts.ReadFile("stdout")
			_, err = ts.Stdout().Write([]byte(stdout))
			ts.Check(err)
			return
		}
	}
	ts.Fatalf("not within 30 s: %v", err)
}

func scriptFreePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport VAR")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer ln.Close()
	ts.Setenv(args[0], strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
}
