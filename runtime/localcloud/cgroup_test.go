// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUnifiedGroups: in a tree of version 2 the one group of a sandbox is made
// where both controllers are, and where memory is if that is all there is.
func TestUnifiedGroups(t *testing.T) {
	for name, try := range map[string]struct {
		delegated map[string]string // directory -> what its groups are limited by
		cpu       bool
	}{
		"nearest":     {map[string]string{"user": "cpu memory pids", "user/app": "memory pids cpu"}, true},
		"both":        {map[string]string{"user": "cpu memory", "user/app": "memory pids"}, true},
		"memory only": {map[string]string{"user/app": "memory pids"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d, mount := netDir(t.TempDir()), t.TempDir()
			own := filepath.Join(mount, "user/app/shell")
			if err := os.MkdirAll(own, 0o755); err != nil {
				t.Fatal(err)
			}
			want := ""
			for dir, controllers := range try.delegated {
				if err := os.WriteFile(filepath.Join(mount, dir, "cgroup.subtree_control"), []byte(controllers+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				if base := filepath.Join(mount, dir); len(base) > len(want) && (name != "both" || dir == "user") {
					want = base
				}
			}
			g := &cgroup{name: d.cgroupPrefix() + "x"}
			trees := []hierarchy{{v2: true, mount: mount, own: own}}
			if err := g.limit(d, trees, memoryController, 256); err != nil {
				t.Fatal(err)
			}
			if err := g.limit(d, trees, cpuController, 256); (err == nil) != try.cpu {
				t.Errorf("cpu: %v", err)
			}
			if len(g.dirs) != 1 || filepath.Dir(g.dirs[0]) != want {
				t.Fatalf("groups %v, want one in %s", g.dirs, want)
			}
			for file, want := range map[string]string{"memory.max": "268435456", "memory.swap.max": "0", "cpu.max": "2894 20000"} {
				path := filepath.Join(g.dirs[0], file)
				_ = os.Chmod(path, 0o600) // made by the write here; the kernel's are there
				if data, _ := os.ReadFile(path); string(data) != want && (try.cpu || file != "cpu.max") {
					t.Errorf("%s = %q, want %q", file, data, want)
				}
			}
			for events, want := range map[string]bool{"low 0\noom 1\noom_kill 0\n": false, "oom 1\noom_kill 2\noom_group_kill 0\n": true} {
				if err := os.WriteFile(g.events, []byte(events), 0o644); err != nil {
					t.Fatal(err)
				}
				if g.outOfMemory() != want {
					t.Errorf("%q: %v", events, !want)
				}
			}
		})
	}
}
