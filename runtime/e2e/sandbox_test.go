// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
)

// TestSandboxFlags: what `boxer run` says of a function's sandbox arrives there,
// under the real supervisor, for root and for an ordinary user.
func TestSandboxFlags(t *testing.T) {
	for _, user := range []string{"root", "ordinary"} {
		t.Run(user, func(t *testing.T) {
			w := newWorld(t)
			if user == "ordinary" {
				w.ordinary(t)
			}
			w.network(t, "flags")
			tryFlags(t, w)
			tryOutOfMemory(t, w)
		})
	}
	w := newWorld(t)
	w.network(t, "usage")
	if r := w.run(t, "run", "--kind", "vm", "--relaxed", "--", "true"); r.code == 0 || !strings.Contains(r.stderr, "--relaxed is for function nodes") {
		t.Errorf("a relaxed VM: %s", r)
	}
}

func tryFlags(t *testing.T, w *world) {
	t.Helper()
	for _, try := range []struct{ flags, program, want string }{
		{"", "os.seteuid(993)", "1"},
		{"--relaxed", "os.seteuid(993)", "0"},
		{"", "open('/dev/shm/x', 'w')", "1"},
		{"--relaxed", "open('/dev/shm/x', 'w')", "0"},
		{"", "assert os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize == 512 << 20", "0"},
		{"--ephemeral-storage=600", "assert os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize == 600 << 20", "0"},
		{"--memory-size=128", "assert os.environ['AWS_LAMBDA_FUNCTION_MEMORY_SIZE'] == '128'", "0"},
	} {
		args := append([]string{"run", "--kind", "function"}, strings.Fields(try.flags)...)
		r := w.run(t, append(args, "--", "python3", "-c", "import os; "+try.program)...)
		if got := map[bool]string{true: "0", false: "1"}[r.code == 0]; got != try.want || r.code > 1 {
			t.Errorf("%s %s: %s", try.flags, try.program, r)
		}
	}
}

func tryOutOfMemory(t *testing.T, w *world) {
	t.Helper()
	if r := w.run(t, "run", "--kind", "function", "--", "cat", "/proc/self/cgroup"); !strings.Contains(r.stdout, "boxer-") {
		t.Logf("memory is not limited here: %s", r.stdout)
		return
	}
	r := w.run(t, "run", "--kind", "function", "--memory-size=128", "--", "python3", "-c", "b = bytearray(400 << 20); b[::4096] = b'x' * (len(b) >> 12)")
	if r.code != 137 || !strings.Contains(r.stderr, "out of memory: memory_size = 128 MB") {
		t.Errorf("400 MB of 128: %s", r)
	}
}
