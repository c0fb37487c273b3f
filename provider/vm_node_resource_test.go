// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"os"
	"testing"
)

const storeConfig = shop + `resource "boxer_vm_node" "store" {
  network_id = boxer_network.shop.id
  name       = "store"
  command    = ["redis-server"]
}
`

func TestVMNodeDefaults(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(storeConfig)
	w.apply()
	w.emptyPlan()
	got := w.values("boxer_vm_node.store")
	for name, want := range map[string]any{"id": "shop,store", "service": "store", "code_sha256": nil} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
	if ids := got["node_ids"].([]any); len(ids) != 1 || ids[0] != 3.0 {
		t.Errorf("node_ids = %v, want [3]", ids)
	}
	if addresses := got["overlay_addresses"].([]any); len(addresses) != 1 || addresses[0] != "100.80.0.3" {
		t.Errorf("overlay_addresses = %v, want [100.80.0.3]", addresses)
	}
	w.destroy()
	wantCalls(t, f, "create network shop", "start vm store", "delete vm store", "delete network shop")
}

func TestVMNodeFailureIsUndone(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(storeConfig)
	f.change(func() { f.await = errGuest })
	w.golden("guest failed", w.errors("apply", "-auto-approve", "-input=false"), nil)
	wantCalls(t, f, "create network shop", "start vm store", "delete vm store")
	if w.values("boxer_vm_node.store") != nil {
		t.Error("the node that does not exist is in the state")
	}
	if w.values("boxer_network.shop") == nil {
		t.Error("the network that exists is not in the state")
	}
}

// When the clean-up fails as well, the node must stay known, so that destroy
// can remove it.
func TestVMNodeFailureThatCannotBeUndone(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(storeConfig)
	f.change(func() { f.await, f.deletion = errGuest, errDisk })
	w.golden("guest failed and stays", w.errors("apply", "-auto-approve", "-input=false"), nil)
	if w.values("boxer_vm_node.store") == nil {
		t.Fatal("the node that is left was forgotten")
	}
	f.change(func() { f.await, f.deletion = nil, nil })
	f.called()
	w.destroy()
	wantCalls(t, f, "delete vm store", "delete network shop")
	if len(f.vms)+len(f.networks) != 0 {
		t.Errorf("left: %v %v", f.vms, f.networks)
	}
}

func TestVMNodeGoneIsDrift(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(storeConfig)
	w.apply()
	f.change(func() { delete(f.vms, "store") })
	if got := w.planned(); got["boxer_vm_node.store"] != "create" || got["boxer_network.shop"] != "no-op" {
		t.Errorf("planned %v", got)
	}
	w.apply()
	w.emptyPlan()

	// Another host of the same name is not the one this state describes.
	f.change(func() { f.vms["store"] = vmStatus{LaunchID: "someone else's"} })
	if got := w.planned()["boxer_vm_node.store"]; got != "create" {
		t.Errorf("planned %q, want create", got)
	}
}

func TestSourceChanges(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	config := func(dir string) {
		w.configure(shop + `resource "boxer_vm_node" "store" {
  network_id = boxer_network.shop.id
  name       = "store"
  source_dir = "` + w.dir + "/" + dir + `"
  command    = ["redis-server"]
}
`)
	}
	w.write("app/a.conf", "one")
	w.write("moved/a.conf", "one")
	config("app")
	w.apply()
	w.emptyPlan()

	w.write("app/a.conf", "two")
	if got := w.planned()["boxer_vm_node.store"]; got != "update" {
		t.Errorf("changed file: planned %q, want an update", got)
	}
	w.write("app/a.conf", "three")
	w.golden("source changed after plan", w.errors("apply", "-input=false", "plan.bin"), nil)

	w.write("app/a.conf", "one")
	w.apply()
	f.called()
	config("moved")
	if got := w.planned()["boxer_vm_node.store"]; got != "update" {
		t.Errorf("moved directory: planned %q, want an update", got)
	}
	w.apply()
	w.emptyPlan()
	wantCalls(t, f, "update vm store") // of the same, which touches nothing

	config("nowhere")
	w.golden("source moved to nowhere", w.errors("plan", "-input=false"), nil)

	// Destroying does not need the files.
	config("moved")
	if err := os.RemoveAll(w.dir + "/moved"); err != nil {
		t.Fatal(err)
	}
	w.emptyPlan()
	w.destroy()
}
