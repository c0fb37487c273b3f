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

// launches of `boxer run` that are timed, each side.
const launches = 40

// TestBench measures and never judges: a missed target is a "no" in the table.
// It fails when something could not be measured.
func TestBench(t *testing.T) {
	out := os.Getenv("BOXER_BENCH_OUT")
	if out == "" {
		t.Skip("BOXER_BENCH_OUT is not set: `make bench` measures; an ordinary test run does not take the time")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	b := newBoxer(t)
	began := time.Now()
	rep := &report{Measured: began.UTC().Truncate(time.Second), Machine: describeMachine(), Method: method, Seed: seed(t)}
	rep.Version = strings.TrimSpace(strings.TrimPrefix(string(b.must(ctx, "version")), "boxer "))

	r := results{}
	b.measure(ctx, rep, r)
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
	if err := rep.write(out, r); err != nil {
		t.Fatal(err)
	}
	say("written to %s", filepath.Dir(out))
}

func say(format string, args ...any) {
	fmt.Printf("bench: %s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// seed of the order of sides: given, to repeat a run, or the time.
func seed(t *testing.T) uint64 {
	text := os.Getenv("BOXER_BENCH_SEED")
	if text == "" {
		return uint64(time.Now().Unix())
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("BOXER_BENCH_SEED: %v", err)
	}
	return n
}

// measure starts the servers, runs the scripts, the launches and the delayed link.
func (b *boxer) measure(ctx context.Context, rep *report, r results) {
	b.t.Helper()
	dir := filepath.Join(b.work, "probe")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.buildProbe(ctx, dir)
	cpu, other := cpus(b.t)
	missing := map[string]string{}
	if other == "" {
		missing["native.connect2"] = "this machine has one CPU"
	}
	say("a network, and supervisors with nothing to do")
	b.createNetwork(ctx)
	idle, err := b.idle(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	b.servers(ctx, dir, cpu)
	server := b.underlay(ctx, "srv")
	say("native and relay, from a VM")
	script := newScript(rep.Seed, "vm")
	vmScript(script, server, cpu, other)
	b.host(ctx, r, dir, "vm", "client", script)
	say("direct, from a function")
	script = newScript(rep.Seed, "function")
	functionScript(script, server, cpu)
	b.host(ctx, r, dir, "function", "burst", script)
	b.checkPaths(ctx, map[string][]string{"srv": {"native", "direct"}, "fn-0": {"relay"}})
	say("%d launches a side", launches)
	b.launch(ctx, r, dir, rep.Seed)
	say("direct, over a link with a delay")
	packets, err := b.link(ctx, r, linkTask{Bin: b.bin, Dir: dir, CPU: cpu, OtherCPU: other, Seed: rep.Seed})
	if err != nil {
		missing["link.connect"] = err.Error()
	}
	rep.Captures = map[string]capture{}
	for side, port := range linkPorts {
		rep.Captures[side] = summarise(packets, port)
	}
	rep.Rows = append(rows(b.t, r, missing), linkRows(b.t, r, rep.Captures, missing["link.connect"])...)
	rep.Rows = append(rep.Rows, idle...)
}

// servers starts the VM that has every server and the function with one.
func (b *boxer) servers(ctx context.Context, dir, cpu string) {
	b.t.Helper()
	for name, text := range map[string]string{
		"server.sh": serverScript, "nginx-7005.conf": nginxConfig(webPort), "nginx-7006.conf": nginxConfig(webPort + native),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	for name, args := range map[string][]string{
		"srv": {"--kind", "vm", "--", "sh", "/var/task/server.sh"},
		"fn":  {"--kind", "function", "--", "/var/task/probe", "serve", strconv.Itoa(boxerPort)},
	} {
		b.must(ctx, append([]string{"run", "--network", networkName, "--name", name, "--detach", "--source-dir", dir, "-e", "PROBE_CPU=" + cpu}, args...)...)
	}
}

// host runs a script as the guest of one node and takes up what it measured.
func (b *boxer) host(ctx context.Context, r results, dir, kind, name string, s *script) {
	b.t.Helper()
	file := name + ".sh"
	if err := os.WriteFile(filepath.Join(dir, file), []byte(s.text("/var/task")), 0o755); err != nil {
		b.t.Fatal(err)
	}
	out := b.must(ctx, "run", "--network", networkName, "--kind", kind, "--name", name, "--source-dir", dir, "--", "sh", "/var/task/"+file)
	if err := r.add(out); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
}

// launch times exec of the supervisor to the guest's main, and the bare exec.
func (b *boxer) launch(ctx context.Context, r results, dir string, seed uint64) {
	b.t.Helper()
	s := newScript(seed, "launch")
	s.blocks(launches, "launch", []side{{name: "native"}, {name: "boxer"}, {name: "again"}}, func(sd side) string {
		if sd.name == "boxer" {
			return fmt.Sprintf("$T/probe-static launch 1 %s run --network %s -- $T/probe now", filepath.Join(b.bin, "boxer"), networkName)
		}
		return "$T/probe-static launch 1 $T/probe now"
	})
	out, err := b.command(ctx, dir, "sh", "-c", s.text(dir))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := r.add(out); err != nil {
		b.t.Fatal(err)
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
