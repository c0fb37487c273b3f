// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// networkName of the measured network.
const networkName = "bench"

// boxer drives the real command line with a state directory of its own.
type boxer struct {
	t    *testing.T
	bin  string // directory
	work string // removed afterwards
	env  []string
}

func newBoxer(t *testing.T) *boxer {
	t.Helper()
	bin := os.Getenv("BOXER_BIN")
	if bin == "" {
		t.Fatal("BOXER_BIN is not set: run make bench, or point it at the bin directory")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp("", "boxer-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(work); err != nil {
			t.Errorf("remove what the benchmark made: %v", err)
		}
	})
	b := &boxer{t: t, bin: bin, work: work}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "BOXER_") && !strings.HasPrefix(kv, "LD_PRELOAD=") {
			b.env = append(b.env, kv)
		}
	}
	b.env = append(b.env, "BOXER_STATE_DIR="+filepath.Join(work, "state"))
	return b
}

// command runs a program and returns its standard output; what it printed is in the error.
func (b *boxer) command(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, b.env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it cleans up
	cmd.WaitDelay = 30 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, tail(out.String(), 1000)+tail(errs.String(), 2000))
	}
	return out.Bytes(), nil
}

// tail of text, at most size bytes.
func tail(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return "..." + text[len(text)-size:]
}

func (b *boxer) run(ctx context.Context, args ...string) ([]byte, error) {
	return b.command(ctx, b.work, filepath.Join(b.bin, "boxer"), args...)
}

// must is run for what the benchmark cannot go on without.
func (b *boxer) must(ctx context.Context, args ...string) []byte {
	b.t.Helper()
	out, err := b.run(ctx, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// createNetwork makes the network, gone again when the test ends.
func (b *boxer) createNetwork(ctx context.Context) {
	b.t.Helper()
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := b.run(ctx, "network", "delete", networkName); err != nil {
			b.t.Error(err)
		}
	})
	b.must(ctx, "network", "create", networkName)
}

// node is what `boxer nodes` says of one.
type node struct {
	Slot            string         `json:"slot"`
	UnderlayAddress netip.AddrPort `json:"underlay_address"`
	NATReport       struct {
		Mapped    netip.AddrPort `json:"mapped"`
		Filtering string         `json:"filtering"`
	} `json:"nat_report"`
}

// await waits until a node is as wanted.
func (b *boxer) await(ctx context.Context, what string, is func(node) bool) node {
	b.t.Helper()
	var nodes []node
	for range 40 {
		if err := json.Unmarshal(b.must(ctx, "nodes", "--network", networkName, "--json"), &nodes); err != nil {
			b.t.Fatalf("nodes --json: %v", err)
		}
		if at := slices.IndexFunc(nodes, is); at >= 0 {
			return nodes[at]
		}
		time.Sleep(250 * time.Millisecond)
	}
	b.t.Fatalf("nodes --json: no %s in %+v", what, nodes)
	return node{}
}

// underlay is the underlay address of a slot.
func (b *boxer) underlay(ctx context.Context, slot string) string {
	b.t.Helper()
	n := b.await(ctx, "underlay address of "+slot, func(n node) bool { return n.Slot == slot && n.UnderlayAddress.IsValid() })
	return n.UnderlayAddress.Addr().String()
}

// outside is where a port of a function behind a NAT is reached that turns the
// same bits of each.
func (b *boxer) outside(ctx context.Context, slot string, port uint16) netip.AddrPort {
	b.t.Helper()
	n := b.await(ctx, slot+" behind an open NAT", func(n node) bool { return n.Slot == slot && n.NATReport.Filtering == "open" })
	at := n.NATReport.Mapped
	return netip.AddrPortFrom(at.Addr(), port^at.Port()^n.UnderlayAddress.Port())
}

// checkPaths fails unless each slot was reached over the transport measured;
// otherwise the numbers would be of something else.
func (b *boxer) checkPaths(ctx context.Context, want map[string][]string) {
	b.t.Helper()
	var missing []string
	var out []byte
	for range 20 { // supervisors report about once a second
		var paths []struct{ To, Transport string }
		out = b.must(ctx, "paths", "--network", networkName, "--json")
		if err := json.Unmarshal(out, &paths); err != nil {
			b.t.Fatalf("paths --json: %v", err)
		}
		seen := map[string]bool{}
		for _, p := range paths {
			seen[p.To+" over "+p.Transport] = true
		}
		missing = missing[:0]
		for to, transports := range want {
			for _, transport := range transports {
				if key := to + " over " + transport; !seen[key] {
					missing = append(missing, key)
				}
			}
		}
		if len(missing) == 0 {
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
	b.t.Fatalf("no connection to %s: the numbers are not of the transport they name; paths: %s", strings.Join(missing, ", "), out)
}

// buildProbe builds testdata/probe.c twice into dir, and the delayed link.
func (b *boxer) buildProbe(ctx context.Context, dir string) {
	b.t.Helper()
	for name, args := range map[string][]string{
		"probe": {"testdata/probe.c"}, "probe-static": {"testdata/probe.c", "-static", "-DPROBE_STATIC"}, "link": {"testdata/link.c"},
	} {
		source, err := filepath.Abs(args[0])
		if err != nil {
			b.t.Fatal(err)
		}
		args = append([]string{"-O2", "-Wall", "-Wextra", "-o", filepath.Join(dir, name), source}, args[1:]...)
		if _, err := b.command(ctx, dir, "gcc", args...); err != nil {
			b.t.Fatalf("build the probe: %v", err)
		}
	}
}
