// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// TestSizes: what is shipped stays small.
func TestSizes(t *testing.T) {
	bin := binaries(t)
	node := filepath.Join("stage-"+runtime.GOARCH, "boxer") // in the layers; people's has more commands
	for name, limit := range map[string]int64{
		node: 16 << 20, "boxer": 32 << 20, "libboxer.so": 64 << 10, "boxer-layer-amd64.zip": 8 << 20, "boxer-layer-arm64.zip": 8 << 20,
	} {
		info, err := os.Stat(filepath.Join(bin, name))
		if err != nil {
			t.Errorf("%v: run `make build`", err)
			continue
		}
		t.Logf("%s: %.2f MiB", name, float64(info.Size())/(1<<20))
		if info.Size() > limit {
			t.Errorf("%s has %d bytes, more than %d", name, info.Size(), limit)
		}
	}
}

// TestLayerIsDeterministic: two builds of the layer give the same bytes, and
// those of bin/.
func TestLayerIsDeterministic(t *testing.T) {
	bin, dir := binaries(t), t.TempDir()
	tool := filepath.Join(dir, "layer")
	if out, err := exec.Command("go", "build", "-o", tool, "github.com/boxer-overlay/boxer/layer/cmd/layer").CombinedOutput(); err != nil {
		t.Fatalf("build the layer tool: %v\n%s", err, out)
	}
	var zips [3][]byte
	for i := range zips {
		path := filepath.Join(bin, "boxer-layer-"+runtime.GOARCH+".zip")
		if i < 2 {
			path = filepath.Join(dir, fmt.Sprintf("%d.zip", i))
			// Neither names, modes nor times of the inputs may show.
			inputs := filepath.Join(dir, fmt.Sprintf("inputs%d", i))
			copyFile(t, filepath.Join(bin, "stage-"+runtime.GOARCH, "boxer"), filepath.Join(inputs, "a"), 0o700)
			copyFile(t, filepath.Join(bin, "libboxer.so"), filepath.Join(inputs, "b"), 0o600)
			cmd := exec.Command(tool, "-boxer", filepath.Join(inputs, "a"), "-library", filepath.Join(inputs, "b"), "-out", path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("build the layer: %v\n%s", err, out)
			}
		}
		var err error
		if zips[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(zips[0], zips[1]) || !bytes.Equal(zips[0], zips[2]) {
		t.Errorf("the layer differs: %d and %d bytes, in bin/ %d", len(zips[0]), len(zips[1]), len(zips[2]))
	}
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, data, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var residentLine = regexp.MustCompile(`VmRSS:\s*([0-9]+) kB`)

// TestIdleSupervisorIsSmall: 25 MB of memory at most for a node at rest.
func TestIdleSupervisorIsSmall(t *testing.T) {
	w := newWorld(t)
	w.network(t, "budget")
	w.vm(t, "idle", "--", "sleep", "54321")
	w.function(t, "calm", "--", "sleep", "65432")
	time.Sleep(3 * time.Second)
	for name, marker := range map[string]string{"vm": "54321", "function": "65432"} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.supervisor(t, marker)))
		if err != nil {
			t.Fatal(err)
		}
		m := residentLine.FindSubmatch(status)
		if m == nil {
			t.Fatalf("no VmRSS in %s", status)
		}
		kb, _ := strconv.Atoi(string(m[1]))
		t.Logf("%s supervisor: %.1f MB", name, float64(kb)*1024/1e6)
		if kb*1024 > 25e6 {
			t.Errorf("%s supervisor: %d kB resident, more than 25 MB", name, kb)
		}
	}
}
