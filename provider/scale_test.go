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
func herd(name string, nodes, replicas int) string {
	machines, functions := nodes/2, (nodes-nodes/2)/replicas
	return fmt.Sprintf(`
resource "boxer_vm_node" %[1]q {
  count      = %[2]d
  network_id = boxer_network.shop.id
  name       = "%[1]s-vm-${count.index}"
  command    = ["sleep", "100000"]
}

resource "boxer_function_node" %[1]q {
  count         = %[3]d
  network_id    = boxer_network.shop.id
  name          = "%[1]s-fn-${count.index}"
  command       = ["sleep", "100000"]
  desired_count = %[4]d
  memory_size   = 128
}
`, name, machines, functions, replicas)
}

const (
	planLimit  = 5 * time.Second
	applyLimit = time.Minute
)

// scale says that the machine is there for this test only (make scale).
func scale() bool { return os.Getenv("BOXER_SCALE") != "" }

// timed runs terraform, which must end in time: within the limit when it has the
// machine for itself, else within several times that, as a guard against what
// grows with the square of the nodes. A plan ends with status 2 when it proposes
// something.
func (w *workspace) timed(what string, limit time.Duration, status int, args ...string) {
	w.t.Helper()
	if !scale() {
		limit *= 5
	}
	start := time.Now()
	out, got := w.run(append(args, "-no-color", "-input=false")...)
	took := time.Since(start)
	w.t.Logf("%s: terraform %s: %s", what, args[0], took.Round(10*time.Millisecond))
	if got != status {
		w.t.Fatalf("%s: status %d, want %d:\n%s", what, got, status, out)
	}
	if took > limit {
		w.t.Errorf("%s: terraform %s took %s, want less than %s", what, args[0], took.Round(100*time.Millisecond), limit)
	}
}

// TestPlanOfManyNodes plans 200 nodes that exist. No machine has that many for
// real, and what the real platform adds is measured by TestAccManyNodes.
func TestPlanOfManyNodes(t *testing.T) {
	if !scale() {
		t.Skip("make scale runs this; TestAccManyNodes plans as many")
	}
	w := newWorkspace(t, withPlatform(newFakePlatform()))
	w.configure(shop + herd("herd", 200, 1))
	w.must("init", "-input=false")
	w.timed("nothing to 200 nodes", planLimit, 2, "plan", "-detailed-exitcode")
	w.apply()
	w.timed("200 nodes that exist", planLimit, 0, "plan", "-detailed-exitcode")
}

// TestAccManyNodes plans 200 nodes, of which none and then 50 exist, and applies
// and destroys 50.
func TestAccManyNodes(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop)
	w.apply()
	w.configure(c.block() + shop + herd("herd", 200, 1))
	w.timed("a network to 200 nodes", planLimit, 2, "plan", "-detailed-exitcode")
	w.configure(c.block() + shop + herd("herd", 50, 5))
	w.timed("50 nodes", applyLimit, 0, "apply", "-auto-approve")
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
	w.timed("50 nodes that exist", planLimit, 0, "plan", "-detailed-exitcode")
	w.configure(c.block() + shop + herd("herd", 50, 5) + herd("more", 150, 1))
	w.timed("50 nodes to 200", planLimit, 2, "plan", "-detailed-exitcode")
	noted := c.processes()
	w.timed("50 nodes", applyLimit, 0, "destroy", "-auto-approve")
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}
