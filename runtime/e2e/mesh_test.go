// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// meshTime is what all pairs of functions may take to connect, all at once.
const meshTime = 10 * time.Second

// TestMesh: functions behind NATs connect to all others at once, with nobody in
// between. BOXER_MESH says how many (8; the promise is made for 64).
func TestMesh(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("BOXER_MESH"))
	if err != nil {
		t.Parallel()
		count = 8
	}
	w := newWorld(t)
	task := w.task(t)
	if out, err := exec.Command("gcc", "-O1", "-Wall", "-Wextra", "-o", filepath.Join(task, "mesh"), "testdata/mesh.c").CombinedOutput(); err != nil {
		t.Fatalf("compile mesh.c: %v\n%s", err, out)
	}
	w.network(t, "mesh")
	if r := w.runIn(t, 3*time.Minute, nil, "run", "--kind", "function", "--name", "mesh", "--nat", "restricted",
		"--count", strconv.Itoa(count), "--source-dir", task, "--detach",
		"--", "python3", "/var/task/mesh.py", strconv.Itoa(count)); r.code != 0 {
		t.Fatal(r)
	}
	type outcome struct {
		Late, Begin, End, Slowest float64
		Made                      int
		Failed                    []string
	}
	first, last, slowest, made := math.Inf(1), 0.0, 0.0, 0
	for i := range count {
		var o outcome
		slot := fmt.Sprintf("mesh-%d", i)
		// Not with a verb ten times a second: that costs what the functions need.
		log := filepath.Join(w.state, "networks", "mesh", "logs", slot+".log")
		eventually(t, 2*time.Minute, slot+" has connected", func() (bool, string) {
			text, _ := os.ReadFile(log)
			out := strings.TrimSpace(string(text))
			return json.Unmarshal([]byte(out[strings.LastIndex(out, "\n")+1:]), &o) == nil, clip(out)
		})
		if o.Late > 0 || len(o.Failed) > 0 || o.Made != count-1 {
			t.Errorf("%s: %+v", slot, o)
		}
		first, last = min(first, o.Begin), max(last, o.End)
		slowest, made = max(slowest, o.Slowest), made+o.Made
	}
	t.Logf("%d functions, %d connections in %.2f s, the slowest in %.2f s", count, made, last-first, slowest)
	if took := last - first; took > meshTime.Seconds() {
		t.Errorf("all pairs took %.1f s, want %v", took, meshTime)
	}
	by := map[string]uint64{}
	eventually(t, 15*time.Second, "all are counted", func() (bool, string) {
		clear(by)
		for _, p := range w.paths(t) {
			by[p.Transport] += p.Connections
		}
		return by["punch"]+by["relay"] >= uint64(made), fmt.Sprint(by)
	})
	t.Log(by)
}
