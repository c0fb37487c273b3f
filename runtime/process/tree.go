// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick of the times in /proc/<pid>/stat: USER_HZ is 100 on every architecture
// that Boxer runs on.
const tick = 10 * time.Millisecond

// TreeTime is the CPU time that a process and its descendants have used, with
// those that have ended and were waited for.
func TreeTime(pid int) (time.Duration, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	children, used := map[int][]int{}, map[int]time.Duration{}
	for _, entry := range entries {
		one, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		parent, spent, err := parseUsage(string(stat))
		if err != nil {
			return 0, err
		}
		children[parent] = append(children[parent], one)
		used[one] = spent
	}
	if _, there := used[pid]; !there {
		return 0, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	var total time.Duration
	for tree := []int{pid}; len(tree) > 0; tree = tree[1:] {
		total += used[tree[0]]
		tree = append(tree, children[tree[0]]...)
	}
	return total, nil
}

// parseUsage reads a process' parent, and the CPU time of its own and of the
// children it has waited for: fields 4 and 14 to 17.
func parseUsage(stat string) (parent int, used time.Duration, err error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("process status: %d fields", len(fields))
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, fmt.Errorf("process status: parent: %w", err)
	}
	for _, field := range fields[11:15] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("process status: times: %w", err)
		}
		used += time.Duration(ticks) * tick
	}
	return parent, used, nil
}
