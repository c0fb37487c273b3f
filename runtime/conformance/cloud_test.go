// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runner runs the tests, on both sides.
//
//go:embed testdata/runner.py
var runner string

// networkName of the network whose nodes run the tests.
const networkName = "conformance"

// cloud is a network of the local platform, driven through the boxer binary.
type cloud struct {
	bin, work string
	env       []string
}

// newCloud makes the network; it is gone again when the test ends.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	bin := os.Getenv("BOXER_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "boxer")); err != nil {
		t.Fatalf("%v: run `make build` first (or point BOXER_BIN at the binaries)", err)
	}
	work, err := os.MkdirTemp("/tmp", "bxc") // short: unix sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{bin: bin, work: work, env: []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + work,
		"LC_ALL=C.UTF-8", "BOXER_STATE_DIR=" + filepath.Join(work, "s"),
	}}
	t.Cleanup(func() {
		if err := os.RemoveAll(work); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := c.boxer(ctx, "network", "delete", networkName); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.boxer(t.Context(), "network", "create", networkName); err != nil {
		t.Fatal(err)
	}
	return c
}

// boxer runs the binary and returns its standard output; the error has the rest.
func (c *cloud) boxer(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "boxer"), args...)
	cmd.Dir, cmd.Env = c.work, c.env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it cleans up
	cmd.WaitDelay = 30 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("boxer %s: %w\n%s%s", strings.Join(args, " "), errors.Join(err, ctx.Err()), tail(out.String(), 1000), tail(errs.String(), 2000))
	}
	return out.Bytes(), nil
}

// job is one module of the suite in one setting.
type job struct {
	setting
	module string
	only   []string // patterns of test ids; none: all
}

// run runs it on a node of its own.
func (c *cloud) run(ctx context.Context, j job, excluded []exclusion) (report, error) {
	dir, err := os.MkdirTemp(c.work, "task")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(dir)
	for name, data := range map[string]string{
		"exclude":   strings.Join(patterns(excluded, j.excludes), "\n"),
		"only":      strings.Join(j.only, "\n"),
		"runner.py": runner,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			return report{}, err
		}
	}
	if err := os.Link(filepath.Join(c.work, "bare"), filepath.Join(dir, "bare")); err != nil {
		return report{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, moduleTime)
	defer cancel()
	args := append([]string{"run", "--network", networkName, "--source-dir", dir}, j.node()...)
	args = append(args, "--")
	if j.bare {
		args = append(args, "/var/task/bare")
	}
	args = append(args, "/usr/bin/python3", "/var/task/runner.py", "--host", j.host,
		"--exclude", "/var/task/exclude", "--only", "/var/task/only", j.module)
	out, err := c.boxer(ctx, args...)
	if err != nil {
		return report{}, fmt.Errorf("%s, %s: %w", j.module, j.setting, err)
	}
	r, err := read(out)
	if err == nil && (r.Preload == "") != j.bare {
		err = fmt.Errorf("LD_PRELOAD is %q", r.Preload)
	}
	if err != nil {
		return r, fmt.Errorf("%s, %s: %w", j.module, j.setting, err)
	}
	return r, nil
}

// buildBare builds what starts the bare side.
func (c *cloud) buildBare(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(c.work, "bare"), "./testdata/bare")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the bare side: %v\n%s", err, out)
	}
}
