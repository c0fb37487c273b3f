// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestGuides runs every shell block of every guide, in its order, as a reader would.
func TestGuides(t *testing.T) {
	guides, err := filepath.Glob("../../docs/guides/*.md")
	if err != nil || len(guides) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	for _, path := range guides {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".md"), func(t *testing.T) { runGuide(t, path) })
	}
}

func runGuide(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	dir := filepath.Join(filepath.Dir(w.state), "reader")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // of a guide that failed half-way
		for _, name := range []string{"shop", "jobs", "probe"} {
			w.run(t, "network", "delete", name)
		}
		w.nothingLeft(t)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eux", "-c", shellBlocks(string(text)))
	cmd.Dir = dir
	cmd.Env = slices.Concat(w.command(ctx).Env, []string{"BOXER=" + filepath.Dir(w.bin), "CHECKPOINT_DISABLE=1",
		"PATH=" + w.bin + ":" + terraformDir(t, dir) + ":" + os.Getenv("PATH")})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", filepath.Base(path), err, out[max(0, len(out)-6000):])
	}
}

// shellBlocks are the ```sh blocks of a page. `make build` is left out: the
// binaries under test are there.
func shellBlocks(page string) string {
	var script strings.Builder
	inside := false
	for line := range strings.Lines(page) {
		switch fence := strings.TrimSpace(line); {
		case fence == "```sh":
			inside = true
		case fence == "```":
			inside = false
		case inside && !strings.HasPrefix(line, "make "):
			script.WriteString(line)
		}
	}
	return script.String()
}

// terraformDir has a terraform: OpenTofu, where there is nothing else.
func terraformDir(t *testing.T, dir string) string {
	t.Helper()
	own, err := filepath.Abs("../../tools/bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"terraform", "tofu", filepath.Join(own, "tofu")} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		bin := filepath.Join(dir, ".bin")
		if err := os.Mkdir(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, "terraform")); err != nil {
			t.Fatal(err)
		}
		return bin
	}
	t.Fatal("neither terraform nor tofu is installed: run make deps")
	return ""
}
