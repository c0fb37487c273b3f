// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// apply arguments of a terraform that must fail.
var applying = []string{"apply", "-auto-approve", "-input=false"}

// idle is the command of a guest that does nothing but listen: nobody waits to see
// whether it will.
const idle = `["memcached", "-p", "8080", "-t", "1"]`

func vm(name, command, more string) string {
	return fmt.Sprintf("resource \"boxer_vm_node\" \"%s\" {\n  network_id = boxer_network.shop.id\n  name       = \"%s\"\n  command    = %s\n  %s\n}\n",
		name, name, command, more)
}

func function(name, command, more string) string {
	return strings.Replace(vm(name, command, more), "boxer_vm_node", "boxer_function_node", 1)
}

// TestAccNodeFailures: every failure names cause and remedy, and nothing is
// left half-made.
func TestAccNodeFailures(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port

	const dies = `["sh", "-c", "echo opening the shop; echo no shop here >&2; exit 3"]`
	// Which of several replicas is the first to fail is a matter of chance.
	cases := []struct{ name, config string }{
		{"vm unknown command", vm("store", `["no-such-program"]`, "")},
		{"vm command not executable", vm("store", `["/etc/passwd"]`, "")},
		{"vm guest ends", vm("store", dies, "")},
		{"vm guest ends well", vm("store", `["true"]`, "")},
		{"vm occupied port", vm("store", idle, fmt.Sprintf("publish = [{ port = 80, host_port = %d }]", port))},
		{"function unknown command", function("logic", `["no-such-program"]`, "desired_count = 2")},
		{"function guest ends", function("logic", dies, "")},
	}
	w.configure(c.block() + shop)
	w.apply()
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			w.t, c.t = t, t
			w.configure(c.block() + shop + test.config)
			started := time.Now()
			w.golden("node/"+test.name, w.errors(applying...), map[string]string{c.dir: "STATE", "logic-1": "logic-0"})
			if took := time.Since(started); took > 30*time.Second {
				t.Errorf("it took %s to notice", took)
			}
			c.onlySeed("shop")
			if w.values("boxer_vm_node.store") != nil || w.values(logicAddress) != nil {
				t.Error("the node that does not exist is in the state")
			}
		})
	}
	w.t, c.t = t, t
	noted := c.processes()
	w.destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

// A node that somebody started by hand keeps its name.
func TestAccTakenName(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop)
	w.apply()
	client := c.client("shop")
	starter := &launch.Launcher{Network: client.Info(), Client: client}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wants []launch.Want
	for _, slot := range []string{"store", "logic-0"} {
		want := launch.Want{Slot: slot, Token: launch.Token()}
		node := config.Node{Version: config.Version, Network: "shop", Kind: config.KindVM, Slot: slot, LaunchToken: want.Token, Argv: []string{"memcached", "-p", "8080", "-t", "1"}}
		if _, err := starter.VM(ctx, node, ""); err != nil {
			t.Fatal(err)
		}
		wants = append(wants, want)
	}
	if _, err := starter.Wait(ctx, wants); err != nil {
		t.Fatal(err)
	}
	hasty := c.workspace(func(p *boxerProvider) { p.patience = 6 * time.Second })
	hasty.dir = w.dir
	hasty.configure(c.block() + shop + function("logic", idle, ""))
	hasty.golden("node/taken slot", hasty.errors(applying...), map[string]string{c.dir: "STATE"})
	w.configure(c.block() + shop + vm("store", idle, ""))
	w.golden("node/taken name", w.errors(applying...), map[string]string{c.dir: "STATE"})
	for _, want := range wants {
		if got := c.host("shop", want.Slot); got.LaunchID != launchID(want) || got.State != "running" {
			t.Errorf("the holder was touched: %+v", got)
		}
	}
	if err := client.DeleteHost(ctx, "store"); err != nil {
		t.Fatal(err)
	}
	w.apply() // the name is free now
	w.destroy()
}

// A barrier that is never met ends the wait with what is missing.
func TestAccWaitForNeverMet(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop + vm("front", idle, "wait_for = { logic = 2 }\n timeouts = { create = \"8s\" }"))
	w.golden("node/wait for never met", w.errors(applying...), map[string]string{c.dir: "STATE"})
	c.onlySeed("shop")
	w.destroy()
}

// Ctrl-C ends the wait, and what was begun is taken back; also if terraform is
// killed, and nobody hears of it.
func TestAccInterrupted(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop)
	w.apply()
	w.configure(c.block() + shop + vm("front", idle, "wait_for = { logic = 2 }"))
	w.must("init", "-input=false")
	for _, signal := range []os.Signal{os.Interrupt, os.Kill} {
		var out bytes.Buffer
		apply := w.command(append(applying, "-json")...)
		apply.Stdout, apply.Stderr = &out, &out
		if err := apply.Start(); err != nil {
			t.Fatal(err)
		}
		c.eventually("the host exists", func() bool { return slices.Contains(c.hosts("shop"), "front") })
		if err := apply.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		if err := apply.Wait(); err == nil {
			t.Error("the interrupted apply succeeded")
		}
		if took := time.Since(started); took > 30*time.Second {
			t.Errorf("it took %s to end", took)
		}
		if signal == os.Interrupt && !strings.Contains(out.String(), "interrupted before the guest ran: context canceled") {
			t.Errorf("got %v", diagnosticsIn(out.String()))
		}
		if signal == os.Kill {
			c.eventually("the host is gone", func() bool { return !slices.Contains(c.hosts("shop"), "front") })
		}
		c.onlySeed("shop")
		if w.values(frontVM) != nil {
			t.Error("the node that does not exist is in the state")
		}
	}
	w.destroy()
}

// With its seed dead a network admits nobody: say so, and leave nothing.
func TestAccDeadSeed(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + idleStore)
	w.apply()
	noted := c.processes()
	c.killHost("shop", "seed-0")
	stop := c.keepDead("shop", "seed-0")
	w.emptyPlan() // an unreachable seed is not drift
	w.configure(c.block() + idleStore + vm("front", idle, ""))
	w.golden("node/dead seed", w.errors(applying...), map[string]string{c.dir: "STATE"})
	if w.values("boxer_vm_node.store") == nil || w.values("boxer_vm_node.front") != nil {
		t.Error("the state should hold store, and not front")
	}
	stop()
	w.destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

// A seed whose supervisor was killed is back in a moment: an apply waits for it.
func TestAccSeedSupervisorKilled(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + idleStore)
	w.apply()
	pid, ok := c.supervisor("shop", "seed-0")
	if !ok {
		t.Fatal("the seed has no supervisor")
	}
	w.configure(c.block() + idleStore + vm("front", idle, ""))
	w.must("init", "-input=false")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.apply()
	w.emptyPlan()
	w.destroy()
}

var idleStore = shop + vm("store", idle, "")

// A daemon that died took its hosts and replicas along: they are drift, the
// network and the function are not.
func TestAccDeadDaemon(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + idleStore + function("logic", idle, ""))
	w.apply()
	address := w.values(logicAddress)["overlay_addresses"]
	c.killDaemon()
	planned := w.planned()
	if planned[network] != "no-op" || planned[storeVM] != "create" || planned[logicAddress] != "update" {
		t.Errorf("planned %v", planned)
	}
	if info, err := c.store().Network("shop"); err != nil || info.Alive {
		t.Errorf("plan started the daemon again: %v", err)
	}
	w.apply()
	w.emptyPlan()
	if now := w.values(logicAddress)["overlay_addresses"]; fmt.Sprint(now) != fmt.Sprint(address) {
		t.Errorf("logic had address %v, now %v", address, now)
	}
	noted := c.processes()
	c.killDaemon() // and destroyed without looking first
	w.must("destroy", "-auto-approve", "-no-color", "-input=false", "-refresh=false")
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

func TestAccNetworkExists(t *testing.T) {
	c := newCloud(t)
	first := c.workspace()
	first.configure(c.block() + shop)
	first.apply()
	second := c.workspace()
	second.configure(c.block() + shop)
	second.golden("network/exists", second.errors(applying...), map[string]string{c.dir: "STATE"})
	first.emptyPlan() // untouched
	first.destroy()
	second.apply()
	second.destroy()
}

// Two applies of one configuration from two places: one makes the network, the
// other is told that it exists.
func TestAccTwoAppliesAtOnce(t *testing.T) {
	c := newCloud(t)
	places := []*workspace{c.workspace(), c.workspace()}
	outputs, statuses := make([]string, len(places)), make([]int, len(places))
	for _, w := range places {
		w.configure(c.block() + idleStore)
		w.must("init", "-input=false")
	}
	var wait sync.WaitGroup
	for i, w := range places {
		wait.Go(func() { outputs[i], statuses[i] = w.run(append(applying, "-json")...) })
	}
	wait.Wait()
	winner, loser := 0, 1
	if statuses[0] != 0 {
		winner, loser = 1, 0
	}
	if statuses[winner] != 0 || statuses[loser] == 0 {
		t.Fatalf("want one to succeed: %v\n%s\n%s", statuses, outputs[0], outputs[1])
	}
	places[loser].golden("network/two applies", diagnosticsIn(outputs[loser]), map[string]string{c.dir: "STATE"})
	places[winner].emptyPlan()
	noted := c.processes()
	places[winner].destroy()
	places[loser].destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

// Two applies in one place: terraform's own lock stops the second.
func TestAccTwoAppliesInOnePlace(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + idleStore)
	w.must("init", "-input=false")
	first := w.command(append(applying, "-no-color")...)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	c.eventually("the state is locked", func() bool { return exists(filepath.Join(w.dir, ".terraform.tfstate.lock.info")) })
	found := w.errors(applying...)
	if len(found) != 1 || found[0].Summary != "Error acquiring the state lock" {
		t.Errorf("got %v", found)
	}
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	w.emptyPlan()
	w.destroy()
}

func TestAccCorruptLayer(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"truncated": func(zip []byte) []byte { return zip[:len(zip)/2] },
		"altered": func(zip []byte) []byte {
			// The checksum of the last entry, in the zip's central directory.
			zip[bytes.LastIndex(zip, []byte("PK\x01\x02"))+16] ^= 0xff
			return zip
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			c.zip = damage(c.zip)
			w := c.workspace()
			w.configure(c.block() + shop)
			w.golden("network/layer "+name, w.errors(applying...), map[string]string{c.dir: "STATE"})
			if err := c.nothingLeft(nil); err != nil {
				t.Error(err)
			}
			if w.values(network) != nil {
				t.Error("the network that does not exist is in the state")
			}
		})
	}
}

func TestAccMissingLayer(t *testing.T) {
	c := newCloud(t)
	w := newWorkspace(t, WithLayers(New("test")().(*boxerProvider).layers)) // of this test binary: none
	w.configure(c.block() + shop)
	w.golden("network/layer missing", w.errors(applying...), map[string]string{c.dir: "STATE"})
}

func TestAccStateDirectory(t *testing.T) {
	cases := map[string]func(t *testing.T, dir string){
		"is a file": func(t *testing.T, dir string) {
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"unwritable": func(t *testing.T, dir string) { mountTmpfs(t, dir, "size=1m", syscall.MS_RDONLY) },
		"full": func(t *testing.T, dir string) {
			mountTmpfs(t, dir, "size=64k", 0)
			fill(t, filepath.Join(dir, "ballast"))
		},
		"of another user": func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("only root may give a directory away")
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(dir, 12345, 12345); err != nil {
				t.Fatal(err)
			}
		},
		"too small": func(t *testing.T, dir string) { mountTmpfs(t, dir, "size=1m", 0) },
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			dir := filepath.Join(c.dir, "state")
			prepare(t, dir)
			w := c.workspace()
			w.configure(fmt.Sprintf("provider \"boxer\" {\n  local = { state_dir = %q }\n}\n", dir) + shop)
			w.golden("network/state directory "+name, w.errors(applying...), map[string]string{dir: "STATE"})
			if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) > 1 || len(found) == 1 && filepath.Base(found[0]) != "ballast" {
				t.Errorf("left behind: %v", found)
			}
			if w.values(network) != nil {
				t.Error("the network that does not exist is in the state")
			}
		})
	}
}

// mountTmpfs needs root; an ordinary user sees what file modes can do.
func mountTmpfs(t *testing.T, dir, options string, flags uintptr) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may mount the small file system that this case needs")
	}
	if err := syscall.Mount("boxer-test", dir, "tmpfs", flags, "mode=0700,"+options); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for chunk := make([]byte, 4096); err == nil; {
		_, err = file.Write(chunk)
	}
}
