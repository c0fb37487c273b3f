// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestAccImport imports every resource into an empty state and expects the very
// state that creating it made, and no change.
func TestAccImport(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	block := strings.Replace(c.block(), "{\n", "{\n  default_tags = { owner = \"ops\" }\n", 1)
	port := freePort(t)
	w.write("app/a", "a")
	config := block + `resource "boxer_network" "shop" {
  name = "shop"
  cidr = "100.81.0.0/16"
  port = 7718
  tags = { tier = "test" }
  secret_wo         = "0123456789abcdef"
  secret_wo_version = 3
}
` + vm("store", idle, `source_dir = "`+w.dir+`/app"
  service     = "db"
  environment = { A = "1" }
  files       = { "/etc/shop.conf" = "x" }
  remap       = { "/a" = "/b" }
  working_dir = "/tmp"
  user        = "www-data"
  restart     = "always"
  wait_for    = { nodes = 1 }
  transports  = ["native", "relay"]
  wait_for_ready = false
  tags        = { team = "store" }
  publish     = [{ port = 80, host_port = `+fmt.Sprint(port)+`, cidrs = ["127.0.0.0/8"] }]`) +
		function("logic", idle, `desired_count = 2
  memory_size       = 256
  ephemeral_storage = 600
  timeout           = 800
  environment       = { B = "2" }`)
	w.configure(config)
	w.apply()
	w.emptyPlan()
	addresses := map[string]string{network: "shop", storeVM: "shop,store", logicAddress: "shop,logic"}
	made := map[string]map[string]any{}
	for address := range addresses {
		made[address] = w.values(address)
	}
	// What says how Terraform works is not on the node, nor is where its files came from.
	made[storeVM]["wait_for_ready"], made[storeVM]["source_dir"] = true, nil
	for _, name := range []string{"terraform.tfstate", "terraform.tfstate.backup"} {
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	for address, id := range addresses {
		w.must("import", "-no-color", "-input=false", address, id)
		if diff := cmp.Diff(made[address], w.values(address)); diff != "" {
			t.Errorf("%s: made and imported differ:\n%s", address, diff)
		}
	}
	if planned := w.planned(); planned[network] != "no-op" || planned[storeVM] != "update" || planned[logicAddress] != "no-op" {
		t.Errorf("planned %v: want only wait_for_ready and source_dir to differ", planned)
	}
	before := c.members("shop")
	w.apply()
	w.emptyPlan()
	if diff := cmp.Diff(before["store"].Guest.PID, c.members("shop")["store"].Guest.PID); diff != "" {
		t.Errorf("the guest was started again: %s", diff)
	}
	noted := c.processes()
	w.destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

func TestAccImportErrors(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + idleStore + function("logic", idle, ""))
	// terraform import knows no -json.
	fails := func(name, address, id string) {
		t.Helper()
		out, status := w.run("import", "-no-color", "-input=false", address, id)
		if status == 0 {
			t.Errorf("%s: imported", name)
		}
		w.golden("import/"+name, []diagnostic{{Severity: "text", Detail: out[max(0, strings.Index(out, "Error:")):]}}, map[string]string{c.dir: "STATE"})
	}
	fails("no network", network, "shop")
	fails("network name", network, "My Shop")
	w.must("apply", "-auto-approve", "-input=false", "-target="+network)
	fails("no vm", storeVM, "shop,store")
	fails("no function", logicAddress, "shop,logic")
	fails("no comma", storeVM, "store")
	fails("seed", storeVM, "shop,seed-0")
	w.destroy()
}

// What cannot be asked is not gone: a daemon that hangs is a warning, and
// nothing is made again.
func TestAccHangingDaemon(t *testing.T) {
	c := newCloud(t)
	w := c.workspace(func(p *boxerProvider) { p.patience = 2 * time.Second })
	w.configure(c.block() + idleStore)
	w.apply()
	info, err := c.store().Network("shop")
	if err != nil {
		t.Fatal(err)
	}
	held := append(descendants(info.PID), info.PID)
	signal := func(sig syscall.Signal) {
		for _, pid := range held {
			_ = syscall.Kill(pid, sig)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT)
	out, status := w.run("plan", "-detailed-exitcode", "-input=false", "-json")
	signal(syscall.SIGCONT)
	found := diagnosticsIn(out)
	if status != 0 || len(found) != 1 || found[0].Severity != "warning" || !strings.Contains(found[0].Detail, "its daemon does not answer") {
		t.Errorf("status %d: %v", status, found)
	}
	w.emptyPlan()
	w.destroy()
}

// Two networks of one state directory know nothing of each other, and are made
// and removed by applies that run at the same time.
func TestAccTwoNetworks(t *testing.T) {
	c := newCloud(t)
	places := map[string]*workspace{"shop": c.workspace(), "mall": c.workspace()}
	for name, w := range places {
		cidr := map[string]string{"shop": "100.82.0.0/16", "mall": "100.83.0.0/16"}[name]
		w.configure(c.block() + strings.ReplaceAll(idleStore, `{ name = "shop" }`, "{\n name = \""+name+"\"\n cidr = \""+cidr+"\"\n}"))
		w.must("init", "-input=false")
	}
	both := func(args ...string) {
		t.Helper()
		results := make(chan string, len(places))
		for name, w := range places {
			go func() {
				out, status := w.run(args...)
				if status != 0 {
					results <- name + ": " + out
				} else {
					results <- ""
				}
			}()
		}
		for range places {
			if out := <-results; out != "" {
				t.Error(out)
			}
		}
	}
	both("apply", "-auto-approve", "-no-color", "-input=false")
	shop, mall := c.members("shop")["store"], c.members("mall")["store"]
	if shop.OverlayAddress.String() != "100.82.0.2" || mall.OverlayAddress.String() != "100.83.0.2" {
		t.Errorf("addresses %s and %s", shop.OverlayAddress, mall.OverlayAddress)
	}
	both("plan", "-detailed-exitcode", "-no-color", "-input=false")
	noted := c.processes()
	both("destroy", "-auto-approve", "-no-color", "-input=false")
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

// Two configurations add nodes to one network at the same time.
func TestAccTwoPlacesOneNetwork(t *testing.T) {
	c := newCloud(t)
	owner := c.workspace()
	owner.configure(c.block() + shop)
	owner.apply()
	guests := []*workspace{c.workspace(), c.workspace()}
	done := make(chan string, len(guests))
	for i, w := range guests {
		name := fmt.Sprintf("node%c", 'a'+i)
		w.configure(c.block() + strings.ReplaceAll(vm(name, idle, ""), "boxer_network.shop.id", `"shop"`) +
			strings.ReplaceAll(function(name+"f", idle, ""), "boxer_network.shop.id", `"shop"`))
		w.must("init", "-input=false")
		go func() {
			out, status := w.run("apply", "-auto-approve", "-no-color", "-input=false")
			if status == 0 {
				out = ""
			}
			done <- out
		}()
	}
	for range guests {
		if out := <-done; out != "" {
			t.Error(out)
		}
	}
	for _, w := range guests {
		w.emptyPlan()
		w.destroy()
	}
	owner.emptyPlan()
	owner.destroy()
}
