// SPDX-License-Identifier: Apache-2.0

package node

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// greeter answers on a low port of every address, as who it is, and says who asked.
const greeter = `
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(("%s at %s:%d to %s\n" % ((sys.argv[1],) + self.connection.getsockname()[:2] + self.client_address[:1])).encode())
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("", 80), H)
print("bound to %s:%d" % s.socket.getsockname(), flush=True)
s.serve_forever()
`

// TestNodesShareALoopback: two nodes without network namespaces of their own
// both listen on port 80 of every address.
func TestNodesShareALoopback(t *testing.T) {
	w := newWorld(t)
	shared := func(n config.Node) config.Node { n.Shared = true; return n }
	one := w.start(shared(config.Node{Kind: config.KindVM, Slot: "one", StateDir: w.path("one-state"), Argv: []string{"python3", "-c", greeter, "one"}}))
	two := w.start(shared(config.Node{Kind: config.KindVM, Slot: "two", Argv: []string{"python3", "-c", greeter, "two"}}))
	address := map[string]string{}
	for slot, s := range map[string]*supervisor{"one": one, "two": two} {
		m := w.member(slot, func(m cluster.Member) bool { return m.State == cluster.StateRunning && len(m.Listeners) > 0 })
		if len(m.Listeners) != 1 || m.Listeners[0] != 80 {
			t.Errorf("%s listens on %v", slot, m.Listeners)
		}
		address[slot] = m.OverlayAddress.String()
		w.eventually(slot+" says so", func() bool { return strings.HasSuffix(s.output(), ":80") })
		if got := s.output(); got != "bound to 0.0.0.0:80" {
			t.Errorf("%s: %q", slot, got)
		}
	}
	ask := func(kind, slot string) {
		t.Helper()
		n := config.Node{Kind: kind, Slot: slot, Argv: []string{"sh", "-c", "curl -sS --max-time 10 http://one/ http://two/; exec sleep 60"}}
		if kind != config.KindClient {
			n = shared(n)
		}
		s := w.start(n)
		m := w.member(slot, func(m cluster.Member) bool { return m.State == cluster.StateRunning })
		own := m.OverlayAddress.String()
		want := "one at " + address["one"] + ":80 to " + own + "\ntwo at " + address["two"] + ":80 to " + own
		w.eventually(slot+" has asked", func() bool { return strings.Count(s.output(), " at ") == 2 || strings.Contains(s.output(), "curl: ") })
		if got := s.output(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", slot, got, want)
		}
	}
	ask(config.KindVM, "asker")
	ask(config.KindFunction, "worker")
	ask(config.KindClient, "laptop")

	// A killed supervisor takes up its own guest's listener, and no other's.
	_ = one.cmd.Process.Kill()
	one.wait()
	one.launch()
	w.eventually("the new supervisor has the guest", func() bool { return strings.Contains(one.log(), `"adopted":true`) })
	m := w.member("one", func(m cluster.Member) bool { return m.State == cluster.StateRunning && len(m.Listeners) > 0 })
	if len(m.Listeners) != 1 || m.Listeners[0] != 80 {
		t.Errorf("afterwards one listens on %v", m.Listeners)
	}
	ask(config.KindFunction, "later")
	_ = syscall.Kill(m.Guest.PID, syscall.SIGKILL)
}

// TestLoopbackIsTheNodesOwn: two nodes listen on the same port of 127.0.0.1, and
// each meets itself there.
func TestLoopbackIsTheNodesOwn(t *testing.T) {
	w := newWorld(t)
	server := strings.Replace(greeter, `("", 80)`, `("127.0.0.1", 80)`, 1)
	const script = `python3 -c "$1" $2 & curl -sS --retry 50 --retry-delay 0 --retry-connrefused http://127.0.0.1/; exec sleep 60`
	for _, slot := range []string{"one", "two"} {
		s := w.start(config.Node{Kind: config.KindVM, Slot: slot, Shared: true, Argv: []string{"sh", "-c", script, "sh", server, slot}})
		m := w.member(slot, in(cluster.StateRunning)) // after two seconds, for it shows no listener
		if len(m.Listeners) != 0 {
			t.Errorf("%s shows its peers what listens on 127.0.0.1: %v", slot, m.Listeners)
		}
		want := slot + " at 127.0.0.1:80 to 127.0.0.1"
		w.eventually(slot+" meets itself", func() bool { return strings.Contains(s.output(), want) || strings.Contains(s.output(), " at ") })
		if !strings.Contains(s.output(), want) {
			t.Errorf("%s: %q, want %q", slot, s.output(), want)
		}
	}
}

// TestRootOfANode: what platforms put at /opt and /var/task is found below the root.
func TestRootOfANode(t *testing.T) {
	w := newWorld(t)
	root := w.path("root")
	for name, content := range map[string]string{"var/task/hello": "from the task", "opt/tool": "#!/bin/sh\necho tool of $0"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := w.start(config.Node{Kind: config.KindVM, Slot: "job", Root: root, Places: []string{"/opt", "/var/task"}, WorkingDir: "/var/task", Env: map[string]string{"TOOL": "/opt/tool", "OTHER": "/optional"},
		Argv: []string{"sh", "-c", `cat hello; echo; cat /var/task/hello; echo; $TOOL; echo $OTHER`}})
	w.member("job", in(cluster.StateExited))
	if want := "from the task\nfrom the task\ntool of " + root + "/opt/tool\n/optional"; s.output() != want {
		t.Errorf("got %q, want %q", s.output(), want)
	}
}
