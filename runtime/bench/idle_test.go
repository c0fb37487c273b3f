// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// idleTime is how long supervisors are watched that have nothing to do.
const idleTime = 12 * time.Second

// What an idle supervisor may take.
var (
	idleCPU = &target{"boxer", "<=", 0.5}
	idleRSS = &target{"boxer", "<=", 20}
)

// smallMB is a function's smallest memory, and what share of a CPU comes with it.
const (
	smallMB    = 128
	smallShare = "0.07"
)

// idler is a node that is watched while it idles.
type idler struct{ slot, title string }

var idlers = []idler{{"idle-vm", "VM"}, {"idle-fn-0", "function"}, {"idle-small-0", fmt.Sprintf("function of %d MB", smallMB)}}

// idle starts nodes that do nothing and measures their supervisors.
func (b *boxer) idle(ctx context.Context) ([]row, error) {
	for name, args := range map[string][]string{
		"idle-vm":    {"--kind", "vm"},
		"idle-fn":    {"--kind", "function"},
		"idle-small": {"--kind", "function", "--memory-size", strconv.Itoa(smallMB)},
	} {
		b.must(ctx, append(append([]string{"run", "--network", networkName, "--name", name, "--detach"}, args...), "--", "sleep", "600")...)
	}
	pids, err := b.supervisors()
	if err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second) // joining is not idling
	before := map[string]time.Duration{}
	for _, one := range idlers {
		if before[one.slot], err = cpuTime(pids[one.slot]); err != nil {
			return nil, fmt.Errorf("the supervisor of %s: %w", one.slot, err)
		}
	}
	began := time.Now()
	time.Sleep(idleTime)
	var all []row
	for _, one := range idlers {
		used, err := cpuTime(pids[one.slot])
		if err != nil {
			return nil, fmt.Errorf("the supervisor of %s: %w", one.slot, err)
		}
		share := 100 * float64(used-before[one.slot]) / float64(time.Since(began))
		rss, _, _ := strings.Cut(field(fmt.Sprintf("/proc/%d/status", pids[one.slot]), "VmRSS"), " ")
		kb, err := strconv.ParseFloat(rss, 64)
		if err != nil {
			return nil, fmt.Errorf("the RSS of the supervisor of %s: %w", one.slot, err)
		}
		cpu := row{Name: "idle supervisor, " + one.title + ", CPU", Unit: "%", Boxer: share, Target: idleCPU}
		memory := row{Name: "idle supervisor, " + one.title + ", RSS", Unit: "MB", Boxer: kb / 1024, Target: idleRSS}
		if one.slot == "idle-small-0" {
			cpu.Missing = unconfined(pids[one.slot])
			memory.Missing = cpu.Missing
		}
		all = append(all, cpu.judge(), memory.judge())
	}
	for _, name := range []string{"idle-vm", "idle-fn", "idle-small"} {
		b.must(ctx, "stop", "--network", networkName, name)
	}
	return all, nil
}

// supervisors finds the processes of this network's supervisors, by slot: what
// runs below the daemon is, per node, an init named NETWORK/SLOT with the
// supervisor below it.
func (b *boxer) supervisors() (map[string]int, error) {
	router, err := b.router()
	if err != nil {
		return nil, err
	}
	children, words := processes()
	found := map[string]int{}
	for _, init := range children[router] {
		if len(words[init]) < 3 || words[init][1] != "local-host" {
			continue
		}
		slot := strings.TrimPrefix(words[init][2], networkName+"/")
		for below := children[init]; len(below) > 0; below = below[1:] {
			if w := words[below[0]]; len(w) > 1 && strings.HasSuffix(w[0], "/boxer") && (w[1] == "node" || w[1] == "function") {
				found[slot] = below[0]
				break
			}
			below = append(below, children[below[0]]...)
		}
	}
	return found, nil
}

// router is the process of the network's daemon that routes between its nodes.
func (b *boxer) router() (pid int, err error) {
	var daemon struct {
		Inner struct {
			PID int `json:"pid"`
		} `json:"inner"`
	}
	file := filepath.Join(b.work, "state", "networks", networkName, "daemon.json")
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &daemon)
	}
	if err != nil {
		return 0, fmt.Errorf("find the network's processes: %w", err)
	}
	return daemon.Inner.PID, nil
}

// processes of this machine: who has which children, and the command lines.
func processes() (children map[int][]int, words map[int][]string) {
	children, words = map[int][]int{}, map[int][]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		parent, err := strconv.Atoi(field(dir+"/status", "PPid"))
		line, err2 := os.ReadFile(dir + "/cmdline")
		if err != nil || err2 != nil {
			continue // it has just ended
		}
		children[parent] = append(children[parent], pid)
		words[pid] = strings.Split(string(line), "\x00")
	}
	return children, words
}

// unconfined says why a process is not in a sandbox of the smallest memory with
// its share of a CPU, or nothing.
func unconfined(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err.Error()
	}
	groups := map[string]string{}
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for controller := range strings.SplitSeq(part[1], ",") {
			groups[controller] = part[2]
		}
	}
	read := func(controller, file, file2 string) string { // of version 1, of version 2
		text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, groups[controller], file))
		if err != nil {
			text, _ = os.ReadFile(filepath.Join("/sys/fs/cgroup", groups[""], file2))
		}
		return strings.TrimSpace(string(text))
	}
	memory := read("memory", "memory.limit_in_bytes", "memory.max")
	cpu := read("cpu", "cpu.cfs_quota_us", "cpu.max")
	if period := read("cpu", "cpu.cfs_period_us", ""); period != "" {
		cpu += " " + period
	}
	var quota, every float64
	_, _ = fmt.Sscan(cpu, &quota, &every)
	if memory != strconv.Itoa(smallMB<<20) || every == 0 || fmt.Sprintf("%.2f", quota/every) != smallShare {
		return fmt.Sprintf("its control groups allow %q bytes of memory and %q us of CPU per period: want %d MB and a share of %s", memory, cpu, smallMB, smallShare)
	}
	return ""
}

// cpuTime is what all threads of a process have used. The process's own sum
// counts in ticks, which are longer than what is measured.
func cpuTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no process %d", pid)
	}
	var sum time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has just ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
