// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fastFunction is a memory size with so much CPU that it does not slow down
// what is measured, natively or not.
const fastFunction = "10240"

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
	rep := &report{Measured: began.UTC().Truncate(time.Second), Machine: describeMachine(), Method: method, Plan: newPlan(t)}
	rep.Version = strings.TrimSpace(strings.TrimPrefix(string(b.must(ctx, "version")), "boxer "))

	r := results{}
	b.measure(ctx, rep, r)
	if rep.Plan.wants("quickstart") {
		b.quick(ctx, rep)
	}
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

// quick measures the quickstart.
func (b *boxer) quick(ctx context.Context, rep *report) {
	b.t.Helper()
	say("the quickstart")
	quick, err := b.quickstart(ctx, strings.Fields(rep.Version)[0])
	if err != nil {
		b.t.Fatalf("the quickstart could not be measured: %v", err)
	}
	rep.Quickstart = quick
	rep.Rows = append(rep.Rows,
		row{Name: "quickstart: " + quick.Tool + " apply", Unit: "s", Boxer: quick.Apply.Seconds()},
		row{Name: "quickstart: " + quick.Tool + " destroy", Unit: "s", Boxer: quick.Destroy.Seconds()})
}

func say(format string, args ...any) {
	fmt.Printf("bench: %s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// newPlan takes the time for a seed, or what is given: a seed to repeat an
// order, a number of rounds for a quick look, the measures that are wanted.
func newPlan(t *testing.T) plan {
	t.Helper()
	only := strings.FieldsFunc(os.Getenv("BOXER_BENCH_ONLY"), func(r rune) bool { return r == ',' })
	return plan{Seed: variable(t, "BOXER_BENCH_SEED", uint64(time.Now().Unix())), Rounds: int(variable(t, "BOXER_BENCH_ROUNDS", 0)), Only: only}
}

// variable is a number of the environment.
func variable(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
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
		missing["direct.connect2"] = missing["native.connect2"]
	}
	say("a network, and supervisors with nothing to do")
	b.createNetwork(ctx)
	if rep.Plan.wants("idle") {
		idle, err := b.idle(ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		rep.Rows = idle
	}
	if rep.Plan.wants(burstMeasure) {
		say("%d functions at once", burstSize)
		if err := b.starts(ctx, dir, r, rep.Plan); err != nil {
			b.t.Fatal(err)
		}
	}
	if rep.Plan.wants(wakeMeasure) {
		say("a function that sleeps, and is connected to")
		if err := b.wakes(ctx, dir, r, rep.Plan); err != nil {
			b.t.Fatal(err)
		}
	}
	if len(rep.Plan.Only) > 0 && !slices.ContainsFunc(rep.Plan.Only, func(m string) bool { return m != burstMeasure && m != wakeMeasure }) {
		rep.Rows = rows(b.t, r, rep.Plan, missing)
		return
	}
	b.servers(ctx, dir, cpu)
	server := b.underlay(ctx, "srv")
	say("native, from a VM")
	script := rep.Plan.script("vm")
	vmScript(script, server, cpu, other)
	b.host(ctx, r, dir, "vm", "client", script)
	say("direct, from a function")
	script = rep.Plan.script("function")
	functionScript(script, server, cpu, other)
	b.host(ctx, r, dir, "function", "burst", script)
	say("relay, from a VM")
	script = rep.Plan.script("relay")
	relayScript(script, server, cpu)
	if rep.Plan.wants("haproxy.stream") {
		if at, err := b.haproxy(ctx, dir, server); err != nil {
			missing["haproxy.stream"] = err.Error()
		} else {
			haproxyScript(script, at, cpu)
		}
	}
	b.host(ctx, r, dir, "vm", "relayed", script, "--transports", "relay")
	say("punch, from a function to another")
	script = rep.Plan.script("punch")
	punchScript(script, server, b.outside(ctx, "open-0", boxerPort+native), cpu)
	b.host(ctx, r, dir, "function", "peer", script)
	if len(rep.Plan.Only) == 0 {
		b.checkPaths(ctx, map[string][]string{"srv": {"native", "direct", "relay"}, "fn-0": {"relay", "punch"}})
	}
	if rep.Plan.wants("launch") {
		say("%d launches a side", launches)
		b.launch(ctx, r, dir, rep.Plan)
	}
	idle := rep.Rows
	rep.Rows = nil
	rep.Captures = map[string]capture{}
	task := linkTask{Bin: b.bin, Dir: dir, CPU: cpu, OtherCPU: other, Plan: rep.Plan}
	if rep.Plan.wants("link.connect") {
		say("direct, over a link with a delay")
		rep.Rows = b.delayed(ctx, rep, r, missing, task)
	}
	if rep.Plan.wants("link.punch") || rep.Plan.wants("link.cold") {
		say("punch, over a link with a delay")
		rep.Rows = append(rep.Rows, b.delayedPunch(ctx, rep, r, missing, task)...)
	}
	rep.Rows = slices.Concat(rows(b.t, r, rep.Plan, missing), rep.Rows, idle)
}

// delayed measures over the delayed link.
func (b *boxer) delayed(ctx context.Context, rep *report, r results, missing map[string]string, task linkTask) []row {
	b.t.Helper()
	packets, err := b.link(ctx, r, task)
	if err != nil {
		missing["link.connect"] = err.Error()
	}
	for side, port := range linkPorts {
		rep.Captures[side] = summarise(packets, port, anySYN)
	}
	return linkRows(b.t, r, rep.Captures, missing["link.connect"])
}

// delayedPunch measures over the delayed link, from a function to another.
func (b *boxer) delayedPunch(ctx context.Context, rep *report, r results, missing map[string]string, task linkTask) []row {
	b.t.Helper()
	from := task.Dir
	task.Dir, task.NATs = from+"-punch", true
	if err := os.Mkdir(task.Dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	for _, program := range []string{"probe", "probe-static", "link"} {
		if err := os.Symlink(filepath.Join(from, program), filepath.Join(task.Dir, program)); err != nil {
			b.t.Fatal(err)
		}
	}
	packets, err := b.link(ctx, r, task)
	if err != nil {
		missing["link.punch"], missing["link.cold"] = err.Error(), err.Error()
	}
	rep.Captures["native beside punch"] = summarise(packets, boxerPort+native, anySYN)
	rep.Captures["punch"] = summarise(packets, boxPort, func(syn packet) bool { return syn.Payload > 0 })
	rep.Captures["punch, cold"] = summarise(packets, boxPort, func(syn packet) bool { return syn.Payload == 0 })
	return punchRows(rep.Plan, rep.Captures, missing)
}

// servers starts the VM that has every server and the function with one.
func (b *boxer) servers(ctx context.Context, dir, cpu string) {
	b.t.Helper()
	for name, text := range map[string]string{
		"server.sh": serverScript, "open.sh": openScript, "nginx-7005.conf": nginxConfig(webPort), "nginx-7006.conf": nginxConfig(webPort + native),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	for name, args := range map[string][]string{
		"srv":  {"--kind", "vm", "--", "sh", "/var/task/server.sh"},
		"fn":   {"--kind", "function", "--memory-size", fastFunction, "--", "/var/task/probe", "serve", strconv.Itoa(boxerPort)},
		"open": {"--kind", "function", "--memory-size", fastFunction, "--nat", "cone", "--", "sh", "/var/task/open.sh"},
	} {
		b.must(ctx, append([]string{"run", "--network", networkName, "--name", name, "--detach", "--source-dir", dir, "-e", "PROBE_CPU=" + cpu}, args...)...)
	}
}

// haproxy starts HAProxy on a VM of its own, without the process monitor, and says where.
func (b *boxer) haproxy(ctx context.Context, dir, server string) (at string, err error) {
	program := "/usr/sbin/haproxy"
	if found, err := exec.LookPath("haproxy"); err == nil {
		program = found
	} else if _, err := os.Stat(program); err != nil {
		return "", errors.New("haproxy is not installed: run tools/deps.sh bench")
	}
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(haproxyConfig(server)), 0o644); err != nil {
		return "", err
	}
	b.must(ctx, "run", "--network", networkName, "--kind", "vm", "--name", "haproxy", "--detach", "--source-dir", dir,
		"--", "/var/task/probe-static", "bare", program, "-db", "-f", "/var/task/haproxy.cfg")
	return b.underlay(ctx, "haproxy"), nil
}

// host runs a script as the guest of one node and takes up what it measured.
func (b *boxer) host(ctx context.Context, r results, dir, kind, name string, s *script, more ...string) {
	b.t.Helper()
	if s.idle() {
		return
	}
	file := name + ".sh"
	if err := os.WriteFile(filepath.Join(dir, file), []byte(s.text("/var/task")), 0o755); err != nil {
		b.t.Fatal(err)
	}
	args := append([]string{"run", "--network", networkName, "--kind", kind, "--name", name, "--source-dir", dir}, more...)
	if kind == "function" {
		args = append(args, "--memory-size", fastFunction)
	}
	out := b.must(ctx, append(args, "--", "sh", "/var/task/"+file)...)
	if err := r.add(out); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
}

// launch times exec of the supervisor to the guest's main, and the bare exec.
func (b *boxer) launch(ctx context.Context, r results, dir string, p plan) {
	b.t.Helper()
	s := p.script("launch")
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
