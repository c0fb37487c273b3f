// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"archive/zip"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// look is a guest that prints what a node was configured to have, and stays. It
// listens, so that nobody waits to see whether it will.
const look = `["sh", "-c", "echo \"word=$WORD dir=$(pwd) user=$(id -un) conf=$(cat /etc/shop.conf) usr=$(cat /usr/share/shop/x) task=$(cat /var/task/say) kept=$(cat /var/tmp/kept)\"; ` +
	`(echo kept > /var/tmp/kept) 2>/dev/null; exec python3 -c 'import socket,time; s=socket.create_server((\"\",8080)); time.sleep(1000)'"]`

// says waits until the log of a slot ends with a line.
func (c *localCloud) says(slot, want string) {
	c.t.Helper()
	client := c.client("shop")
	var last string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		lines, _ := client.Tail(slot, 1)
		if last = strings.Join(lines, "\n"); last == want {
			return
		}
	}
	c.t.Errorf("%s says\n%s\nwant\n%s", slot, last, want)
}

// pack makes a zip of one file.
func pack(t *testing.T, path, name, content string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z := zip.NewWriter(file)
	entry, err := z.Create(name)
	if err == nil {
		_, err = entry.Write([]byte(content))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// change is one of several, each on top of those before it.
type change struct {
	name, more string
	says       string // what its guest prints then; "": it is not started again
}

// TestAccUpdates changes everything that can be changed of a VM node and of a
// function node, in place.
func TestAccUpdates(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.write("app/say", "hello")
	pack(t, filepath.Join(w.dir, "app.zip"), "say", "hello")
	source := "source_dir = \"" + w.dir + "/app\"\n"
	vmOf := func(more string) string { return c.block() + shop + vm("store", look, more) }
	w.configure(vmOf(source))
	w.apply()
	w.emptyPlan()
	c.says("store", "word= dir=/ user=boxer conf= usr= task=hello kept=")
	first := c.members("shop")["store"]
	host := c.host("shop", "store")

	environment := "environment = { WORD = \"one\" }\n"
	files := "files = { \"/etc/shop.conf\" = \"c\", \"/usr/share/shop/x\" = \"u\" }\n"
	dir, user := "working_dir = \"/tmp\"\n", "user = \"www-data\"\n"
	zipped := "package = \"" + w.dir + "/app.zip\"\n"
	says := func(word, dir, user, conf, task string) string {
		usr := ""
		if conf != "" {
			usr = "u"
		}
		return fmt.Sprintf("word=%s dir=%s user=%s conf=%s usr=%s task=%s kept=kept", word, dir, user, conf, usr, task)
	}
	all := environment + files + dir + user
	restarted := says("one", "/tmp", "www-data", "c", "hello")
	for _, step := range []change{
		{"environment, files, working_dir and user", source + all, restarted},
		{"package of the same", zipped + all, ""},
		{"restart, wait_for, remap, transports and service", zipped + all + `restart = "on-failure"
			wait_for = { nodes = 1 }
			remap = { "/a" = "/b" }
			transports = ["relay", "direct"]
			service = "shop"
			`, restarted},
		{"publish", zipped + all + fmt.Sprintf("wait_for_ready = false\npublish = [{ port = 80, host_port = %d, cidrs = [\"127.0.0.0/8\"] }]\n", freePort(t)), restarted},
		{"tags and timeouts", zipped + all + "tags = { team = \"shop\" }\ntimeouts = { update = \"90s\" }\n", restarted},
		{"only tags", zipped + all + "tags = { team = \"store\" }\n", ""},
		{"nothing", source, says("", "/", "boxer", "", "hello")},
	} {
		t.Run("vm "+step.name, func(t *testing.T) {
			w.t, c.t = t, t
			before := c.members("shop")["store"]
			w.configure(vmOf(step.more))
			if planned := w.planned(); planned[storeVM] != "update" || planned[network] != "no-op" {
				t.Fatalf("planned %v", planned)
			}
			w.must("apply", "-input=false", "-no-color", "plan.bin")
			w.emptyPlan()
			now := c.members("shop")["store"]
			if now.ID != first.ID || now.OverlayAddress != first.OverlayAddress || c.host("shop", "store").PID != host.PID {
				t.Errorf("another node: %+v, was %+v", now, first)
			}
			if (now.Guest.PID == before.Guest.PID) != (step.says == "") {
				t.Errorf("guest %d, was %d", now.Guest.PID, before.Guest.PID)
			}
			if step.says != "" {
				c.says("store", step.says)
			}
		})
	}
	w.t, c.t = t, t

	w.write("app/say", "changed")
	if planned := w.planned(); planned[storeVM] != "update" {
		t.Errorf("a changed file: planned %v", planned)
	}
	w.apply()
	c.says("store", says("", "/", "boxer", "", "changed"))
	updateFunction(t, c, w, files)

	noted := c.processes()
	w.configure(c.block())
	w.apply()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

func updateFunction(t *testing.T, c *localCloud, w *workspace, files string) {
	functionOf := func(more string) {
		w.configure(c.block() + shop + function("logic", look, "desired_count = 2\n"+more))
	}
	source := "source_dir = \"" + w.dir + "/app\"\n"
	functionOf(source)
	w.apply()
	w.emptyPlan()
	says := "word=%s dir=/var/task user=sbx_user1051 conf=%s usr=%s task=%s kept="
	c.says("logic-1", fmt.Sprintf(says, "", "", "", "changed"))
	for _, step := range []change{
		{"all that VM nodes have too", source + "environment = { WORD = \"two\" }\n" + files + `working_dir = "/tmp"
			restart = "on-failure"
			wait_for = { nodes = 1 }
			remap = { "/a" = "/b" }
			transports = ["relay", "direct"]
			service = "brain"
			`, strings.Replace(fmt.Sprintf(says, "two", "c", "u", "changed"), "dir=/var/task", "dir=/tmp", 1)},
		{"memory, storage and timeout", source + "memory_size = 256\nephemeral_storage = 600\ntimeout = 800\n", fmt.Sprintf(says, "", "", "", "changed")},
		{"only tags", source + "memory_size = 256\nephemeral_storage = 600\ntimeout = 800\ntags = { team = \"logic\" }\n", ""},
		{"no source", "", fmt.Sprintf(says, "", "", "", "")},
	} {
		t.Run("function "+step.name, func(t *testing.T) {
			w.t, c.t = t, t
			before := c.members("shop")
			functionOf(step.more)
			if planned := w.planned(); planned[logicAddress] != "update" || planned[network] != "no-op" {
				t.Fatalf("planned %v", planned)
			}
			w.must("apply", "-input=false", "-no-color", "plan.bin")
			w.emptyPlan()
			now := c.members("shop")
			for _, slot := range []string{"logic-0", "logic-1"} {
				if now[slot].OverlayAddress != before[slot].OverlayAddress {
					t.Errorf("%s had address %s, now %s", slot, before[slot].OverlayAddress, now[slot].OverlayAddress)
				}
				if (now[slot].ID == before[slot].ID) != (step.says == "") {
					t.Errorf("%s was node %d, now %d", slot, before[slot].ID, now[slot].ID)
				}
				if step.says != "" {
					c.says(slot, step.says)
				}
			}
		})
	}
	w.t, c.t = t, t
}

// What cannot be changed in place is made anew: a network with all of its nodes,
// nodes without touching the others. TestEveryAttribute knows what that is.
func TestAccReplacements(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	config := func(network, store, logic string) {
		w.configure(c.block() + "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  " + network + "\n}\n" +
			strings.Replace(vm("store", idle, ""), `name       = "store"`, `name       = "`+store+`"`, 1) +
			strings.Replace(function("logic", idle, ""), `name       = "logic"`, `name       = "`+logic+`"`, 1) + vm("front", idle, ""))
	}
	replaces := func(want map[string]string) map[string]cluster.Member {
		t.Helper()
		if diff := cmp.Diff(want, w.planned()); diff != "" {
			t.Errorf("planned: (-want +got)\n%s", diff)
		}
		w.must("apply", "-input=false", "-no-color", "plan.bin")
		w.emptyPlan()
		return c.members("shop")
	}
	config("", "store", "logic")
	w.apply()
	const secret = "secret_wo = \"0123456789abcdef\"\n  secret_wo_version = 1\n  port = 7718\n  cidr = \"100.90.0.0/16\""
	config(secret, "store", "logic")
	before := replaces(map[string]string{network: replaced, storeVM: replaced, logicAddress: replaced, frontVM: replaced})
	for slot, member := range before {
		if !strings.HasPrefix(member.OverlayAddress.String(), "100.90.") || member.State != cluster.StateRunning {
			t.Errorf("%s: %+v", slot, member)
		}
	}
	config(secret, "depot", "reason")
	after := replaces(map[string]string{network: unseen, storeVM: replaced, logicAddress: replaced, frontVM: unseen})
	if got := strings.Join(slices.Sorted(maps.Keys(after)), " "); got != "depot front reason-0 seed-0" {
		t.Errorf("nodes %s", got)
	}
	if after["front"].ID != before["front"].ID || after["front"].Guest.PID != before["front"].Guest.PID {
		t.Errorf("front was touched: %+v, was %+v", after["front"], before["front"])
	}
	info, err := c.store().Network("shop")
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := os.ReadFile(info.SecretFile); err != nil || string(secret) != "0123456789abcdef\n" {
		t.Errorf("the secret is %q, %v", secret, err)
	}
	for _, name := range []string{"terraform.tfstate", "plan.bin"} {
		if data, err := os.ReadFile(filepath.Join(w.dir, name)); err != nil || strings.Contains(string(data), "0123456789abcdef") {
			t.Errorf("%s: %v, or the secret is in it", name, err)
		}
	}
	w.destroy()
}

// What somebody else removed is made again, what he changed is changed back, and
// what is gone needs no destroying.
func TestAccDisappears(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + idleStore + vm("front", idle, "") + function("logic", idle, ""))
	w.apply()
	before := c.members("shop")
	plans := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(map[string]string{network: want[0], storeVM: want[1], frontVM: want[2], logicAddress: want[3]}, w.planned()); diff != "" {
			t.Errorf("planned: (-want +got)\n%s", diff)
		}
	}
	client, front := c.client("shop"), c.host("shop", "front")
	front.Config.Env = map[string]string{"BY": "hand"}
	_, changed := client.UpdateHost(t.Context(), localcloud.HostSpec{Config: front.Config, KeepSource: true})
	if err := errors.Join(client.DeleteHost(t.Context(), "store"), client.DeleteFunction(t.Context(), "logic"), changed); err != nil {
		t.Fatal(err)
	}
	plans(unseen, "create", inPlace, "create")
	w.apply()
	w.emptyPlan()
	for slot, member := range c.members("shop") {
		if member.OverlayAddress != before[slot].OverlayAddress || member.State != cluster.StateRunning {
			t.Errorf("%s: %+v, was %+v", slot, member, before[slot])
		}
	}
	noted := c.processes()
	if err := c.store().DeleteNetwork(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	plans("create", "create", "create", "create")
	w.must("destroy", "-auto-approve", "-no-color", "-input=false", "-refresh=false")
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

// What was declared of a function that somebody has deleted is forgotten when there is
// one of that name again: the controller would launch it beside Terraform.
func TestAccDeletedFunctionIsForgotten(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	w.configure(c.block() + shop + function("logic", idle, "desired_count = 1"))
	w.apply()
	p, client := newLocalPlatform(c.dir, nil), c.client("shop")
	was, err := p.Function(t.Context(), "shop", "logic")
	if err != nil || was.Kept == nil {
		t.Fatalf("%+v, %v", was, err)
	}
	if err := client.DeleteFunction(t.Context(), "logic"); err != nil {
		t.Fatal(err)
	}
	was.Spec.Network, was.Spec.Name = "shop", "logic"
	if err := p.CreateFunction(t.Context(), was.Spec); err != nil {
		t.Fatal(err)
	}
	err = launch.Control(t.Context(), client.Info(), controller.MethodView, controller.Order{Name: "logic"}, nil)
	if !errors.Is(err, controller.ErrNotDeclared) {
		t.Errorf("the controller says %v of it", err)
	}
}

// A failed update is proposed again, even if the configuration goes back to what
// the state has.
func TestAccFailedUpdate(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	works := c.block() + idleStore + function("logic", idle, "desired_count = 2")
	w.configure(works)
	w.apply()
	before := c.members("shop")
	w.configure(strings.ReplaceAll(works, idle, `["no-such-program"]`))
	found := w.errors(applying...)
	w.golden("node/update failed", found, map[string]string{c.dir: "STATE", "logic-1": "logic-0"})
	w.configure(works)
	if planned := w.planned(); planned[storeVM] != "update" || planned[logicAddress] != "update" {
		t.Errorf("planned %v", planned)
	}
	w.apply()
	w.emptyPlan()
	for slot, member := range c.members("shop") {
		if member.OverlayAddress != before[slot].OverlayAddress || member.State != cluster.StateRunning {
			t.Errorf("%s: %+v, was %+v", slot, member, before[slot])
		}
	}
	// What can fail before the guest is touched does not touch it.
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	running := c.members("shop")["store"].Guest.PID
	w.configure(strings.Replace(works, "command ", fmt.Sprintf("publish = [{ port = 8080, host_port = %d }]\n  command ", port), 1))
	w.golden("node/update occupied port", w.errors(applying...), map[string]string{c.dir: "STATE"})
	if now := c.members("shop")["store"].Guest.PID; now != running {
		t.Errorf("the guest was %d, is %d", running, now)
	}
	// Half-way and then destroyed.
	w.configure(strings.ReplaceAll(works, idle, `["no-such-program"]`))
	w.errors(applying...)
	noted := c.processes()
	w.destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}

// A published port takes connections from where cidrs say.
func TestAccPublishCIDRs(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	open, closed := freePort(t), freePort(t)
	const serve = `["python3", "-c", "import socket,threading\ndef run(p):\n s=socket.create_server(('',p))\n while 1: s.accept()[0].sendall(b'hi')\nthreading.Thread(target=run,args=(80,)).start()\nrun(81)"]`
	w.configure(c.block() + shop + vm("store", serve, fmt.Sprintf("publish = [\n{ port = 80, host_port = %d, cidrs = [\"10.0.0.0/8\", \"127.0.0.1/32\"] },\n{ port = 81, host_port = %d, cidrs = [\"10.0.0.0/8\"] }]", open, closed)))
	w.apply()
	for port, want := range map[int]string{open: "hi", closed: ""} {
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if want == "" && errors.Is(err, syscall.ECONNRESET) {
			continue // before connect returned
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		answer := make([]byte, 8)
		n, err := conn.Read(answer)
		if string(answer[:n]) != want || (err == nil) != (want != "") {
			t.Errorf("port %d: %q, %v", port, answer[:n], err)
		}
		conn.Close()
	}
	w.destroy()
}

func TestPackageHash(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/b/c", "a.b", "a/b.c", "z"} {
		path := filepath.Join(dir, "tree", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.Create(dir + "/a.zip")
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(file)
	if err := z.AddFS(os.DirFS(filepath.Join(dir, "tree"))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	packed, err := packageHash(dir + "/a.zip")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := sourceHash(filepath.Join(dir, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := unpack(dir + "/a.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(unpacked)
	again, err := sourceHash(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{plain, plain}, []string{packed, again}); diff != "" {
		t.Error(diff)
	}
}
