// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// herd is a configuration of many nodes: half of them virtual machines, half
// replicas of functions, replicas to a function.
func herd(nodes, replicas int) string {
	machines, functions := nodes/2, (nodes-nodes/2)/replicas
	return fmt.Sprintf(`
resource "boxer_vm_node" "machine" {
  count      = %d
  network_id = boxer_network.shop.id
  name       = "machine-${count.index}"
  command    = ["sleep", "100000"]
}

resource "boxer_function_node" "function" {
  count         = %d
  network_id    = boxer_network.shop.id
  name          = "function-${count.index}"
  command       = ["sleep", "100000"]
  desired_count = %d
  memory_size   = 128
}
`, machines, functions, replicas)
}

// timed runs terraform, which must end in time: within the limit when it has the
// machine for itself (make scale), else within several times that, as a guard
// against what grows with the square of the nodes.
func (w *workspace) timed(limit time.Duration, args ...string) {
	w.t.Helper()
	if os.Getenv("BOXER_SCALE") == "" {
		limit *= 5
	}
	start := time.Now()
	w.must(append(args, "-no-color", "-input=false")...)
	took := time.Since(start)
	w.t.Logf("terraform %s: %s", args[0], took.Round(10*time.Millisecond))
	if took > limit {
		w.t.Errorf("terraform %s took %s, want less than %s", args[0], took.Round(100*time.Millisecond), limit)
	}
}

// TestPlanOfManyNodes plans 200 nodes before and after they exist.
func TestPlanOfManyNodes(t *testing.T) {
	const limit = 5 * time.Second
	w := newWorkspace(t, withPlatform(newFakePlatform()))
	w.configure(shop + herd(200, 1))
	w.must("init", "-input=false")
	w.timed(limit, "plan")
	w.apply()
	w.timed(limit, "plan", "-detailed-exitcode")
}

// TestAccManyNodes applies 50 nodes and destroys them.
func TestAccManyNodes(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop + herd(50, 5))
	w.timed(time.Minute, "apply", "-auto-approve")
	running := 0
	for slot, m := range c.members("shop") {
		if m.State == "running" && m.Kind != "seed" {
			running++
		} else if m.Kind != "seed" {
			t.Errorf("%s is %s", slot, m.State)
		}
	}
	if running != 50 {
		t.Errorf("%d nodes run, want 50", running)
	}
	w.timed(5*time.Second, "plan", "-detailed-exitcode")
	noted := c.processes()
	w.timed(time.Minute, "destroy", "-auto-approve")
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}
