// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cli is a network with a few nodes that the command line's tests share.
type cli struct {
	*world
	task string
}

// TestCLI drives every verb of the command line.
func TestCLI(t *testing.T) {
	c := &cli{world: newWorld(t)}
	c.task = filepath.Join(filepath.Dir(c.state), "task")
	if err := os.CopyFS(c.task, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	c.network(t, "cli")
	t.Run("client", c.client)
	t.Run("client signals", c.clientSignals)
	t.Run("foreground", c.foreground)
	t.Run("foreground signals", c.foregroundSignals)
	t.Run("detach and count", c.detachAndCount)
	t.Run("names", c.names)
	t.Run("host name", c.hostName)
	t.Run("wait for", c.waitFor)
	t.Run("nodes json", c.nodesJSON)
	t.Run("logs", c.logs)
	t.Run("stop", c.stop)
	t.Run("publish", c.publish)
}

func (c *cli) client(t *testing.T) {
	for _, want := range []int{0, 7, 255} {
		if r := c.run(t, "run", "--", "sh", "-c", fmt.Sprintf("exit %d", want)); r.code != want || r.stdout != "" {
			t.Errorf("want exit %d without output: %s", want, r)
		}
	}
	if r := c.run(t, "run", "--", "no-such-program"); r.code != 127 {
		t.Errorf("want 127 for a program that does not exist: %s", r)
	}
	if r := c.run(t, "run", "--", "/etc/passwd"); r.code != 126 {
		t.Errorf("want 126 for a file that is not executable: %s", r)
	}
	if r := c.run(t, "run", "--", "sh", "-c", "kill -9 $$"); r.code != 128+9 {
		t.Errorf("want 137 for a program that was killed: %s", r)
	}
	input := strings.Repeat("some lines of input, and what\n", 20000)
	if r := c.runIn(t, quick, []byte(input), "run", "--", "tr", "a-z", "A-Z"); r.code != 0 || r.stdout != strings.ToUpper(input) {
		t.Errorf("input through a pipe: %d bytes came back of %d: exit %d, %s", len(r.stdout), len(input), r.code, clip(r.stderr))
	}
	r := c.run(t, "run", "-e", "GREETING=hello world", "-e", "EMPTY=", "--", "sh", "-c", "echo \"$GREETING|${EMPTY-unset}\"; echo to stderr >&2")
	if r.stdout != "hello world|\n" || !strings.Contains(r.stderr, "to stderr\n") {
		t.Errorf("environment and the two outputs: %s", r)
	}
}

func (c *cli) clientSignals(t *testing.T) {
	for sig, name := range map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGINT: "INT", syscall.SIGHUP: "HUP", syscall.SIGUSR1: "USR1"} {
		b := c.begin(t, "run", "--", "sh", "-c", "trap 'echo got "+name+"; exit 7' "+name+"; echo ready; while :; do sleep 0.05; done")
		b.says(t, "ready\n")
		if err := b.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := b.end(t, 30*time.Second); code != 7 || b.stdout.String() != "ready\ngot "+name+"\n" {
			t.Errorf("SIG%s: exit %d, stdout %q, stderr %q", name, code, b.stdout.String(), b.stderr.String())
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} { // before its guest runs
		b := c.begin(t, "run", "--name", "early", "--wait-for", "nobody=1", "--", "true")
		c.node(t, "early", 30*time.Second, "waits", func(n node) bool { return n.Guest.State == "waiting" })
		if err := b.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := b.end(t, 30*time.Second); code != 128+int(sig) {
			t.Errorf("%v at the barrier: exit %d; stderr %q", sig, code, b.stderr.String())
		}
	}
	b := c.begin(t, "run", "--", "sh", "-c", "echo ready; exec sleep 600")
	b.says(t, "ready\n")
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := b.end(t, 30*time.Second); code != 128+15 {
		t.Errorf("a guest that dies of SIGTERM: exit %d, want 143; stderr %q", code, b.stderr.String())
	}
}

func (c *cli) foreground(t *testing.T) {
	for _, kind := range []string{"vm", "function"} {
		r := c.run(t, "run", "--kind", kind, "-e", "WORD=spoken", "--source-dir", c.task, "--", "sh", "-c",
			"echo out $WORD; echo err >&2; test -f /var/task/tick.py || echo no task; exit 5")
		if r.code != 5 || !strings.Contains(r.stdout, "out spoken\n") || !strings.Contains(r.stdout+r.stderr, "err\n") || strings.Contains(r.stdout, "no task") {
			t.Errorf("%s: %s", kind, r)
		}
		if r := c.run(t, "run", "--kind", kind, "--", "true"); r.code != 0 {
			t.Errorf("%s: %s", kind, r)
		}
		if r := c.run(t, "run", "--kind", kind, "--", "no-such-program"); r.code != 127 {
			t.Errorf("%s: want 127: %s", kind, r)
		}
		if r := c.run(t, "run", "--kind", kind, "--", "/etc/passwd"); r.code != 126 {
			t.Errorf("%s: want 126: %s", kind, r)
		}
		c.onlySeed(t)
	}
	r := c.run(t, "run", "--kind", "function", "--", "sh", "-c",
		"id -u; touch /tmp/x && echo tmp; touch /var/task/x 2>/dev/null || echo task is read-only; touch /x 2>/dev/null || echo root is read-only")
	if want := "993\ntmp\ntask is read-only\nroot is read-only\n"; r.stdout != want {
		t.Errorf("function sandbox: want %q: %s", want, r)
	}
}

// onlySeed: whatever ran in the foreground has left nothing.
func (c *cli) onlySeed(t *testing.T) {
	t.Helper()
	eventually(t, 30*time.Second, "only the seed is left", func() (bool, string) {
		all := c.nodes(t)
		_, ok := all["seed-0"]
		return ok && len(all) == 1, fmt.Sprintf("%+v", all)
	})
}

func (c *cli) foregroundSignals(t *testing.T) {
	for _, kind := range []string{"vm", "function"} {
		b := c.begin(t, "run", "--kind", kind, "--", "sh", "-c", "trap 'echo asked to end; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
		b.says(t, "ready\n")
		if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := b.end(t, 30*time.Second); code != 128+15 || !strings.Contains(b.stdout.String(), "asked to end\n") {
			t.Errorf("%s: exit %d, want 143; stdout %q, stderr %q", kind, code, b.stdout.String(), b.stderr.String())
		}
		c.onlySeed(t)
	}
}

func (c *cli) detachAndCount(t *testing.T) {
	for _, kind := range []string{"vm", "function"} {
		out := c.must(t, "run", "--kind", kind, "--name", "many", "--count", "3", "--detach", "--", "sleep", "600")
		if out != "many-0\nmany-1\nmany-2\n" {
			t.Errorf("%s: slots printed: %q", kind, out)
		}
		all, seen := c.nodes(t), map[string]bool{}
		for _, slot := range []string{"many-0", "many-1", "many-2"} {
			n := all[slot]
			if n.State != "running" || n.Kind != kind || n.Name != "many" || n.Service != "many" || n.Guest.State != "running" || n.Guest.PID == 0 {
				t.Errorf("%s %s: %+v", kind, slot, n)
			}
			seen[n.Overlay] = true
		}
		if len(seen) != 3 {
			t.Errorf("%s: three slots with %d addresses", kind, len(seen))
		}
		if kind == "function" {
			c.must(t, "stop", "many")
		} else {
			for i := range 3 {
				c.must(t, "stop", fmt.Sprintf("many-%d", i))
			}
		}
		c.onlySeed(t)
	}
}

func (c *cli) names(t *testing.T) {
	c.vm(t, "ant", "--service", "insect", "--", "sleep", "600")
	c.vm(t, "bee", "--service", "insect", "--", "sleep", "600")
	c.function(t, "fly", "--service", "insect", "--", "sleep", "600")
	all := c.nodes(t)
	ant, fly := all["ant"], all["fly-0"]
	nodeName := fmt.Sprintf("node-%d", ant.ID)
	names := []string{"ant", "ANT", "insect", "Insect", "fly-0", nodeName, strings.ToUpper(nodeName), "node-9999", "no-such-name"}
	for _, kind := range []string{"client", "vm", "function"} {
		args := []string{"run", "--kind", kind}
		script := filepath.Join(c.task, "resolve.py")
		if kind != "client" {
			args, script = append(args, "--source-dir", c.task), "/var/task/resolve.py"
		}
		out := c.must(t, append(append(args, "--", "python3", script), names...)...)
		var got map[string][][]string
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%s: %v: %s", kind, err, out)
		}
		for name, want := range map[string]string{"ant": ant.Overlay, "ANT": ant.Overlay, nodeName: ant.Overlay, strings.ToUpper(nodeName): ant.Overlay, "fly-0": fly.Overlay} {
			for _, answer := range got[name] {
				if !slices.Equal(answer, []string{want}) {
					t.Errorf("%s: %s resolves to %v, want %s", kind, name, answer, want)
				}
			}
		}
		checkRotation(t, kind, got["insect"], []string{ant.Overlay, all["bee"].Overlay, fly.Overlay})
		checkRotation(t, kind, got["Insect"], []string{ant.Overlay, all["bee"].Overlay, fly.Overlay})
		for _, name := range []string{"node-9999", "no-such-name"} {
			if a := got[name][0]; len(a) != 1 || !strings.Contains(a[0], "Errno") {
				t.Errorf("%s: %s resolves to %v, want an error", kind, name, a)
			}
		}
	}
	for _, name := range []string{"ant", "bee", "fly"} {
		c.must(t, "stop", name)
	}
}

// checkRotation: every answer holds all holders, and the first one changes.
func checkRotation(t *testing.T, kind string, answers [][]string, holders []string) {
	t.Helper()
	slices.Sort(holders)
	first := map[string]bool{}
	for _, answer := range answers {
		first[answer[0]] = true
		if sorted := slices.Sorted(slices.Values(answer)); !slices.Equal(sorted, holders) {
			t.Errorf("%s: the service resolves to %v, want all of %v", kind, answer, holders)
		}
	}
	if len(first) < 2 {
		t.Errorf("%s: %s is always the first of the service's holders", kind, answers[0][0])
	}
}

func (c *cli) hostName(t *testing.T) {
	for kind, slot := range map[string]string{"client": "named", "vm": "named", "function": "named-0"} {
		r := c.run(t, "run", "--kind", kind, "--name", "named", "--", "sh", "-c",
			"uname -n; python3 -c 'import socket; print(socket.gethostname())'; echo $BOXER_NODE_NAME $BOXER_NETWORK $BOXER_NODE_ADDRESS; ls $BOXER_DIR")
		lines := strings.Split(r.stdout, "\n")
		if r.code != 0 || len(lines) < 6 || lines[0] != slot || lines[1] != slot || !strings.HasPrefix(lines[2], slot+" cli 100.80.0.") {
			t.Errorf("%s: want host name %s three times: %s", kind, slot, r)
		}
		for _, file := range []string{"hosts", "members.json", "members.txt", "members.sock"} {
			if !slices.Contains(lines, file) {
				t.Errorf("%s: no %s in BOXER_DIR: %s", kind, file, r)
			}
		}
	}
}

func (c *cli) waitFor(t *testing.T) {
	b := c.begin(t, "run", "--kind", "vm", "--name", "late", "--detach", "--wait-for", "first=2", "--", "sleep", "600")
	waits := func(n node) bool { return n.State == "starting" && n.Guest.State == "waiting" && n.Guest.PID == 0 }
	c.node(t, "late", 30*time.Second, "waits at its barrier", waits)
	c.vm(t, "one", "--service", "first", "--", "sleep", "600")
	time.Sleep(500 * time.Millisecond)
	c.node(t, "late", 10*time.Second, "still waits with one of two", waits)
	c.function(t, "two", "--service", "first", "--", "sleep", "600")
	if code := b.end(t, 20*time.Second); code != 0 {
		t.Errorf("exit %d; stderr %s", code, b.stderr.String())
	}
	c.node(t, "late", 10*time.Second, "runs", func(n node) bool { return n.State == "running" && n.Guest.State == "running" })
	// one, two and late: three nodes that are not seeds.
	if r := c.run(t, "run", "--wait-for", "nodes=3", "--", "true"); r.code != 0 {
		t.Errorf("wait for nodes: %s", r)
	}
	for _, name := range []string{"late", "one", "two"} {
		c.must(t, "stop", name)
	}
}

func (c *cli) nodesJSON(t *testing.T) {
	c.vm(t, "shown", "--", "sleep", "600")
	defer c.must(t, "stop", "shown")
	var list []map[string]any
	if err := json.Unmarshal([]byte(c.must(t, "nodes", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	// The agreed fields, and those that were added (docs/nat.md, ARCHITECTURE.md).
	must := []string{"id", "name", "service", "slot", "kind", "state", "overlay_address", "underlay_address", "site", "nat", "version", "since", "guest"}
	may := []string{"listeners", "launch_id", "nat_report", "relay"}
	guest := []string{"state", "pid", "restarts"}
	for _, n := range list {
		for _, field := range must {
			if _, ok := n[field]; !ok {
				t.Errorf("no field %q in %v", field, n)
			}
		}
		for field := range n {
			if !slices.Contains(must, field) && !slices.Contains(may, field) {
				t.Errorf("field %q is not part of the interface: %v", field, n)
			}
		}
		if n["slot"] != "shown" {
			continue
		}
		for _, field := range guest {
			if _, ok := n["guest"].(map[string]any)[field]; !ok {
				t.Errorf("no field guest.%s in %v", field, n)
			}
		}
		since, err := time.Parse(time.RFC3339, n["since"].(string))
		if age := time.Since(since); err != nil || age < -time.Second || age > time.Minute {
			t.Errorf("since: %v, %v", n["since"], err)
		}
	}
	if table := c.must(t, "nodes"); !strings.Contains(table, "shown") || !strings.HasPrefix(table, "ID") {
		t.Errorf("nodes: %s", table)
	}
}

func (c *cli) logs(t *testing.T) {
	c.vm(t, "writer", "--", "sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done")
	defer c.must(t, "stop", "writer")
	eventually(t, 10*time.Second, "the guest's first lines", func() (bool, string) {
		out := c.must(t, "logs", "writer")
		return strings.HasPrefix(out, "line 1\nline 2\n"), out
	})
	b := c.begin(t, "logs", "-f", "writer")
	b.says(t, "line 2\n")
	seen := strings.Count(b.stdout.String(), "\n")
	b.says(t, fmt.Sprintf("line %d\n", seen+5))
	if err := b.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := b.end(t, 20*time.Second); code != 0 {
		t.Errorf("logs -f after SIGINT: exit %d", code)
	}
	if out := c.must(t, "logs", "--supervisor", "writer"); out == "" {
		t.Error("the supervisor has written no log")
	}
	if r := c.run(t, "logs", "nobody"); r.code != 125 || !strings.Contains(r.stderr, "writer") {
		t.Errorf("want the names that have logs: %s", r)
	}
}

func (c *cli) stop(t *testing.T) {
	c.vm(t, "stay", "--", "sleep", "600")
	c.function(t, "crew", "--count", "2", "--", "sh", "-c", "trap 'echo asked to end; exit 0' TERM; while :; do sleep 0.05; done")
	c.must(t, "stop", "crew-1")
	gone := func(slot string) {
		t.Helper()
		eventually(t, 15*time.Second, slot+" is gone", func() (bool, string) {
			n, ok := c.nodes(t)[slot]
			return !ok, fmt.Sprintf("%+v", n)
		})
	}
	gone("crew-1")
	if out := c.must(t, "logs", "crew-1"); !strings.Contains(out, "asked to end") {
		t.Errorf("the stopped guest got no SIGTERM: %q", out)
	}
	if n := c.nodes(t)["crew-0"]; n.State != "running" {
		t.Errorf("crew-0 was not to be stopped: %+v", n)
	}
	c.must(t, "stop", "crew")
	gone("crew-0")
	c.must(t, "stop", "stay")
	gone("stay")
	if r := c.run(t, "stop", "stay"); r.code != 125 || !strings.Contains(r.stderr, `"stay"`) {
		t.Errorf("stop what does not run: %s", r)
	}
	c.onlySeed(t)
}

func (c *cli) publish(t *testing.T) {
	port := freePort(t)
	c.vm(t, "web", "--source-dir", c.task, "--publish", fmt.Sprintf("%d:80", port), "--", "python3", "-m", "http.server", "--directory", "/var/task", "80")
	want, err := os.ReadFile("testdata/tick.py")
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: 10 * time.Second}
	for range 20 {
		answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/tick.py", port))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(body) != string(want) {
			t.Fatalf("answer through the published port: %v, %q", err, body)
		}
	}
	c.must(t, "stop", "web")
	if conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
		conn.Close()
		t.Error("the published port is still open after its node was stopped")
	}
}

// freePort is a port of 127.0.0.1 that nobody uses right now.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}
