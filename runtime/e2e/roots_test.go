// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// systemRoot is a root that tools/roots.sh made.
func systemRoot(t *testing.T, name string) string {
	t.Helper()
	if os.Getenv("BOXER_ROOTS") == "none" {
		t.Skip("BOXER_ROOTS=none")
	}
	dir, err := filepath.Abs("../../tools/bin/roots/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "bin/sh")); err != nil {
		if _, debian := os.Stat("/usr/share/keyrings/debian-archive-keyring.gpg"); debian != nil {
			t.Skip("other systems' roots are made of Debian's packages, and this is not Debian")
		}
		t.Fatalf("%v: run `make deps`, or set BOXER_ROOTS=none to do without", err)
	}
	return dir
}

// compilePeer builds the C guest with a compiler, as /var/task of a function.
func compilePeer(t *testing.T, cc ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "bxpeer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	args := slices.Concat(cc[1:], []string{"-O1", "-Wall", "-Werror", "-o", filepath.Join(dir, "peer"), "testdata/lambda/peer.c"})
	if out, err := exec.Command(cc[0], args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cc[0], err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestOtherSystems: the layer, as it is, serves and connects guests of a system
// with an older glibc than Lambda's, and of one with musl, held to Lambda's rules.
func TestOtherSystems(t *testing.T) {
	t.Parallel()
	glibc, musl := systemRoot(t, "glibc-amd64"), systemRoot(t, "musl-amd64")
	task := compilePeer(t, "musl-gcc")
	w := newWorld(t)
	w.network(t, "roots")
	w.vm(t, "vm", "--source-dir", w.task(t), "--", "python3", "-c", `
import socketserver
class H(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(('vm sees %s\n' % self.client_address[0]).encode())
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(('', 9000), H).serve_forever()`)
	w.function(t, "old", "--root", glibc, "--", "python3", "-c", `
import os, socket
s = socket.create_server(('', 9000))
while True:
    c, a = s.accept()
    c.sendall(('%s sees %s\n' % (os.confstr('CS_GNU_LIBC_VERSION'), a[0])).encode())
    c.close()`)
	w.function(t, "musl", "--root", musl, "--source-dir", task, "--", "/var/task/peer", "serve", "9000", "musl")
	all := w.nodes(t)
	ask := `import socket, sys
for host in sys.argv[1:]:
    c = socket.create_connection((host, 9000))
    print(c.getpeername()[0], 'says:', c.makefile().read().strip())`
	clients := map[string][]string{
		"glibc": {"--root", glibc, "--", "sh", "-c", `echo $BOXER_NODE_ADDRESS; exec python3 -c "$0" "$@"`, ask},
		"musl":  {"--root", musl, "--source-dir", task, "--", "sh", "-c", `echo $BOXER_NODE_ADDRESS; for h; do /var/task/peer get $h 9000; done`, "sh"},
	}
	for name, args := range clients {
		args = append(append([]string{"run", "--kind", "function"}, args...), "vm", "old", "musl")
		own, got, _ := strings.Cut(w.must(t, args...), "\n")
		want := all["vm"].Overlay + " says: vm sees " + own + "\n" +
			all["old-0"].Overlay + " says: glibc 2.31 sees " + own + "\n" +
			all["musl-0"].Overlay + " says: musl sees " + own + "\n"
		if got != want {
			t.Errorf("what a function with %s is told:\n%swant:\n%s", name, got, want)
		}
	}
	got := w.must(t, append([]string{"run", "--kind", "vm", "--", "python3", "-c", ask}, "old", "musl")...)
	if !strings.Contains(got, "says: glibc 2.31 sees 100.80.") || !strings.Contains(got, "says: musl sees 100.80.") {
		t.Errorf("what a VM is told: %s", got)
	}
	// The rules hold there as on this machine's own root.
	r := w.run(t, "run", "--kind", "function", "--root", glibc, "--", "python3", "-c", `
import os
assert os.getuid() == 993
for path in '/dev/shm/x', '/x', '/usr/x', '/opt/x', '/etc/hosts', '/var/task/x':
    try: open(path, 'w')
    except OSError: continue
    raise SystemExit(path + ' can be written')
open('/tmp/x', 'w')
try: os.seteuid(993)
except PermissionError: raise SystemExit(0)
raise SystemExit('seteuid')`)
	if r.code != 0 {
		t.Error(r)
	}
}
