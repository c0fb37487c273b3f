// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Memory and CPU of a function's sandbox are limited by control groups, where
// this machine lets Boxer make them: as root, or where they were delegated to
// the user. It is found out by making them. They lie side by side below one
// directory per hierarchy (one with version 2, one per controller with version
// 1), which is written down so that none is left when a daemon is killed.

const (
	memoryController = "memory"
	cpuController    = "cpu"

	// cpuPeriod is short, so that a small share comes in small pieces.
	cpuPeriod = 20 * time.Millisecond
	// memoryPerCPU is how much memory buys one CPU on Lambda.
	memoryPerCPU = 1769
)

// setting is one file of a control group.
type setting struct {
	file, value string
	optional    bool // not every kernel has it
}

// hierarchy is a mounted tree of control groups.
type hierarchy struct {
	v2          bool
	controllers []string // version 1
	mount       string
	own         string // this process's group, as a directory below mount
}

// cgroup is the control groups of one sandbox, one per hierarchy used.
type cgroup struct {
	name   string
	dirs   []string
	events string // the file that counts kills for lack of memory
}

// cgroupPrefix begins the names of all groups of a network.
func (d netDir) cgroupPrefix() string {
	sum := sha256.Sum256([]byte(d))
	return "boxer-" + hex.EncodeToString(sum[:6]) + "-"
}

// newCgroup makes the groups of a sandbox. What could not be limited, and why,
// is in err; the group is there for the rest.
func (d netDir) newCgroup(id string, memoryMB int) (*cgroup, error) {
	g := &cgroup{name: d.cgroupPrefix() + id}
	trees, err := hierarchies()
	if err != nil {
		return g, err
	}
	for _, controller := range []string{memoryController, cpuController} {
		if limitErr := g.limit(d, trees, controller, memoryMB); limitErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", controller, limitErr))
		}
	}
	return g, err
}

// limit holds the sandbox to one controller's share of memoryMB.
func (g *cgroup) limit(d netDir, trees []hierarchy, controller string, memoryMB int) error {
	dir, v2, err := g.make(d, trees, controller)
	if err != nil {
		return err
	}
	for _, s := range settings(controller, v2, memoryMB) {
		err := os.WriteFile(filepath.Join(dir, s.file), []byte(s.value), 0)
		if err != nil && (!s.optional || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission)) {
			return err
		}
	}
	if controller == memoryController {
		g.events = filepath.Join(dir, map[bool]string{true: "memory.events", false: "memory.oom_control"}[v2])
	}
	return nil
}

// make makes the group that controller limits, as near to this process's own as
// it may be. With version 2 a process is in one group, which serves both.
func (g *cgroup) make(d netDir, trees []hierarchy, controller string) (dir string, v2 bool, err error) {
	err = errors.New("this system has no control groups for it, or none that Boxer may use")
	for _, h := range trees {
		if !h.v2 && !slices.Contains(h.controllers, controller) {
			continue
		}
		for _, base := range h.bases(controller) {
			if dir, err = g.makeIn(d, base); err == nil {
				return dir, h.v2, nil
			}
		}
	}
	return "", false, err
}

func (g *cgroup) makeIn(d netDir, base string) (string, error) {
	dir := filepath.Join(base, g.name)
	if slices.Contains(g.dirs, dir) {
		return dir, nil
	}
	if err := d.noteCgroups(base); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	g.dirs = append(g.dirs, dir)
	return dir, nil
}

// bases are the directories in which groups are limited by controller, the best
// first: with version 2 those that serve all controllers, then the nearest.
func (h *hierarchy) bases(controller string) []string {
	if !h.v2 {
		return []string{h.own}
	}
	var all, some []string
	for dir := h.own; strings.HasPrefix(dir, h.mount); dir = filepath.Dir(dir) {
		memory, cpu := h.offers(dir, memoryController), h.offers(dir, cpuController)
		switch {
		case memory && cpu:
			all = append(all, dir)
		case memory && controller == memoryController:
			some = append(some, dir)
		}
	}
	return append(all, some...)
}

// offers: groups in dir are limited by controller. Without systemd nobody
// switches that on at the root of the tree; root does it then.
func (h *hierarchy) offers(dir, controller string) bool {
	has := func(file string) bool {
		data, _ := os.ReadFile(filepath.Join(dir, file))
		return slices.Contains(strings.Fields(string(data)), controller)
	}
	if has("cgroup.subtree_control") {
		return true
	}
	return dir == h.mount && has("cgroup.controllers") &&
		os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0) == nil
}

func settings(controller string, v2 bool, memoryMB int) []setting {
	memory := strconv.Itoa(memoryMB << 20)
	period := cpuPeriod.Microseconds()
	quota := period * int64(memoryMB) / memoryPerCPU
	switch {
	case controller == memoryController && v2:
		return []setting{{file: "memory.max", value: memory}, {file: "memory.swap.max", value: "0", optional: true}}
	case controller == memoryController:
		return []setting{{file: "memory.limit_in_bytes", value: memory}, {file: "memory.memsw.limit_in_bytes", value: memory, optional: true}}
	case v2:
		return []setting{{file: "cpu.max", value: fmt.Sprintf("%d %d", quota, period)}}
	}
	return []setting{{file: "cpu.cfs_period_us", value: strconv.FormatInt(period, 10)}, {file: "cpu.cfs_quota_us", value: strconv.FormatInt(quota, 10)}}
}

// open opens what a process writes 0 to in order to enter the groups.
func (g *cgroup) open() ([]*os.File, error) {
	var files []*os.File
	for _, dir := range g.dirs {
		f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// outOfMemory: something was killed in the group because its memory was used up.
func (g *cgroup) outOfMemory() bool {
	if g.events == "" {
		return false
	}
	data, _ := os.ReadFile(g.events)
	for line := range strings.Lines(string(data)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strings.TrimSpace(count) != "0"
		}
	}
	return false
}

// remove removes the groups once their processes are gone.
func (g *cgroup) remove() { removeGroups(g.dirs) }

func removeGroups(dirs []string) {
	for _, dir := range dirs {
		for end := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
			// The kernel counts a process a moment longer than it can be waited for.
			if err := unix.Rmdir(dir); err != unix.EBUSY || time.Now().After(end) {
				break
			}
		}
	}
}

// noteCgroups writes down below which directory groups of the network are made.
func (d netDir) noteCgroups(base string) error {
	bases := d.cgroupBases()
	if slices.Contains(bases, base) {
		return nil
	}
	return writeJSON(d.join("cgroups.json"), append(bases, base))
}

func (d netDir) cgroupBases() []string {
	var bases []string
	_ = readJSON(d.join("cgroups.json"), &bases)
	return bases
}

// removeCgroups removes what a killed daemon of the network has left.
func (d netDir) removeCgroups() {
	for _, base := range d.cgroupBases() {
		dirs, _ := filepath.Glob(filepath.Join(base, d.cgroupPrefix()+"*"))
		removeGroups(dirs)
	}
}

// hierarchies are the trees of control groups of this machine.
func hierarchies() ([]hierarchy, error) {
	own, err := ownGroups()
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var trees []hierarchy
	for s := bufio.NewScanner(f); s.Scan(); {
		head, tail, _ := strings.Cut(s.Text(), " - ")
		left, right := strings.Fields(head), strings.Fields(tail)
		if len(left) < 5 || len(right) < 3 || right[0] != "cgroup" && right[0] != "cgroup2" {
			continue
		}
		h := hierarchy{v2: right[0] == "cgroup2", mount: left[4]}
		key := ""
		if !h.v2 {
			h.controllers = strings.Split(right[2], ",")
			if key = h.controllers[len(h.controllers)-1]; !slices.Contains(h.controllers, memoryController) && !slices.Contains(h.controllers, cpuController) {
				continue
			}
		}
		path, ok := own[key]
		if !ok {
			continue
		}
		h.own = filepath.Join(h.mount, strings.TrimPrefix(path, left[3]))
		trees = append(trees, h)
	}
	return trees, nil
}

// ownGroups are this process's groups, by controller; "" is version 2.
func ownGroups() (map[string]string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			own[controller] = fields[2]
		}
	}
	return own, nil
}
