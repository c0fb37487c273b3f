// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// launches of `boxer run` that are timed.
const launches = 40

// TestBench measures and never judges: a missed target is a "no" in the table.
// It fails when something could not be measured.
func TestBench(t *testing.T) {
	out := os.Getenv("BOXER_BENCH_OUT")
	if out == "" {
		t.Skip("BOXER_BENCH_OUT is not set: `make bench` measures; an ordinary test run does not take the time")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	b := newBoxer(t)
	began := time.Now()
	rep := &report{Measured: began.UTC().Truncate(time.Second), Machine: describeMachine(), Method: method}
	rep.Version = strings.TrimSpace(strings.TrimPrefix(string(b.must(ctx, "version")), "boxer "))

	rep.Rows = b.measure(ctx)
	say("the quickstart")
	quick, err := b.quickstart(ctx, strings.Fields(rep.Version)[0])
	if err != nil {
		t.Fatalf("the quickstart could not be measured: %v", err)
	}
	rep.Quickstart = quick
	rep.Rows = append(rep.Rows,
		row{Name: "quickstart: " + quick.Tool + " apply", Unit: "s", Boxer: quick.Apply.Seconds()},
		row{Name: "quickstart: " + quick.Tool + " destroy", Unit: "s", Boxer: quick.Destroy.Seconds()})
	rep.Machine.LoadAfter = load()
	rep.Took = time.Since(began).Round(time.Second).String()
	if err := rep.print(os.Stdout); err != nil {
		t.Fatal(err)
	}
	if err := rep.write(out); err != nil {
		t.Fatal(err)
	}
	say("written to %s", out)
}

func say(format string, args ...any) { fmt.Printf("bench: "+format+"\n", args...) }

// measure starts the servers, runs both scripts and the launches.
func (b *boxer) measure(ctx context.Context) []row {
	b.t.Helper()
	dir := filepath.Join(b.work, "probe")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.buildProbe(ctx, dir)
	cpu, other := cpus(b.t)
	say("a network with a server VM and a server function")
	b.createNetwork(ctx)
	serve := func(kind, name string, args ...string) {
		b.must(ctx, append([]string{"run", "--network", networkName, "--kind", kind, "--name", name, "--detach",
			"--source-dir", dir, "-e", "PROBE_CPU=" + cpu, "--", "/var/task/probe", "serve", strconv.Itoa(boxerPort)}, args...)...)
	}
	serve("vm", "srv", "/var/task/probe-static", "bare", "/var/task/probe", "serve", strconv.Itoa(nativePort))
	serve("function", "fn")
	server := b.underlay(ctx, "srv")

	r := results{}
	say("native and relay, from a VM")
	b.host(ctx, r, dir, "vm", "client", vmScript(server, cpu, other))
	say("direct, from a function")
	b.host(ctx, r, dir, "function", "burst", functionScript(server, cpu))
	b.checkPaths(ctx, map[string][]string{"srv": {"native", "direct"}, "fn-0": {"relay"}})
	say("%d launches", launches)
	b.launch(ctx, r, dir)
	return rows(b.t, r)
}

// host runs a script as the guest of one node and takes up what it measured.
func (b *boxer) host(ctx context.Context, r results, dir, kind, name, script string) {
	b.t.Helper()
	file := name + ".sh"
	if err := os.WriteFile(filepath.Join(dir, file), []byte(script), 0o755); err != nil {
		b.t.Fatal(err)
	}
	out := b.must(ctx, "run", "--network", networkName, "--kind", kind, "--name", name, "--source-dir", dir, "--", "sh", "/var/task/"+file)
	if err := r.add(out); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
}

// launch times exec of the supervisor to the guest's main, and the bare exec.
func (b *boxer) launch(ctx context.Context, r results, dir string) {
	b.t.Helper()
	probe, guest := filepath.Join(dir, "probe-static"), filepath.Join(dir, "probe")
	for name, args := range map[string][]string{
		"native": {guest, "now"},
		"boxer":  {filepath.Join(b.bin, "boxer"), "run", "--network", networkName, "--", guest, "now"},
	} {
		b.env = append(b.env, "PROBE_LABEL=launch/"+name+"/0")
		out, err := b.command(ctx, dir, probe, append([]string{"launch", strconv.Itoa(launches)}, args...)...)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := r.add(out); err != nil {
			b.t.Fatal(err)
		}
	}
}

// cpus names the last CPU this process may use, and the one before, if any.
func cpus(t *testing.T) (last, other string) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatalf("which CPUs may be used: %v", err)
	}
	for i := range max(runtime.NumCPU(), 1024) {
		if set.IsSet(i) {
			last, other = strconv.Itoa(i), last
		}
	}
	return last, other
}
