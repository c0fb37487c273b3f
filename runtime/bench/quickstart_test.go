// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// quickstart is how long the example takes from nothing to serving and back.
type quickstart struct {
	Tool    string        `json:"tool"`
	Version string        `json:"version"`
	Init    time.Duration `json:"init_ns"`
	Apply   time.Duration `json:"apply_ns"`
	Destroy time.Duration `json:"destroy_ns"`
}

// tool finds terraform, else tofu, and where that one looks for providers.
func tool(root string) (path, registry string, err error) {
	if path, err = exec.LookPath("terraform"); err == nil {
		return path, "registry.terraform.io", nil
	}
	if path, err = exec.LookPath("tofu"); err == nil {
		return path, "registry.opentofu.org", nil
	}
	path = filepath.Join(root, "tools", "bin", "tofu")
	if _, err = os.Stat(path); err == nil {
		return path, "registry.opentofu.org", nil
	}
	return "", "", fmt.Errorf("neither terraform nor tofu is here: run tools/deps.sh test")
}

// freePort is a port of 127.0.0.1 nobody listens on now.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

var hostPort = regexp.MustCompile(`host_port\s*=\s*[0-9]+`)

// configuration copies the example, publishing on a free port instead of its own.
func (b *boxer) configuration(root string) (string, error) {
	dir := filepath.Join(b.work, "quickstart")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "examples", "quickstart"))); err != nil {
		return "", fmt.Errorf("copy the quickstart: %w", err)
	}
	main := filepath.Join(dir, "main.tf")
	text, err := os.ReadFile(main)
	if err != nil {
		return "", err
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	if !hostPort.Match(text) {
		return "", fmt.Errorf("%s: no host_port to change", main)
	}
	return dir, os.WriteFile(main, hostPort.ReplaceAll(text, fmt.Appendf(nil, "host_port = %d", port)), 0o644)
}

// mirror lays the provider out so that init needs no registry.
func (b *boxer) mirror(registry, version string) (string, error) {
	dir := filepath.Join(b.work, "mirror")
	at := filepath.Join(dir, registry, "boxer-overlay", "boxer", version, "linux_"+runtime.GOARCH)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return "", err
	}
	provider := filepath.Join(b.bin, "terraform-provider-boxer")
	return dir, os.Symlink(provider, filepath.Join(at, "terraform-provider-boxer_v"+version))
}

// quickstart applies the example and destroys it again.
func (b *boxer) quickstart(ctx context.Context, version string) (q quickstart, err error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return q, err
	}
	tf, registry, err := tool(root)
	if err != nil {
		return q, err
	}
	dir, err := b.configuration(root)
	if err != nil {
		return q, err
	}
	mirror, err := b.mirror(registry, version)
	if err != nil {
		return q, fmt.Errorf("lay out the provider: %w", err)
	}
	b.env = append(b.env, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1")
	out, err := b.command(ctx, dir, tf, "version")
	if err != nil {
		return q, err
	}
	q.Tool = filepath.Base(tf)
	q.Version, _, _ = strings.Cut(string(out), "\n")
	timed := func(args ...string) (time.Duration, error) {
		began := time.Now()
		_, err := b.command(ctx, dir, tf, args...)
		return time.Since(began), err
	}
	if q.Init, err = timed("init", "-input=false", "-plugin-dir="+mirror); err != nil {
		return q, err
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		if _, err := b.command(ctx, dir, tf, "destroy", "-input=false", "-auto-approve"); err != nil {
			b.t.Error(err)
		}
	})
	if q.Apply, err = timed("apply", "-input=false", "-auto-approve"); err != nil {
		return q, err
	}
	q.Destroy, err = timed("destroy", "-input=false", "-auto-approve")
	return q, err
}
