// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineIDFile is a variable for the tests.
var machineIDFile = "/etc/machine-id"

// machineID is a hash of /etc/machine-id, whose own value should stay private, or
// of the host's name where there is none (containers, chroots). A file of our own
// would be left behind by the last network.
func machineID(stateDir string) (string, error) {
	data, err := os.ReadFile(machineIDFile)
	id := strings.TrimSpace(string(data))
	if err != nil || id == "" || id == "uninitialized" {
		name, err := os.Hostname()
		if err != nil {
			return "", stateError(stateDir, fmt.Errorf("no machine id: %w", err))
		}
		id = "host " + name
	}
	sum := sha256.Sum256([]byte("boxer local machine\n" + id))
	return hex.EncodeToString(sum[:16]), nil
}

// processID names a process for good: a pid is reused, together with its start
// time and the boot it is not.
type processID struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // clock ticks since boot
	Boot  string `json:"boot"`
}

func identify(pid int) (processID, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processID{}, fmt.Errorf("process %d: %w", pid, err)
	}
	// The name, in parentheses, may itself hold blanks and parentheses.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return processID{}, fmt.Errorf("process %d: unreadable stat", pid)
	}
	// A zombie with threads is one that is still ending: its namespaces live on.
	if threads := fields[17]; fields[0] == "X" || fields[0] == "Z" && (threads == "0" || threads == "1") {
		return processID{}, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return processID{}, err
	}
	return processID{PID: pid, Start: fields[19], Boot: strings.TrimSpace(string(boot))}, nil
}

func (p processID) alive() bool {
	if p.PID <= 0 {
		return false
	}
	now, err := identify(p.PID)
	return err == nil && now == p
}

// kill signals the process only if it is still the same one.
func (p processID) kill(sig unix.Signal) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if p.alive() { // checked while the pidfd pins it
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// machinePIDs maps pids as the daemon (inner, its init) sees them to pids of this
// machine, from the NSpid lines of /proc.
func machinePIDs(inner int) map[int]int {
	found := map[int]int{}
	depth := len(nsPIDs(inner))
	if inner <= 0 || depth < 2 {
		return found
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if chain := nsPIDs(pid); len(chain) >= depth && descends(pid, inner) {
			found[chain[depth-1]] = pid
		}
	}
	return found
}

// descends: pid is ancestor or one of its descendants.
func descends(pid, ancestor int) bool {
	for hops := 0; hops < 64 && pid > 1; hops++ {
		if pid == ancestor {
			return true
		}
		pid = statusField(pid, "PPid:")[0]
	}
	return false
}

func nsPIDs(pid int) []int { return statusField(pid, "NSpid:") }

// statusField returns the numbers of one line of /proc/<pid>/status, at least one.
func statusField(pid int, key string) []int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			var numbers []int
			for _, f := range strings.Fields(rest) {
				n, _ := strconv.Atoi(f)
				numbers = append(numbers, n)
			}
			if len(numbers) > 0 {
				return numbers
			}
		}
	}
	return []int{0}
}
