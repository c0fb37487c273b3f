// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// places is a file of every sort, by what is there already.
var places = map[string]string{
	"/etc/shop.conf":           "etc",                 // nothing, in the host's own directory
	"/etc/shop/deep/a.conf":    "deep",                // no directory either
	"/etc/hosts":               "127.0.0.1 hosts",     // the host's own
	"/etc/services":            "shop 1/tcp services", // the machine's
	"/etc/mtab":                "mtab",                // a link
	"/usr/share/shop.txt":      "usr",                 // nothing, in the machine's directory
	"/usr/lib/shop/b":          "lib",
	"/usr/lib/c":               "above",
	"/var/lib/shop/state":      "var",
	"/var/task/beside.txt":     "task",
	"/bin/shop-tool":           "bin", // below a link, where the machine has merged them
	"/opt/shop/settings.ini":   "opt",
	"/tmp/shop.tmp":            "tmp",
	"/usr/share/doc/shop/note": "doc",
}

func showPlaces() string {
	var script strings.Builder
	for name := range places {
		fmt.Fprintf(&script, "echo \"%s=$(cat %s)\"; ", name, name)
	}
	return script.String() + "ls /usr/share | wc -l; stat -c 'mode=%a' /etc/shop.conf; (echo x >/usr/share/more) 2>/dev/null && echo writable; echo the-end;"
}

func checkPlaces(t *testing.T, text string) {
	t.Helper()
	for name, content := range places {
		if !strings.Contains(text, name+"="+content+"\n") {
			t.Errorf("%s is not %q", name, content)
		}
	}
	if !strings.Contains(text, "mode=644\n") || strings.Contains(text, "writable") {
		t.Error(text)
	}
	if t.Failed() {
		t.Log(text)
	}
	for _, name := range []string{"/etc/shop.conf", "/usr/share/shop.txt", "/usr/lib/c"} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s is on the machine itself", name)
		}
	}
}

func TestFilesAndUpdate(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "shop")
	t.Run("files on a VM", func(t *testing.T) { tryFilesVM(t, c) })
	t.Run("files on a function", func(t *testing.T) { tryFilesFunction(t, c) })
	t.Run("user", func(t *testing.T) { tryUser(t, c) })
	t.Run("update", func(t *testing.T) { tryUpdate(t, c) })
	t.Run("update publish", func(t *testing.T) { tryUpdatePublish(t, c) })
	t.Run("update function", func(t *testing.T) { tryUpdateFunction(t, c) })
	t.Run("refused", func(t *testing.T) { tryRefusedUpdates(t, c) })
}

func tryFilesVM(t *testing.T, c *Client) {
	n := config.Node{Network: "shop", Slot: "files", Files: places, Argv: []string{"sh", "-c", showPlaces() + "exec sleep 1000"}}
	if _, err := c.CreateHost(testContext(t), HostSpec{Config: n}); err != nil {
		t.Fatal(err)
	}
	checkPlaces(t, output(t, c, "files", "the-end"))

	// Another set, in place: what is not in it any more is as it was.
	n.Files = map[string]string{"/etc/shop.conf": "changed"}
	n.Argv = []string{"sh", "-c", "cat /etc/shop.conf; echo; for f in /etc/shop/deep /etc/shop /usr/share/shop.txt /usr/lib/c /var/lib/shop /bin/shop-tool " +
		"/var/task/beside.txt; do test -e $f && echo still-there $f; done; readlink /etc/mtab; head -1 /etc/hosts; grep -c ssh /etc/services; echo second-end; exec sleep 1000"}
	if _, err := c.UpdateHost(testContext(t), HostSpec{Config: n, KeepSource: true}); err != nil {
		t.Fatal(err)
	}
	text := output(t, c, "files", "second-end")
	_, text, _ = strings.Cut(text, "the-end\n")
	services, _ := os.ReadFile("/etc/services")
	want := fmt.Sprintf("changed\n/proc/self/mounts\n127.0.0.1 localhost\n%d\nsecond-end", countLines(string(services), "ssh"))
	if text != want {
		t.Errorf("after the change:\n%s\nwant\n%s", text, want)
	}
}

func countLines(text, word string) (n int) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			n++
		}
	}
	return n
}

func tryFilesFunction(t *testing.T, c *Client) {
	testFunction(t, c, FunctionSpec{Name: "filed"})
	n := c.FunctionConfig(config.Node{Slot: "filed-0", Files: places, Argv: []string{"sh", "-c", showPlaces()}})
	payload, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.Invoke(testContext(t), "filed", payload)
	if err != nil {
		t.Fatal(err)
	}
	if i := ended(t, c, "filed", id); i.State != InvocationSucceeded {
		t.Errorf("%+v", i)
	}
	checkPlaces(t, output(t, c, "filed-0", "the-end"))
}

func tryUser(t *testing.T, c *Client) {
	for user, want := range map[string]string{"www-data": "33 www-data www-data", "4711": "4711 user4711 user4711"} {
		slot := "as-" + user
		_, err := c.CreateHost(testContext(t), HostSpec{Config: config.Node{Network: "shop", Slot: slot, User: user,
			Argv: []string{"sh", "-c", "echo $(id -u) $(id -un) $USER; touch /var/lib/mine && echo the-end; exec sleep 1000"}}})
		if err != nil {
			t.Fatal(err)
		}
		if text := output(t, c, slot, "the-end"); !strings.HasPrefix(text, want+"\n") {
			t.Errorf("user %s: %q, want %q", user, text, want)
		}
	}
	for user, want := range map[string]string{"root": "ordinary user", "nobody-knows": "no such account"} {
		_, err := c.CreateHost(testContext(t), HostSpec{Config: config.Node{Network: "shop", Slot: "refused", User: user, Argv: []string{"true"}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("user %s: %v", user, err)
		}
	}
}

// tryUpdate: what the guest wrote, its address and its process namespace stay;
// its command, environment, user and source are the new ones.
func tryUpdate(t *testing.T, c *Client) {
	source := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(source, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "one")
	n := config.Node{Network: "shop", Slot: "updated", LaunchToken: "token",
		Argv: []string{"sh", "-c", "echo kept >/var/lib/kept; (sleep 1000 & ); cat /var/task/a; echo; echo first-end; exec sleep 1000"}}
	before, err := c.CreateHost(testContext(t), HostSpec{Config: n, SourceDir: source, CodeSHA256: "1", Tags: map[string]string{"team": "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	output(t, c, "updated", "first-end")
	write("b", "two")
	if err := os.Remove(filepath.Join(source, "a")); err != nil {
		t.Fatal(err)
	}
	n.LaunchToken = ""
	n.User = "www-data"
	n.Argv = []string{"sh", "-c", "id -un; cat /var/lib/kept; ls /var/task; pgrep -c -x sleep; echo second-end; exec sleep 1000"}
	after, err := c.UpdateHost(testContext(t), HostSpec{Config: n, SourceDir: source, CodeSHA256: "2"})
	if err != nil {
		t.Fatal(err)
	}
	text := output(t, c, "updated", "second-end")
	if want := "one\nfirst-end\nwww-data\nkept\nb\n0\nsecond-end"; text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if after.UnderlayAddress != before.UnderlayAddress || after.PID != before.PID || after.LaunchID != before.LaunchID || after.State != HostRunning {
		t.Errorf("another host: %+v, was %+v", after, before)
	}
	if after.Config.User != "www-data" || after.CodeSHA256 != "2" || after.Tags != nil || after.Config.LaunchToken != "" {
		t.Errorf("%+v", after)
	}
	// Nothing to restart for: the guest goes on.
	n.LaunchToken = ""
	if _, err := c.UpdateHost(testContext(t), HostSpec{Config: n, KeepSource: true, Tags: map[string]string{"team": "x"}}); err != nil {
		t.Fatal(err)
	}
	if now := output(t, c, "updated", "second-end"); now != text {
		t.Errorf("the guest was started again for nothing: %q", now)
	}
	if err := c.DeleteHost(testContext(t), "updated"); err != nil {
		t.Fatal(err)
	}
}

func tryUpdatePublish(t *testing.T, c *Client) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	one, two := freeTestPort(t), freeTestPort(t)
	n := config.Node{Network: "shop", Slot: "published", Argv: []string{boxerInVM, "serve", "9000", "5"}, Publish: []config.Publish{{Port: 9000, HostPort: one}}}
	if _, err := c.CreateHost(testContext(t), HostSpec{Config: n}); err != nil {
		t.Fatal(err)
	}
	listens := func(port int) bool {
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
	// A port that is taken: the guest is not touched.
	bad := n
	bad.Publish = []config.Publish{{Port: 9000, HostPort: taken.Addr().(*net.TCPAddr).Port}}
	if _, err := c.UpdateHost(testContext(t), HostSpec{Config: bad, KeepSource: true}); err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("got %v", err)
	}
	if !listens(one) {
		t.Error("the old port is closed")
	}
	n.Publish = append(n.Publish, config.Publish{Port: 9001, HostPort: two})
	if _, err := c.UpdateHost(testContext(t), HostSpec{Config: n, KeepSource: true}); err != nil {
		t.Fatal(err)
	}
	if !listens(one) || !listens(two) {
		t.Errorf("open: %d %v, %d %v", one, listens(one), two, listens(two))
	}
	n.Publish = n.Publish[1:]
	if _, err := c.UpdateHost(testContext(t), HostSpec{Config: n, KeepSource: true}); err != nil {
		t.Fatal(err)
	}
	if listens(one) || !listens(two) {
		t.Errorf("open: %d %v, %d %v", one, listens(one), two, listens(two))
	}
}

func freeTestPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func tryUpdateFunction(t *testing.T, c *Client) {
	source := t.TempDir()
	write := func(content string) {
		if err := os.WriteFile(filepath.Join(source, "say"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	testFunction(t, c, FunctionSpec{Name: "up", SourceDir: source, Config: &config.Node{Argv: []string{"true"}, LaunchToken: "secret"}})
	old := invoke(t, c, "up", "up-0", "sh", "-c", "echo ready; while ! grep -q go /tmp/go 2>/dev/null; do sleep 0.05; test -e /var/task/say || exit 7; done")
	output(t, c, "up-0", "ready")
	write("two")
	f, err := c.UpdateFunction(testContext(t), FunctionSpec{Name: "up", SourceDir: source, MemoryMB: 256, Config: &config.Node{Argv: []string{"sh"}}, CodeSHA256: "x"})
	if err != nil || f.Revision != 1 || f.MemoryMB != 256 || f.CodeSHA256 != "x" || f.Config.Argv[0] != "sh" || f.Config.LaunchToken != "" {
		t.Fatalf("%+v %v", f, err)
	}
	id := invoke(t, c, "up", "up-1", "sh", "-c", "cat /var/task/say; echo; echo the-end")
	ended(t, c, "up", id)
	if text := output(t, c, "up-1", "the-end"); !strings.HasPrefix(text, "two\n") {
		t.Errorf("the next invocation sees %q", text)
	}
	if i := findInvocation(t, c, "up", old); i.State != InvocationRunning || i.Revision != 0 {
		t.Errorf("the one under way: %+v", i)
	}
	if err := c.StopInvocation(testContext(t), "up", "up-0"); err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob(c.dir.join("functions", "up", "source*"))
	if len(found) != 1 || filepath.Base(found[0]) != "source-1" {
		t.Errorf("sources left: %v", found)
	}
	if _, err := c.UpdateFunction(testContext(t), FunctionSpec{Name: "nobody"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func tryRefusedUpdates(t *testing.T, c *Client) {
	for _, test := range []struct {
		node config.Node
		want string
	}{
		{config.Node{Network: "shop", Slot: "seed-0", Argv: []string{"true"}}, "is a seed of the network"},
		{config.Node{Network: "shop", Slot: "nobody", Argv: []string{"true"}}, "not found"},
		{config.Node{Network: "shop", Slot: "kept"}, "no command"},
		{config.Node{Network: "shop", Slot: "kept", Argv: []string{"true"}, User: "root"}, "ordinary user"},
	} {
		if test.node.Slot == "kept" {
			if _, err := c.Host(testContext(t), "kept"); err != nil {
				vm(t, c, "kept", nil, "sleep", "1000")
			}
		}
		_, err := c.UpdateHost(testContext(t), HostSpec{Config: test.node, KeepSource: true})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.node.Slot, err, test.want)
		}
	}
	// A file that cannot be placed says so, and no host is left.
	for path, want := range map[string]string{"/etc": "a directory of that name", "/etc/passwd/x": "is a file", "/proc/x": "belongs to the node"} {
		_, err := c.CreateHost(testContext(t), HostSpec{Config: config.Node{Network: "shop", Slot: "odd", Argv: []string{"true"}, Files: map[string]string{path: ""}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := c.Host(testContext(t), "odd"); !errors.Is(err, ErrNotFound) {
		t.Errorf("left: %v", err)
	}
}
