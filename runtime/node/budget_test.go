// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// What the supervisor may cost (the benchmark asserts the real budgets, of a
// release build on a quiet machine; this catches a slip of another order).
func TestCostOfASupervisor(t *testing.T) {
	w := newWorld(t)
	var taken []time.Duration
	for i := range 15 {
		s := w.start(config.Node{Kind: config.KindClient, Slot: fmt.Sprintf("run-%d", i), Argv: []string{"date", "+%s%N"}})
		if code := s.wait(); code != 0 {
			t.Fatalf("status %d:\n%s", code, s.log())
		}
		ns, err := strconv.ParseInt(s.output(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, time.Unix(0, ns).Sub(s.began))
	}
	slices.Sort(taken)
	t.Logf("exec to guest exec: p50 %v of %v", taken[len(taken)/2], taken)
	if p50 := taken[len(taken)/2]; p50 > time.Second {
		t.Errorf("exec to guest exec takes %v", p50)
	}

	idle := w.start(config.Node{Kind: config.KindVM, Slot: "idle", Argv: []string{"sleep", "60"}})
	w.member("idle", in(cluster.StateRunning))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", idle.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	t.Logf("idle supervisor: RSS %s", strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if kb := number(strings.Fields(rest)[0]); kb > 200*1024 {
		t.Errorf("idle supervisor: RSS of %d KiB", kb)
	}
}
