// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/types"
)

const threeSeeds = "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  seed = { count = 3 }\n}\n"

func TestNetworkSeeds(t *testing.T) {
	f := newFakePlatform()
	w := newWorkspace(t, withPlatform(f))
	for _, one := range []string{shop, "resource \"boxer_network\" \"shop\" {\n name = \"shop\"\n seed = {}\n}\n"} {
		w.configure(one)
		w.apply()
		w.emptyPlan()
		if got := w.values("boxer_network.shop")["seed"]; fmt.Sprint(got) != "map[count:1 ingress_cidrs:<nil> instance_type:<nil> subnet_id:<nil>]" {
			t.Errorf("%s: seed = %v", one, got)
		}
	}
	w.configure(threeSeeds)
	if got := w.planned()["boxer_network.shop"]; got != "delete,create" {
		t.Errorf("another number of seeds: planned %q, want a replacement", got)
	}
	w.apply()
	w.emptyPlan()
	if got := w.values("boxer_network.shop")["seed_endpoints"]; len(got.([]any)) != 3 {
		t.Errorf("seed_endpoints = %v", got)
	}
}

// TestSeedsOfAnotherArchitecture: no disk of a seed boots on other processors.
func TestSeedsOfAnotherArchitecture(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.configure(shop)
	w.apply()
	w.emptyPlan()
	for instance, want := range map[string]string{"t4g.nano": "no-op", "m7g.medium": "update", "t3.nano": "delete,create"} {
		w.configure(fmt.Sprintf("resource \"boxer_network\" \"shop\" {\n name = \"shop\"\n seed = { instance_type = %q }\n}\n", instance))
		if got := w.planned()["boxer_network.shop"]; got != want {
			t.Errorf("%s: planned %q, want %q", instance, got, want)
		}
	}
}

// Networks of an earlier version have one seed, and are not replaced for that.
func TestStateWithoutSeedsMeansOne(t *testing.T) {
	if got := seedCount(types.ObjectNull(seedTypes)); got != 1 {
		t.Errorf("no word of seeds means %d", got)
	}
}

// TestAccThreeSeeds: nothing is planned anew because a seed died, and nodes are
// made without it.
func TestAccThreeSeeds(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + threeSeeds + vm("store", idle, ""))
	w.apply()
	w.emptyPlan()
	if hosts := c.hosts("shop"); !slices.Equal(hosts, []string{"seed-0", "seed-1", "seed-2", "store"}) {
		t.Errorf("hosts: %q", hosts)
	}
	store := w.values("boxer_vm_node.store")
	config := c.block() + threeSeeds + vm("store", idle, "")
	for _, seed := range []string{"seed-0", "seed-1", "seed-2"} { // whoever leads
		c.killHost("shop", seed)
		w.emptyPlan()
		config += vm("after-"+seed, idle, "")
		w.configure(config)
		w.apply()
		if got := w.values("boxer_vm_node.store"); fmt.Sprint(got) != fmt.Sprint(store) {
			t.Errorf("without %s the node\n%v became\n%v", seed, store, got)
		}
		c.eventually(seed+" is back", func() bool { return c.host("shop", seed).MachinePID > 1 })
	}
	noted := c.processes()
	w.destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}
