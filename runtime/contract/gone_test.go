// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A slot whose node has left is unreachable; BOXER_CONTRACT=all lets the node's
// whole host vanish as well, which takes the network a moment to notice.
func TestEmptySlotIsUnreachable(t *testing.T) {
	w := theWorld(t)
	t.Run("left", func(t *testing.T) {
		w.unreachable(t, func() { w.must(t, "stop", "mortal") }, "EHOSTUNREACH")
	})
	if os.Getenv("BOXER_CONTRACT") == "" {
		return
	}
	t.Run("vanished", func(t *testing.T) {
		w.unreachable(t, func() {
			if err := syscall.Kill(w.host(t, "mortal"), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}, "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT")
		w.must(t, "stop", "mortal")
	})
}

// unreachable starts a node, ends it and connects to it on every route.
func (w *world) unreachable(t *testing.T, end func(), may ...string) {
	t.Helper()
	if err := w.agent("vm", "mortal"); err != nil {
		t.Fatal(err)
	}
	address := w.node(t, "mortal").Overlay
	end()
	for _, r := range routes {
		t.Run(r.transport, func(t *testing.T) {
			out, err := w.guest(quick, r, "python3", "/var/task/until.py", address, "7000", "EHOSTUNREACH", "30")
			if err != nil {
				t.Fatal(err)
			}
			seen := strings.Fields(strings.ReplaceAll(out, "timed out", "ETIMEDOUT"))
			if len(seen) == 0 || seen[len(seen)-1] != "EHOSTUNREACH" {
				t.Errorf("it does not become unreachable: %v", seen)
			}
			for _, s := range seen {
				if !slices.Contains(may, s) {
					t.Errorf("%s, want one of %v", s, may)
				}
			}
		})
	}
}

// host is the init of an agent's host.
func (w *world) host(t *testing.T, name string) (host int) {
	t.Helper()
	for pid := w.pid(t, name); pid > 1; {
		line, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if args := strings.Split(string(line), "\x00"); len(args) > 1 && args[1] == "local-host" {
			host = pid
		}
		stat, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		pid, _ = strconv.Atoi(fields[1])
	}
	if host == 0 {
		t.Fatalf("no host above agent %s", name)
	}
	return host
}
