// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// useTerraform makes plugin-testing run the terraform that was found, with the
// provider of this process under its public name.
func useTerraform(t *testing.T, options ...Option) map[string]func() (tfprotov6.ProviderServer, error) {
	t.Helper()
	program := terraformPath(t)
	t.Setenv("TF_ACC", "1")
	t.Setenv("TF_CLI_CONFIG_FILE", os.DevNull) // not the user's settings, nor complaints about them
	t.Setenv("CHECKPOINT_DISABLE", "1")
	t.Setenv("TF_ACC_TERRAFORM_PATH", program)
	t.Setenv("TF_ACC_PROVIDER_NAMESPACE", "boxer-overlay")
	if isTofu(t) {
		t.Setenv("TF_ACC_PROVIDER_HOST", "registry.opentofu.org")
	}
	t.Setenv(envPlatform, "")
	t.Setenv(envStateDir, "")
	return map[string]func() (tfprotov6.ProviderServer, error){
		"boxer": providerserver.NewProtocol6WithError(New("test", options...)()),
	}
}

// quickstart is the example's configuration for one test: its own state
// directory, source directories and port.
type quickstart struct {
	*localCloud
	dir  string // a copy of examples/quickstart
	port int
}

func newQuickstart(t *testing.T) *quickstart {
	t.Helper()
	q := &quickstart{localCloud: newCloud(t), dir: t.TempDir(), port: freePort(t)}
	copyExample(t, q.dir)
	return q
}

// copyExample copies what belongs to the example, and not what somebody's own
// terraform may have left beside it.
func copyExample(t *testing.T, to string) {
	t.Helper()
	const from = "../examples/quickstart"
	for _, name := range []string{"app", "front"} {
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(from, "main.tf"))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "main.tf"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// config is the example as it is written, but for the places and the count.
func (q *quickstart) config(count int) string {
	q.t.Helper()
	text, err := os.ReadFile(filepath.Join(q.dir, "main.tf"))
	if err != nil {
		q.t.Fatal(err)
	}
	for old, now := range map[string]string{
		`provider "boxer" { platform = "local" }`: q.block(),
		`${path.module}`:    q.dir,
		`desired_count = 2`: fmt.Sprintf("desired_count = %d", count),
		`host_port = 8080`:  fmt.Sprintf("host_port = %d", q.port),
	} {
		if !strings.Contains(string(text), old) {
			q.t.Fatalf("main.tf no longer says %q", old)
		}
		text = []byte(strings.ReplaceAll(string(text), old, now))
	}
	return string(text)
}

// answers sends requests and returns how often each replica answered.
func (q *quickstart) answers(requests int) map[string]int {
	q.t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	counts := map[string]int{}
	replica := regexp.MustCompile(`^(logic-\d+) answers: visit \d+\n$`)
	for range requests {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", q.port))
		if err != nil {
			q.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		match := replica.FindSubmatch(body)
		if err != nil || resp.StatusCode != http.StatusOK || match == nil {
			q.t.Fatalf("status %d, %q, %v", resp.StatusCode, body, err)
		}
		counts[string(match[1])]++
	}
	return counts
}

const (
	network = "boxer_network.shop"
	storeVM = "boxer_vm_node.store"
	frontVM = "boxer_vm_node.front"
)

// onlyChange expects that one resource changes and the others stay untouched.
func onlyChange(address string, action plancheck.ResourceActionType) resource.ConfigPlanChecks {
	var checks []plancheck.PlanCheck
	for _, other := range []string{network, storeVM, logicAddress, frontVM} {
		if other == address {
			checks = append(checks, plancheck.ExpectResourceAction(other, action))
		} else {
			checks = append(checks, plancheck.ExpectResourceAction(other, plancheck.ResourceActionNoop))
		}
	}
	return resource.ConfigPlanChecks{PreApply: checks}
}

func slotCheck(count int) []statecheck.StateCheck {
	var slots, ids, addresses []knownvalue.Check
	for i := range count {
		slots = append(slots, knownvalue.StringExact(fmt.Sprintf("logic-%d", i)))
		ids = append(ids, knownvalue.NotNull())
		addresses = append(addresses, knownvalue.StringRegexp(regexp.MustCompile(`^100\.80\.\d+\.\d+$`)))
	}
	return []statecheck.StateCheck{
		statecheck.ExpectKnownValue(logicAddress, tfjsonpath.New("slots"), knownvalue.ListExact(slots)),
		statecheck.ExpectKnownValue(logicAddress, tfjsonpath.New("node_ids"), knownvalue.ListExact(ids)),
		statecheck.ExpectKnownValue(logicAddress, tfjsonpath.New("overlay_addresses"), knownvalue.ListExact(addresses)),
		statecheck.ExpectKnownValue(logicAddress, tfjsonpath.New("running_count"), knownvalue.Int64Exact(int64(count))),
	}
}

// TestAccLifecycle takes the quickstart through its life. After each step
// plugin-testing also expects an empty plan.
func TestAccLifecycle(t *testing.T) {
	q := newQuickstart(t)
	var noted []string
	serves := func(replicas int) resource.TestCheckFunc {
		return func(*terraform.State) error {
			noted = append(noted, q.processes()...)
			// No request may fail, but nginx avoids a server that was away for 10 s.
			q.eventually(fmt.Sprintf("%d replicas answer", replicas), func() bool { return len(q.answers(20)) == replicas })
			return nil
		}
	}
	// Overlay addresses and ids that must outlive a step.
	var before map[string]cluster.Member
	remember := func() { before = q.members("shop") }
	same := func(slots ...string) resource.TestCheckFunc {
		return func(*terraform.State) error {
			now := q.members("shop")
			for slot, old := range before {
				if now[slot].OverlayAddress != old.OverlayAddress {
					return fmt.Errorf("%s had address %s, now %s", slot, old.OverlayAddress, now[slot].OverlayAddress)
				}
			}
			for _, slot := range slots {
				if now[slot].ID != before[slot].ID || now[slot].Guest.PID != before[slot].Guest.PID {
					return fmt.Errorf("%s was touched: %+v, now %+v", slot, before[slot], now[slot])
				}
			}
			return nil
		}
	}
	replace := func(address string, untouched ...string) resource.TestStep {
		return resource.TestStep{
			PreConfig: remember, Config: q.config(2), Taint: []string{address},
			ConfigPlanChecks: onlyChange(address, plancheck.ResourceActionDestroyBeforeCreate),
			Check:            resource.ComposeTestCheckFunc(serves(2), same(untouched...)),
		}
	}
	resource.Test(t, resource.TestCase{
		ProtoV6ProviderFactories: useTerraform(t, q.layers()),
		CheckDestroy:             func(*terraform.State) error { return q.nothingLeft(noted) },
		Steps: []resource.TestStep{
			{Config: q.config(2), ConfigStateChecks: slotCheck(2), Check: serves(2)},
			{ // scale up in place; nginx knows the two that were there when it started
				PreConfig: remember, Config: q.config(3), ConfigStateChecks: slotCheck(3),
				ConfigPlanChecks: onlyChange(logicAddress, plancheck.ResourceActionUpdate),
				Check:            resource.ComposeTestCheckFunc(serves(2), same("store", "front", "logic-0", "logic-1")),
			},
			{ // down: nginx goes on with the replica that is left
				PreConfig: remember, Config: q.config(1), ConfigStateChecks: slotCheck(1),
				ConfigPlanChecks: onlyChange(logicAddress, plancheck.ResourceActionUpdate),
				Check: func(*terraform.State) error {
					delete(before, "logic-1")
					delete(before, "logic-2")
					return resource.ComposeTestCheckFunc(serves(1), same("store", "front", "logic-0"))(nil)
				},
			},
			{ // and up again
				PreConfig: remember, Config: q.config(2), ConfigStateChecks: slotCheck(2),
				ConfigPlanChecks: onlyChange(logicAddress, plancheck.ResourceActionUpdate),
				Check:            resource.ComposeTestCheckFunc(serves(2), same("store", "front", "logic-0")),
			},
			replace(storeVM, "front", "logic-0", "logic-1"),
			// nginx resolved logic once; it must reach the successors.
			replace(logicAddress, "store", "front"),
			replace(frontVM, "store", "logic-0", "logic-1"),
			{ // a changed file starts the guests again that have it
				PreConfig: func() {
					remember()
					path := filepath.Join(q.dir, "app", "app.py")
					text, err := os.ReadFile(path)
					if err == nil {
						err = os.WriteFile(path, append(text, "# changed\n"...), 0o644)
					}
					if err != nil {
						t.Fatal(err)
					}
				},
				Config: q.config(2), Check: resource.ComposeTestCheckFunc(serves(2), same("store", "front")),
				ConfigPlanChecks: onlyChange(logicAddress, plancheck.ResourceActionUpdate),
			},
			{ // a killed host is drift, and apply repairs it
				PreConfig: func() { remember(); q.killHost("shop", "store") },
				Config:    q.config(2), Check: resource.ComposeTestCheckFunc(serves(2), same("front", "logic-0", "logic-1")),
				ConfigPlanChecks: onlyChange(storeVM, plancheck.ResourceActionCreate),
			},
			{ // a killed replica is followed by another at once: no drift
				PreConfig: func() { remember(); q.killReplica("logic", "logic-1") },
				Config:    q.config(2), Check: resource.ComposeTestCheckFunc(serves(2), same("store", "front", "logic-0")),
				ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}},
			},
			{ // a killed supervisor comes back by itself: no drift, the guest goes on
				PreConfig: func() { remember(); q.killSupervisor("store") },
				Config:    q.config(2), Check: resource.ComposeTestCheckFunc(serves(2), same("store", "front", "logic-0", "logic-1")),
				ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}},
			},
		},
	})
}

func (q *quickstart) killReplica(function, slot string) {
	q.t.Helper()
	running := func() int {
		invocations, err := q.client("shop").Invocations(q.t.Context(), function)
		if err != nil {
			q.t.Fatal(err)
		}
		for _, invocation := range invocations {
			if invocation.Slot == slot && invocation.State == "running" {
				return invocation.MachinePID
			}
		}
		return 0
	}
	killed := running()
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		q.t.Fatalf("kill %s: %v", slot, err)
	}
	q.eventually(slot+" is dead", func() bool { return running() != killed })
}

func (q *quickstart) killSupervisor(slot string) {
	q.t.Helper()
	old, ok := q.supervisor("shop", slot)
	if !ok {
		q.t.Fatalf("no supervisor on %s", slot)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		q.t.Fatal(err)
	}
	q.eventually("the supervisor of "+slot+" is back", func() bool {
		pid, ok := q.supervisor("shop", slot)
		return ok && pid != old && q.members("shop")[slot].State == cluster.StateRunning
	})
}
