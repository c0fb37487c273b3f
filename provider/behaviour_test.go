// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What cannot be asked now is a warning, and the state stays.
func TestUnreachableIsNoDrift(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(storeConfig + function("logic", `["python3"]`, ""))
	w.apply()
	f.change(func() {
		f.look = fmt.Errorf("%w: network \"shop\": its daemon does not answer: see cloud.log", errUnreachable)
	})
	out, status := w.run("plan", "-detailed-exitcode", "-input=false", "-json")
	if status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
	w.golden("unreachable", diagnosticsIn(out), nil)
}

// What a network could not have is a warning when it is made, and no other time.
func TestPlainProcessesAreAWarning(t *testing.T) {
	f := newFakePlatform()
	f.notice = "this system denies user namespaces"
	w := newWorkspace(t, withPlatform(f))
	w.configure(storeConfig)
	out, status := w.run("apply", "-auto-approve", "-input=false", "-json")
	if status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
	w.golden("plain-processes", diagnosticsIn(out), nil)
	if out, status = w.run("plan", "-input=false", "-json"); status != 0 || len(diagnosticsIn(out)) != 0 {
		t.Errorf("a plan afterwards, status %d: %s", status, out)
	}
}

func TestTags(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	config := func(defaults, tags string) {
		w.configure("provider \"boxer\" {\n  default_tags = " + defaults + "\n}\nresource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  tags = " + tags + "\n}\n" +
			vm("store", `["redis-server"]`, "tags = "+tags) + function("logic", `["python3"]`, "tags = "+tags))
	}
	has := func(want map[string]any) {
		t.Helper()
		w.apply()
		w.emptyPlan()
		for _, address := range []string{network, storeVM, logicAddress} {
			if diff := cmp.Diff(want, w.values(address)["tags_all"]); diff != "" {
				t.Errorf("%s: %s", address, diff)
			}
		}
	}
	config(`{ owner = "ops", team = "shop" }`, `{ team = "store", owner = "ops" }`)
	has(map[string]any{"owner": "ops", "team": "store"})
	if diff := cmp.Diff(map[string]string{"owner": "ops", "team": "store"}, f.vms["store"].Spec.Tags); diff != "" {
		t.Error(diff)
	}
	f.called()
	config(`{ owner = "dev" }`, "{}")
	has(map[string]any{"owner": "dev"})
	config("{}", "null")
	if planned := w.planned(); planned[network] != "update" || planned[storeVM] != "update" || planned[logicAddress] != "update" {
		t.Errorf("planned %v", planned)
	}
	has(map[string]any{})
	wantCalls(t, f, "update network shop", "update vm store", "update function logic", "update network shop", "update vm store", "update function logic")
	// Tags that somebody else gave are drift, those of the defaults are not.
	config(`{ owner = "ops" }`, `{ team = "store" }`)
	has(map[string]any{"owner": "ops", "team": "store"})
	f.change(func() {
		status := f.networks["shop"]
		status.Tags = maps.Clone(status.Tags)
		status.Tags["by-hand"] = "yes"
		f.networks["shop"] = status
	})
	if planned := w.planned(); planned[network] != "update" {
		t.Errorf("planned %v", planned)
	}
	has(map[string]any{"owner": "ops", "team": "store"})
}

// The secret goes to the platform, and to neither plan nor state.
func TestSecretIsWriteOnly(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	config := func(secret string, version int) {
		w.configure(fmt.Sprintf("resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  secret_wo = %q\n  secret_wo_version = %d\n}\n", secret, version))
	}
	const secret, other = "the-secret-of-shop", "another-one-of-shop"
	config(secret, 1)
	planned := w.planned()
	if planned[network] != "create" {
		t.Errorf("planned %v", planned)
	}
	w.must("apply", "-input=false", "plan.bin")
	if f.secret != secret {
		t.Errorf("the platform has %q", f.secret)
	}
	config(other, 1) // a change that nobody can see
	w.emptyPlan()
	config(other, 2)
	if planned := w.planned(); planned[network] != "delete,create" {
		t.Errorf("planned %v", planned)
	}
	w.apply()
	if f.secret != other {
		t.Errorf("the platform has %q", f.secret)
	}
	for _, name := range []string{"plan.bin", "terraform.tfstate"} {
		data, err := os.ReadFile(w.dir + "/" + name)
		if err != nil || strings.Contains(string(data), secret) || strings.Contains(string(data), other) {
			t.Errorf("%s: %v, or it holds the secret", name, err)
		}
	}
}

// Another version of the provider changes nothing by itself.
func TestRuntimeVersionIsPinned(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(storeConfig)
	w.apply()
	if got := w.values(network)["runtime_version"]; got != "test" {
		t.Errorf("runtime_version = %v", got)
	}
	newer := func(b *boxerProvider) { b.version = "newer" }
	upgraded := newWorkspace(t, withPlatform(f), newer)
	upgraded.dir = w.dir
	upgraded.emptyPlan()

	// Who asks for another one is told how to get it, and gets it that way.
	written := strings.Replace(storeConfig, `{ name = "shop" }`, "{\n  name            = \"shop\"\n  runtime_version = \"newer\"\n}", 1)
	upgraded.configure(written)
	upgraded.golden("replace/runtime version", upgraded.errors("plan", "-input=false"), nil)
	upgraded.configure(storeConfig)
	if planned := upgraded.planned("-replace=" + network); planned[network] != "delete,create" || planned[storeVM] != "delete,create" {
		t.Errorf("planned %v", planned)
	}
	upgraded.must("apply", "-input=false", "-no-color", "plan.bin")
	upgraded.configure(written)
	upgraded.emptyPlan()
}

// Without waiting for the guest an apply ends when the node is there.
func TestWaitForReady(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(shop + vm("store", `["redis-server"]`, "wait_for_ready = false"))
	w.apply()
	w.emptyPlan()
	if !f.waited["store"].JoinOnly {
		t.Errorf("it waited for the guest: %+v", f.waited)
	}
	w.configure(shop + vm("store", `["redis-server"]`, ""))
	f.called()
	w.apply()
	wantCalls(t, f, "update vm store")
}

// The next plan after a failed update proposes it again, even if the state says
// what the configuration does.
func TestUnfinishedUpdate(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	before := shop + vm("store", `["redis-server"]`, "") + function("logic", `["python3"]`, "desired_count = 2")
	w.configure(before)
	w.apply()
	w.configure(strings.ReplaceAll(before, "\"]", "\", \"--wrong\"]"))
	f.change(func() { f.await = errGuest })
	w.errors(applying...)
	f.change(func() { f.await = nil })
	w.configure(before)
	if planned := w.planned(); planned[storeVM] != "update" || planned[logicAddress] != "update" {
		t.Errorf("planned %v", planned)
	}
	f.called()
	w.apply()
	w.emptyPlan()
	// The controller has launched logic-0 again meanwhile: it keeps as many as there were.
	wantCalls(t, f, "update vm store again", "release logic", "update function logic", "stop logic-0", "start logic-0", "stop logic-1", "start logic-1", "keep 2 of logic")
}

// An update that fails at the second of three replicas leaves a state that says
// what there is: the first is another node now, the second does not run, the
// third goes on as it was.
func TestUpdateThatFailsHalfWay(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	before := shop + function("logic", `["python3"]`, "desired_count = 3")
	w.configure(before)
	w.apply()
	f.called()
	ids := func() []any {
		var found []any
		for _, slot := range []string{"logic-0", "logic-1", "logic-2"} {
			found = append(found, float64(f.members[slot].ID))
		}
		return found
	}
	was := ids()
	after := strings.ReplaceAll(before, "\"]", "\", \"-u\"]")
	w.configure(after)
	f.change(func() { f.await, f.failing = errGuest, "logic-1" })
	w.errors(applying...)
	wantCalls(t, f, "release logic", "update function logic", "stop logic-0", "start logic-0", "stop logic-1", "start logic-1", "stop logic-1",
		"keep 3 of logic")
	state := w.values(logicAddress)
	now := ids()
	if diff := cmp.Diff(now, state["node_ids"]); diff != "" || now[0] == was[0] || now[1] != was[1] || state["running_count"] != 2.0 {
		t.Errorf("ids were %v, are %v; state: %v", was, now, state)
	}
	f.change(func() { f.await = nil })
	w.apply()
	w.emptyPlan()
	if diff := cmp.Diff(ids(), w.values(logicAddress)["node_ids"]); diff != "" {
		t.Error(diff)
	}
	w.destroy()
}
