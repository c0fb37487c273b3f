// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestErrors: what goes wrong is explained (testdata/golden), and leaves nothing.
func TestErrors(t *testing.T) {
	w := newWorld(t)
	w.network(t, "shop")
	w.vm(t, "store", "--", "sleep", "600")
	w.function(t, "logic", "--", "sleep", "600")
	t.Run("network", w.errNetwork)
	t.Run("secret", w.errSecret)
	t.Run("taken name", w.errTaken)
	t.Run("command", w.errCommand)
	t.Run("command line", w.errUsage)
	t.Run("host port", w.errPort)
	t.Run("guest that ends", w.errEnds)
	t.Run("corrupt layer", w.errLayer)
	t.Run("dead seed", w.errSeed) // last: it ends the daemon
}

// fails checks a failing command's words and that it changed nothing.
func (w *world) fails(t *testing.T, name string, args ...string) {
	t.Helper()
	w.unchanged(t, func() { w.golden(t, name, w.run(t, args...)) })
}

func (w *world) errNetwork(t *testing.T) {
	w.fails(t, "unknown-network-run", "run", "--network", "shoppe", "--", "true")
	w.fails(t, "unknown-network-run-vm", "run", "--network", "shoppe", "--kind", "vm", "--", "true")
	w.fails(t, "unknown-network-nodes", "nodes", "--network", "shoppe")
	w.fails(t, "network-exists", "network", "create", "shop")
	w.fails(t, "network-name", "network", "create", "Shop_1")
	w.fails(t, "network-cidr", "network", "create", "other", "--cidr", "100.80.0.1/16")
	w.fails(t, "network-cidr-overlap", "network", "create", "other", "--cidr", "127.0.0.0/16")
}

// errSecret: a client whose copy of the secret is not the network's.
func (w *world) errSecret(t *testing.T) {
	path := filepath.Join(w.state, "networks", "shop", "secret")
	secret, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	restore := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := w.inventory(t)
	defer restore(secret)
	restore([]byte(strings.Repeat("0", len(secret))))
	w.golden(t, "wrong-secret-run", w.run(t, "run", "--", "true"))
	w.golden(t, "wrong-secret-nodes", w.run(t, "nodes"))
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	w.golden(t, "open-secret-run", w.run(t, "run", "--", "true"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.golden(t, "no-secret-run", w.run(t, "run", "--", "true"))
	restore(secret)
	if now := w.inventory(t); now != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, now)
	}
}

func (w *world) errTaken(t *testing.T) {
	w.fails(t, "taken-name-client", "run", "--name", "store", "--", "true")
	w.fails(t, "taken-name-vm", "run", "--name", "store", "--kind", "vm", "--", "true")
	w.fails(t, "taken-name-vm-detach", "run", "--name", "store", "--kind", "vm", "--detach", "--", "sleep", "600")
	w.fails(t, "taken-name-function", "run", "--name", "logic", "--kind", "function", "--", "true")
	w.fails(t, "taken-name-vm-of-function", "run", "--name", "logic-0", "--kind", "vm", "--detach", "--", "sleep", "600")
	w.fails(t, "taken-name-vm-of-function-foreground", "run", "--name", "logic-0", "--kind", "vm", "--", "true")
	if all := w.nodes(t); all["store"].State != "running" || all["logic-0"].State != "running" {
		t.Errorf("the holders of the names should still run: %+v", all)
	}
}

func (w *world) errCommand(t *testing.T) {
	for _, kind := range []string{"client", "vm", "function"} {
		w.fails(t, "unknown-command-"+kind, "run", "--kind", kind, "--", "no-such-program")
		w.fails(t, "not-executable-"+kind, "run", "--kind", kind, "--", "/etc/passwd")
	}
	w.fails(t, "unknown-command-detach", "run", "--kind", "vm", "--name", "wrong", "--detach", "--", "no-such-program")
	w.fails(t, "unknown-command-function-detach", "run", "--kind", "function", "--name", "wrong", "--detach", "--", "no-such-program")
}

func (w *world) errUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"usage-no-command":    {"run"},
		"usage-kind":          {"run", "--kind", "pod", "--", "true"},
		"usage-count":         {"run", "--kind", "vm", "--count", "3", "--", "true"},
		"usage-detach-client": {"run", "--detach", "--", "true"},
		"usage-publish":       {"run", "--kind", "vm", "--publish", "http:80", "--", "true"},
		"usage-env":           {"run", "-e", "NOVALUE", "--", "true"},
		"usage-wait-for":      {"run", "--wait-for", "store", "--", "true"},
		"usage-name":          {"run", "--name", "Bad_Name", "--", "true"},
		"usage-flag":          {"nodes", "--bogus"},
		"usage-platform":      {"nodes", "--platform", "moon"},
		"usage-source-dir":    {"run", "--kind", "vm", "--source-dir", "/no/such/directory", "--", "true"},
		"usage-source-file":   {"run", "--kind", "vm", "--source-dir", "/etc/passwd", "--", "true"},
		"usage-number":        {"network", "create", "other", "--port", "http"},
		"usage-truth":         {"nodes", "--watch=3s"},
		"usage-command":       {"netwrk", "list"},
		"usage-subcommand":    {"network", "remove", "shop"},
		"stop-unknown":        {"stop", "nobody"},
		"logs-unknown":        {"logs", "nobody"},
	} {
		w.fails(t, name, args...)
	}
}

func (w *world) errPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	w.fails(t, "foreign-address", "run", "--kind", "vm", "--name", "web", "--detach", "--publish", "192.0.2.1:8080:80", "--", "sleep", "600")
	w.fails(t, "occupied-port", "run", "--kind", "vm", "--name", "web", "--detach", "--publish", port+":80", "--", "sleep", "600")
}

// errEnds: a node that should stay but whose program ends at once.
func (w *world) errEnds(t *testing.T) {
	for _, kind := range []string{"vm", "function"} {
		w.fails(t, "guest-ends-"+kind, "run", "--kind", kind, "--name", "brief", "--detach", "--", "sh", "-c", "echo cannot read my configuration >&2; exit 3")
	}
}

// errLayer: the copy of the layer that new hosts install is damaged.
func (w *world) errLayer(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(w.state, "runtime", "*", "layer.zip"))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one layer in the state directory: %v, %v", found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), good...)
	bad[len(bad)/2] ^= 1
	replace := func(data []byte) {
		t.Helper()
		if err := os.Remove(found[0]); err != nil { // running hosts may have the old one mounted
			t.Fatal(err)
		}
		if err := os.WriteFile(found[0], data, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	defer replace(good)
	replace(bad)
	w.fails(t, "corrupt-layer-detach", "run", "--kind", "vm", "--name", "late", "--detach", "--", "sleep", "600")
	w.fails(t, "corrupt-layer-foreground", "run", "--kind", "vm", "--", "true")
}

func (w *world) errSeed(t *testing.T) {
	kill(t, w.daemon(t))
	w.nothingRuns(t)
	w.golden(t, "dead-seed-run", w.run(t, "run", "--", "true"))
	w.golden(t, "dead-seed-nodes", w.run(t, "nodes"))
	w.golden(t, "dead-seed-stop", w.run(t, "stop", "store"))
	w.nothingRuns(t)
}

// TestTwoCreateOneNetwork: of two that create one name at once, exactly one wins.
func TestTwoCreateOneNetwork(t *testing.T) {
	w := newWorld(t)
	t.Cleanup(func() { w.remove(t, "twin") })
	var results [2]result
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i] = w.run(t, "network", "create", "twin") })
	}
	wg.Wait()
	winner, loser := results[0], results[1]
	if winner.code != 0 {
		winner, loser = loser, winner
	}
	if winner.code != 0 || loser.code == 0 {
		t.Fatalf("want one winner and one loser:\n%s\n%s", winner, loser)
	}
	// The loser finds it half-made or made.
	if !strings.HasPrefix(loser.stderr, `boxer: network "twin" exists already`) || !strings.Contains(loser.stderr, ": ") {
		t.Errorf("the loser does not say why: %s", loser)
	}
	w.net = "twin"
	if r := w.run(t, "run", "--", "true"); r.code != 0 {
		t.Errorf("the winner's network does not work: %s", r)
	}
	if out := w.must(t, "network", "list", "--json"); strings.Count(out, `"twin"`) != 1 {
		t.Errorf("network list: %s", out)
	}
	w.daemon(t)
}

// TestTwoRunOneName: of two that start one node at once, exactly one wins.
func TestTwoRunOneName(t *testing.T) {
	w := newWorld(t)
	w.network(t, "twins")
	for _, kind := range []string{"vm", "function"} {
		var results [2]result
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() {
				results[i] = w.run(t, "run", "--kind", kind, "--name", "solo", "--detach", "--", "sleep", "600")
			})
		}
		wg.Wait()
		if (results[0].code == 0) == (results[1].code == 0) {
			t.Errorf("want one winner and one loser:\n%s\n%s", results[0], results[1])
		}
		slot := map[string]string{"vm": "solo", "function": "solo-0"}[kind]
		if n := w.nodes(t)[slot]; n.State != "running" {
			t.Errorf("the winner's node does not run: %+v", n)
		}
		w.must(t, "stop", "solo")
	}
}

// TestMachine: what this machine does not give is named, with its remedy, before
// it shows as something else.
func TestMachine(t *testing.T) {
	w := newWorld(t)
	w.prefix = []string{"/usr/bin/env", "prlimit", "--nofile=64:64"}
	w.golden(t, "few-files", w.run(t, "network", "create", "shop"))
	w.prefix = nil
	if os.Geteuid() == 0 {
		w.prefix = []string{"/usr/bin/env", "unshare", "--net"}
		w.golden(t, "loopback-down", w.run(t, "network", "create", "shop"))
		w.prefix = nil
	}
	w.nothingRuns(t)
	w.network(t, "shop")
	w.prefix = []string{"/usr/bin/env", "TMPDIR=/no/such/directory"}
	w.golden(t, "no-tmpdir", w.run(t, "run", "--", "true"))
	w.prefix = nil
}

// stateScript runs boxer in a mount namespace of its own: $1 prepares the state
// directory, the rest is boxer's command line. What is left is printed last.
const stateScript = `set -eu
mkdir -p "$BOXER_STATE_DIR"
sh -c "$1"
shift
status=0
"$@" || status=$?
left=$(find "$BOXER_STATE_DIR" -mindepth 1 ! -name fill)
[ -z "$left" ] || { echo "left: $left"; exit 99; }
exit $status`

// TestStateDirectory: one that is full, read-only, or no directory at all.
func TestStateDirectory(t *testing.T) {
	for name, prepare := range map[string]string{
		"full-state-dir":      `mount -t tmpfs -o size=64k boxer-test "$BOXER_STATE_DIR" && dd if=/dev/zero of="$BOXER_STATE_DIR/fill" bs=4k 2>/dev/null || :`,
		"small-state-dir":     `mount -t tmpfs -o size=1m boxer-test "$BOXER_STATE_DIR"`,
		"smallish-state-dir":  `mount -t tmpfs -o size=30m boxer-test "$BOXER_STATE_DIR"`,
		"noexec-state-dir":    `mount -t tmpfs -o noexec boxer-test "$BOXER_STATE_DIR"`,
		"read-only-state-dir": `mount -t tmpfs -o ro boxer-test "$BOXER_STATE_DIR"`,
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("mounting needs root")
			}
			w := newWorld(t)
			w.stateError(t, name, prepare)
		})
	}
	t.Run("file", func(t *testing.T) {
		w := newWorld(t)
		if err := os.WriteFile(w.state, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.golden(t, "file-state-dir", w.run(t, "network", "create", "shop"))
		w.golden(t, "file-state-dir-list", w.run(t, "network", "list"))
		w.nothingRuns(t)
	})
	t.Run("unwritable", func(t *testing.T) {
		w := newWorld(t)
		w.ordinary(t)
		if err := os.Chmod(filepath.Dir(w.state), 0o555); err != nil {
			t.Fatal(err)
		}
		w.golden(t, "unwritable-state-dir", w.run(t, "network", "create", "shop"))
		w.nothingRuns(t)
	})
	t.Run("not mine", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs a second user")
		}
		w := newWorld(t)
		if err := os.Mkdir(w.state, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(w.state, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		w.golden(t, "foreign-state-dir", w.run(t, "network", "create", "shop"))
		w.nothingRuns(t)
	})
}
