// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"testing"
)

const shop = "resource \"boxer_network\" \"shop\" { name = \"shop\" }\n"

func TestNetworkDefaults(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(shop)
	w.apply()
	w.emptyPlan()
	got := w.values("boxer_network.shop")
	for name, want := range map[string]any{"id": "shop", "cidr": "100.80.0.0/16", "port": 7717.0, "secret_ref": "file:/secret"} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
	wantCalls(t, f, "create network shop")
	w.destroy()
	wantCalls(t, f, "delete network shop")
}

func TestNetworkChangesReplace(t *testing.T) {
	w := newWorkspace(t, withPlatform(newFakePlatform()))
	w.configure(shop)
	w.apply()
	for _, change := range []string{`cidr = "100.90.0.0/16"`, `port = 7718`} {
		w.configure("resource \"boxer_network\" \"shop\" {\n name = \"shop\"\n " + change + "\n}")
		if got := w.planned()["boxer_network.shop"]; got != "delete,create" {
			t.Errorf("%s: planned %q, want a replacement", change, got)
		}
	}
}

func TestNetworkGoneIsDrift(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(shop)
	w.apply()
	f.change(func() { delete(f.networks, "shop") })
	if got := w.planned()["boxer_network.shop"]; got != "create" {
		t.Errorf("planned %q, want create", got)
	}
}

// State that came from another machine must neither be believed nor dropped.
func TestOtherMachine(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	w.configure(shop)
	w.apply()
	f.called()
	f.change(func() { f.machine = "elsewhere" })
	f.change(func() { delete(f.networks, "shop") })
	w.golden("other machine", w.errors("plan", "-input=false"), nil)
	w.golden("other machine destroy", w.errors("destroy", "-auto-approve", "-refresh=false", "-input=false"), nil)
	wantCalls(t, f)
	if w.values("boxer_network.shop") == nil {
		t.Error("the network was dropped from state")
	}
}
