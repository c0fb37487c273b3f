// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const nobody = 65534

// ordinary makes the world belong to an ordinary user, with binaries that this
// user may run.
func (w *world) ordinary(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return // everything runs as one anyway
	}
	home := filepath.Dir(w.state)
	bin := filepath.Join(home, "bin")
	for _, name := range []string{"boxer", "libboxer.so", "boxer-layer-amd64.zip", "boxer-layer-arm64.zip"} {
		copyFile(t, filepath.Join(w.bin, name), filepath.Join(bin, name), 0o755)
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	w.bin = bin
	w.cred = &syscall.Credential{Uid: nobody, Gid: nobody}
}

// TestOrdinaryUser: the same works without root, in user namespaces.
func TestOrdinaryUser(t *testing.T) {
	w := newWorld(t)
	w.ordinary(t)
	task := w.task(t)
	w.network(t, "user")
	w.vm(t, "back", "--source-dir", task, "--", "python3", "/var/task/tick.py", "9000", "back-marker")
	w.function(t, "front", "--source-dir", task, "--", "python3", "/var/task/tick.py", "9000", "front-marker")
	for _, kind := range []string{"vm", "function", "client"} {
		args := []string{"run", "--kind", kind, "--source-dir", task, "--", "python3", "/var/task/ask.py"}
		if kind == "client" {
			args = []string{"run", "--", "python3", filepath.Join(task, "ask.py")}
		}
		for _, target := range []string{"back", "front"} {
			if r := w.run(t, append(args, target, "9000")...); r.code != 0 || !strings.HasPrefix(r.stdout, "pid ") {
				t.Errorf("%s to %s: %s", kind, target, r)
			}
		}
	}
	if r := w.run(t, "run", "--kind", "function", "--", "id", "-u"); r.stdout != "993\n" {
		t.Errorf("uid inside a function: %s", r)
	}
	// The daemon and all below it belong to the user: nothing runs as root.
	root, all := w.daemon(t), processes()
	for pid, p := range all {
		if w.cred == nil || !below(all, pid, root) {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && strings.Contains(string(status), "\nUid:\t0\t") {
			t.Errorf("process %d runs as root: %v", pid, p.args)
		}
	}
}
