// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// settled is how long after the last connection everything must be given back
// (the address book keeps an entry the kernel never listed for 15 s).
const settled = 40 * time.Second

// soakFunction is the most that functions are given, which live for 15 minutes.
const soakFunction = 20_000

// soakShort is the number of connections in an ordinary test run.
const soakShort = 1000

// soakCount of TestSoak: BOXER_SOAK=1000000 makes it the long run.
func soakCount(t *testing.T) int {
	t.Helper()
	text := os.Getenv("BOXER_SOAK")
	if text == "" {
		return soakShort
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("BOXER_SOAK=%q: want a number of connections, 1000 or more", text)
	}
	return n
}

// soaked is what soak.c prints.
type soaked struct {
	Served  int
	Seconds float64
	Failed  map[string]int
}

func (w *world) soak(t *testing.T, limit time.Duration, r route, args ...string) soaked {
	t.Helper()
	out, err := w.guest(limit, r, append([]string{"/var/task/soak"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var s soaked
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// use is what a supervisor holds, as the kernel sees it.
type use struct{ descriptors, resident, threads int }

var statusLine = regexp.MustCompile(`(?m)^(VmRSS|Threads):\s+(\d+)`)

func useOf(t *testing.T, pid int) use {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	u := use{descriptors: len(open)}
	for _, m := range statusLine.FindAllStringSubmatch(string(status), -1) {
		n, _ := strconv.Atoi(m[2])
		if m[1] == "VmRSS" {
			u.resident = n
		} else {
			u.threads = n
		}
	}
	return u
}

// supervisorOf finds the supervisor above the guest that has mark as an argument.
func supervisorOf(t *testing.T, mark string) int {
	t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, _ := os.ReadFile(path)
		if !strings.HasSuffix(strings.TrimRight(string(line), "\x00"), "\x00"+mark) || strings.HasPrefix(string(line), "boxer\x00") {
			continue
		}
		for pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))); pid > 1; pid = parentOf(pid) {
			args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if a := strings.Split(string(args), "\x00"); filepath.Base(a[0]) == "boxer" || strings.HasSuffix(a[0], "bootstrap") {
				return pid
			}
		}
	}
	t.Fatalf("no supervisor above a guest with argument %q", mark)
	return 0
}

func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// TestSoak: very many connections, mixed with forks, leave nothing behind: no
// descriptor, no address, no queued connection, no growing memory.
func TestSoak(t *testing.T) {
	w, total := theWorld(t), soakCount(t)
	if err := w.compile("soak.c", "soak"); err != nil {
		t.Fatal(err)
	}
	marks := map[string]string{}
	serve := func(kind, slot string) {
		name := strings.TrimSuffix(slot, "-0")
		marks[slot] = w.mark(name)
		w.must(t, "run", "--kind", kind, "--name", name, "--detach", "--source-dir", w.task, "--", "/var/task/soak", "serve", "9007", "2", marks[slot])
	}
	serve("vm", "soak")
	slots := map[string]string{"alpha": "soak", "lambda-0": "soakf-0"}
	for _, r := range routes {
		total := total
		if r.transport == "punch" {
			serve("function", "soakf-0")
			r.host, total = "soakf-0", min(total, soakFunction)
		} else {
			r.kind, r.host = "vm", "soak"
		}
		t.Run(r.transport, func(t *testing.T) {
			pid := supervisorOf(t, marks[r.host])
			// What the first half needed at once (addresses are remembered for
			// seconds) is kept for later; the second half may not need more.
			first := w.soak(t, 2*time.Hour, r, "connect", r.host, "9007", strconv.Itoa(total/2), "4")
			before := useOf(t, pid)
			s := w.soak(t, 2*time.Hour, r, "connect", r.host, "9007", strconv.Itoa(total/2), "4")
			if s.Served+first.Served != total {
				t.Errorf("served %d of %d, failed: %v %v", s.Served+first.Served, total, first.Failed, s.Failed)
			}
			var after use
			eventually(t, settled, "descriptors are given back", func() (bool, string) {
				after = useOf(t, pid)
				return after.descriptors <= before.descriptors+2, fmt.Sprintf("%d before, %d after", before.descriptors, after.descriptors)
			})
			t.Logf("%d connections in %.0f s; half way the server's supervisor had %+v, after %+v (resident in kB)", total, first.Seconds+s.Seconds, before, after)
			// A leak of a hundred bytes for each of half a million would be 50 MB.
			if grown := after.resident - before.resident; grown > 24<<10 {
				t.Errorf("the supervisor grew by %d kB", grown)
			}
		})
	}
	open := map[string]int{"native": 200, "direct": 200, "relay": 100, "punch": 100}
	if total > soakShort {
		open = map[string]int{"native": 5000, "direct": 800, "relay": 800, "punch": 400}
	}
	for _, r := range routes {
		r.host = slots[r.host]
		t.Run(r.transport+" at once", func(t *testing.T) {
			many := open[r.transport]
			s := w.soak(t, 5*time.Minute, r, "open", r.host, "9007", strconv.Itoa(many))
			t.Logf("%d open at once, in %.1f s", many, s.Seconds)
			if s.Served != many {
				t.Errorf("%d of %d open connections answer, failed: %v", s.Served, many, s.Failed)
			}
		})
	}
	time.Sleep(waitForBook(total))
	for slot := range marks {
		checkLastLine(t, w, slot, total)
	}
}

// waitForBook: in the long run the address book is seen to be empty at the end.
func waitForBook(total int) time.Duration {
	if total > soakShort {
		return 20 * time.Second
	}
	return 0
}

var lastLine = regexp.MustCompile(`"remembered":(\d+),"queued":(\d+),"goroutines":(\d+)`)

// checkLastLine stops a node and reads what its supervisor still held when it left.
func checkLastLine(t *testing.T, w *world, slot string, total int) {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(w.state, "networks", "*", "logs", slot+".node.log"))
	if len(paths) != 1 {
		t.Fatalf("logs of %s: %q", slot, paths)
	}
	log, err := os.Open(paths[0]) // it is removed with the node
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	w.must(t, "stop", strings.TrimSuffix(slot, "-0"))
	text, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	found := lastLine.FindSubmatch(text)
	if found == nil {
		t.Errorf("%s: its log does not say what it held at the end:\n%s", slot, clip(string(text)))
		return
	}
	t.Logf("%s at its end: %s", slot, found[0])
	if total > soakShort && string(found[1]) != "0" || string(found[2]) != "0" {
		t.Errorf("%s at its end: %s", slot, found[0])
	}
}
