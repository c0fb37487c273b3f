// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// TestAccDataSources: one network as another configuration sees it, by name and
// with the nodes that run in it.
func TestAccDataSources(t *testing.T) {
	c := newCloud(t)
	var noted []string
	nodes := c.block() + shop +
		vm("store", idle, `service = "goods"`) + function("logic", idle, "desired_count = 2")
	const after = "\n  depends_on = [boxer_vm_node.store, boxer_function_node.logic]\n}\n"
	look := `data "boxer_network" "shop" {` + "\n  name = boxer_network.shop.id" + after +
		`data "boxer_nodes" "all" {` + "\n  network_id = data.boxer_network.shop.id" + after +
		`data "boxer_nodes" "goods" {` + "\n  network_id = boxer_network.shop.id\n  service = \"goods\"" + after +
		`data "boxer_nodes" "functions" {` + "\n  network_id = boxer_network.shop.id\n  kind = \"function\"\n  state = \"running\"" + after +
		`data "boxer_nodes" "lost" {` + "\n  network_id = boxer_network.shop.id\n  state = \"lost\"" + after
	text := func(pattern string) knownvalue.Check { return knownvalue.StringRegexp(regexp.MustCompile(pattern)) }
	store := knownvalue.ObjectExact(map[string]knownvalue.Check{
		"id": knownvalue.Int64Func(func(id int64) error {
			if id < 2 {
				return fmt.Errorf("%d is the seed's or nobody's", id)
			}
			return nil
		}),
		"name": knownvalue.StringExact("store"), "service": knownvalue.StringExact("goods"), "slot": knownvalue.StringExact("store"),
		"kind": knownvalue.StringExact("vm"), "state": knownvalue.StringExact("running"), "nat": knownvalue.StringExact("none"),
		"overlay_address": text(`^100\.80\.0\.\d+$`), "underlay_address": text(`^\d+\.\d+\.\d+\.\d+:7717$`),
		"site": text(`.`), "version": text(`.`), "since": text(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`),
		"guest": knownvalue.ObjectExact(map[string]knownvalue.Check{
			"state": knownvalue.StringExact("running"), "pid": knownvalue.NotNull(),
			"exit_code": knownvalue.Null(), "restarts": knownvalue.Int64Exact(0),
		}),
	})
	list := tfjsonpath.New("nodes")
	resource.Test(t, resource.TestCase{
		ProtoV6ProviderFactories: useTerraform(t, c.layers()),
		CheckDestroy:             func(*terraform.State) error { return c.nothingLeft(noted) },
		Steps: []resource.TestStep{
			{
				Config: nodes + look,
				ConfigStateChecks: []statecheck.StateCheck{
					statecheck.ExpectKnownValue("data.boxer_network.shop", tfjsonpath.New("cidr"), knownvalue.StringExact("100.80.0.0/16")),
					statecheck.ExpectKnownValue("data.boxer_network.shop", tfjsonpath.New("port"), knownvalue.Int64Exact(7717)),
					statecheck.ExpectKnownValue("data.boxer_network.shop", tfjsonpath.New("layer_arns"), knownvalue.ListSizeExact(0)),
					statecheck.ExpectKnownValue("data.boxer_network.shop", tfjsonpath.New("secret_ref"), text("^file:"+regexp.QuoteMeta(c.dir))),
					statecheck.ExpectKnownValue("data.boxer_network.shop", tfjsonpath.New("seed_endpoints"), knownvalue.ListExact([]knownvalue.Check{text(`^127\.0\.0\.1:\d+$`)})),
					statecheck.ExpectKnownValue("data.boxer_nodes.all", list, knownvalue.ListSizeExact(4)), // with the seed
					statecheck.ExpectKnownValue("data.boxer_nodes.all", list.AtSliceIndex(0).AtMapKey("slot"), knownvalue.StringExact("seed-0")),
					statecheck.ExpectKnownValue("data.boxer_nodes.goods", list, knownvalue.ListExact([]knownvalue.Check{store})),
					statecheck.ExpectKnownValue("data.boxer_nodes.functions", list, knownvalue.ListSizeExact(2)),
					statecheck.ExpectKnownValue("data.boxer_nodes.functions", list.AtSliceIndex(0).AtMapKey("nat"), knownvalue.StringExact("behind")),
					statecheck.ExpectKnownValue("data.boxer_nodes.lost", list, knownvalue.ListSizeExact(0)),
				},
				Check: func(*terraform.State) error { noted = c.processes(); return nil },
			},
			{ // looking at a network changes nothing
				Config:           nodes + look,
				ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}},
			},
		},
	})
}

const lookAtShop = "data \"boxer_nodes\" \"all\" { network_id = \"shop\" }\n"

// A network whose daemon died has no members, and looking does not start it.
func TestAccNodesOfStoppedNetwork(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop)
	w.apply()
	c.killDaemon()
	w.configure(c.block() + lookAtShop + "output \"count\" { value = length(data.boxer_nodes.all.nodes) }\n")
	w.must("apply", "-refresh-only", "-auto-approve", "-input=false", "-no-color")
	if got := w.must("output", "-raw", "count"); got != "0" {
		t.Errorf("%s members, want none", got)
	}
	if info, err := c.store().Network("shop"); err != nil || info.Alive {
		t.Errorf("looking started the network (%v)", err)
	}
	w.configure(c.block() + shop)
	w.destroy()
}

// A seed that does not answer is an error: an empty list would be a lie.
func TestAccNodesSilentSeed(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop)
	w.apply()
	info, err := c.store().Network("shop")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(info.SecretFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(info.SecretFile, []byte("not the secret of this network\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.configure(c.block() + lookAtShop)
	w.golden("data/nodes wrong secret", w.errors("plan", "-input=false"), map[string]string{c.dir: "STATE"})
	if err := os.WriteFile(info.SecretFile, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	w.configure(c.block() + shop)
	w.destroy()
}

func TestDataSourceErrors(t *testing.T) {
	newWorkspace(t, withPlatform(newFakePlatform())).refuses("data", map[string]string{
		"network missing": `data "boxer_network" "other" { name = "other" }`,
		"network name":    `data "boxer_network" "other" { name = "No Name" }`,
		"nodes missing":   `data "boxer_nodes" "other" { network_id = "other" }`,
		"nodes kind":      "data \"boxer_nodes\" \"other\" {\n  network_id = \"other\"\n  kind = \"pod\"\n}",
		"nodes state":     "data \"boxer_nodes\" \"other\" {\n  network_id = \"other\"\n  state = \"left\"\n}",
		"nodes service":   "data \"boxer_nodes\" \"other\" {\n  network_id = \"other\"\n  service = \"\"\n}",
	})
}

// What a member does not have is null, and not an empty or a zero value.
func TestDescribe(t *testing.T) {
	exit := 3
	full := describe(cluster.Member{
		ID: 7, Slot: "a", OverlayAddress: netip.MustParseAddr("100.80.0.7"), UnderlayAddress: netip.MustParseAddrPort("10.0.0.7:7717"),
		Since: time.Unix(0, 0), Guest: cluster.Guest{State: cluster.GuestExited, ExitCode: &exit, Restarts: 2},
	})
	got := fmt.Sprint(full.UnderlayAddress, full.Guest.State, full.Guest.PID, full.Guest.ExitCode, full.Guest.Restarts, full.Since)
	if want := `"10.0.0.7:7717" "exited" <null> 3 2 "1970-01-01T00:00:00Z"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seed := describe(cluster.Member{ID: 1, Slot: "seed-0"})
	got = fmt.Sprint(seed.UnderlayAddress, seed.Guest.State, seed.Guest.PID, seed.Guest.ExitCode, seed.Guest.Restarts)
	if want := `<null> <null> <null> <null> 0`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
