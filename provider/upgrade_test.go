// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"os"
	"testing"
)

// A state that the first provider stored, read by this one, proposes nothing:
// neither what it did not know yet nor its older version replaces a node.
func TestStateOfAnEarlierVersion(t *testing.T) {
	f := newFakePlatform()
	f.networks["shop"] = networkStatus{
		CIDR: "100.80.0.0/16", Port: 7717, SeedEndpoints: []string{"127.0.0.1:7"}, SecretRef: "file:/secret", RuntimeVersion: "sha256-0123456789ab",
	}
	f.vms["store"] = vmStatus{LaunchID: "0123456789ab"}
	f.functions["logic"] = &fakeFunction{running: map[string]int{"logic-0": 0}, kept: &policy{Count: 1}}
	w := newWorkspace(t, withPlatform(f))
	w.configure(shop + `resource "boxer_vm_node" "store" {
  network_id = boxer_network.shop.id
  name       = "store"
  command    = ["redis-server"]
  wait_for   = { nodes = 1 }
  transports = ["native"]
  publish    = [{ port = 80, host_port = 8080 }]
}
` + function("logic", `["python3"]`, "desired_count = 1"))
	state, err := os.ReadFile("testdata/state-v0.json")
	if err != nil {
		t.Fatal(err)
	}
	w.write("terraform.tfstate", string(state))
	w.must("init", "-input=false")
	for address, action := range w.planned() {
		if action != "no-op" && (address != network || action != "update") {
			t.Errorf("%s: planned %q", address, action)
		}
	}
	// Once applied, all is said.
	w.apply()
	w.emptyPlan()
	wantCalls(t, f)
	if got := w.values(logicAddress)["ephemeral_storage"]; got != 512.0 {
		t.Errorf("ephemeral_storage = %v", got)
	}
	if got := w.values(storeVM); got["restart"] != "no" || got["wait_for_ready"] != true || got["service"] != "store" {
		t.Errorf("store: %v", got)
	}

	// Without a number it had one; now it is the controller's, which is told.
	f.change(func() { f.functions["logic"].kept = nil }) // that version had none
	w.configure(shop + function("logic", `["python3"]`, ""))
	if got := w.planned("-target=" + logicAddress)[logicAddress]; got != "update" {
		t.Errorf("without desired_count: planned %q", got)
	}
}
