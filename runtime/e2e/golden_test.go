// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what a command that must fail has said with the file of
// that name.
func (w *world) golden(t *testing.T, name string, r result) {
	t.Helper()
	if r.code == 0 {
		t.Errorf("it should have failed: %s", r)
	}
	got := fmt.Sprintf("$ boxer %s\nexit %d\n%s", strings.Join(r.args, " "), r.code, section("stdout", r.stdout)+section("stderr", r.stderr))
	got = w.normal(got)
	path := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run with -update to write it", err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it anew)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func section(title, text string) string {
	if text == "" {
		return ""
	}
	return title + ":\n" + strings.TrimSuffix(text, "\n") + "\n"
}

// What differs from run to run.
var variables = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`--publish [0-9]+:`), "--publish PORT:"},
	{regexp.MustCompile(`host port [0-9]+`), "host port PORT"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "SHA256"},
	{regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`), "UUID"},
	{regexp.MustCompile(`\.(probe|new)-[0-9]+`), ".$1-N"},
	{regexp.MustCompile(`boxer-layer-(amd64|arm64)`), "boxer-layer-ARCH"},
	{regexp.MustCompile(`\bpid [0-9]+`), "pid N"},
	{regexp.MustCompile(`process [0-9]+`), "process N"},
	{regexp.MustCompile(`\b(client|vm|function)-[0-9a-f]{6}\b`), "$1-XXXXXX"},
	{regexp.MustCompile(`\b20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(Z|[+-][0-9:]+| UTC)?`), "TIME"},
	{regexp.MustCompile(`(?m)^boxer: waiting .*\n`), ""}, // progress
	{regexp.MustCompile(`\bafter [0-9.]+(ms|s)\b`), "after DURATION"},
}

func (w *world) normal(s string) string {
	s = strings.ReplaceAll(s, w.bin, "BIN")
	s = strings.ReplaceAll(s, w.state, "STATE")
	s = strings.ReplaceAll(s, filepath.Dir(w.state), "HOME")
	for _, v := range variables {
		s = v.pattern.ReplaceAllString(s, v.with)
	}
	return s
}

// inventory is everything a failed command might leave half-made: the members,
// the directories of hosts and functions, and the processes of hosts.
func (w *world) inventory(t *testing.T) string {
	t.Helper()
	var lines []string
	for slot, n := range w.nodes(t) {
		lines = append(lines, "member "+slot+" "+n.State)
	}
	for _, pattern := range []string{"networks/*", "networks/*/hosts/*", "networks/*/functions/*", "networks/*/incoming/*"} {
		found, err := filepath.Glob(filepath.Join(w.state, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			lines = append(lines, "file "+strings.TrimPrefix(f, w.state))
		}
	}
	hosts, root, all := 0, w.daemon(t), processes()
	for pid, p := range all {
		if p.is("local-host") && below(all, pid, root) {
			hosts++
		}
	}
	sort.Strings(lines)
	return strings.Join(append(lines, fmt.Sprintf("%d processes of hosts", hosts)), "\n")
}

// unchanged runs fn and checks that it has left nothing half-made.
func (w *world) unchanged(t *testing.T, fn func()) {
	t.Helper()
	before := w.inventory(t)
	fn()
	eventually(t, quick/4, "nothing is left half-made; before:\n"+before+"\n", func() (bool, string) {
		now := w.inventory(t)
		return now == before, now
	})
}

// stateError creates a network on a state directory that prepare has spoilt.
func (w *world) stateError(t *testing.T, name, prepare string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), quick)
	defer cancel()
	args := []string{"network", "create", "shop"}
	cmd := w.command(ctx, args...)
	cmd.Args = append([]string{"sh", "-c", stateScript, "sh", prepare}, append([]string{cmd.Path}, args...)...)
	cmd.Path = "/bin/sh"
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // makes the mounts private, too
	r := finish(t, ctx, cmd, args)
	if r.code == 99 {
		t.Errorf("something is left half-made: %s", r)
	}
	w.golden(t, name, r)
	w.nothingRuns(t)
}
