// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// emulated is a command that runs another where the kernel executes arm64 programs
// by way of QEMU. That is registered in a user namespace of its own, and so gone
// with it; the machine stays as it is.
func emulated(t *testing.T) []string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("this machine is no amd64")
	}
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Fatalf("%v: run `make deps`", err)
	}
	const magic = `\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00`
	const mask = `\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`
	prefix := []string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		`mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && printf '%s\n' "$0" >/proc/sys/fs/binfmt_misc/register && exec "$@"`,
		":aarch64:M::" + magic + ":" + mask + ":" + qemu + ":OCF"}
	if out, err := exec.Command(prefix[0], append(prefix[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no binfmt_misc in a user namespace (it needs Linux 6.7, and user namespaces): %v: %s", err, out)
	}
	return prefix
}

// TestArm64 runs the arm64 layer emulated: bootstrap, supervisor and monitor, in the
// strict sandbox, with unmodified arm64 guests that reach an amd64 node.
func TestArm64(t *testing.T) {
	t.Parallel()
	prefix, root := emulated(t), systemRoot(t, "glibc-arm64")
	w := newWorld(t)
	w.prefix = prefix
	layer := filepath.Join(filepath.Dir(w.state), "layer")
	unzip(t, filepath.Join(w.bin, "boxer-layer-arm64.zip"), layer)
	w.network(t, "arm")
	w.vm(t, "vm", "--", "python3", "-c", `import socket
s = socket.create_server(('', 9000))
while True:
    c, a = s.accept()
    c.sendall(b'%s echoes %s' % (a[0].encode(), c.recv(100)))
    c.close()`)
	// The sandbox finds this layer's bootstrap before that of /opt, which is this machine's.
	got := w.must(t, "run", "--kind", "function", "--root", root, "--source-dir", layer, "--", "sh", "-c",
		`echo $BOXER_NODE_ADDRESS; exec python3 -c "$0"`, `import os, socket
print(os.uname().machine, os.getuid(), os.confstr('CS_GNU_LIBC_VERSION'))
for host in 'vm', 'node-2':
    print(socket.gethostbyname(host))
    c = socket.create_connection((host, 9000), 10)
    c.sendall(b'arm64')
    print(c.makefile().read())
try: socket.create_connection(('vm', 9001), 10)
except ConnectionRefusedError: print('refused')`)
	own, got, _ := strings.Cut(got, "\n")
	vm := w.nodes(t)["vm"].Overlay
	want := fmt.Sprintf("aarch64 993 glibc 2.31\n%s\n%s echoes arm64\n%s\n%s echoes arm64\nrefused\n", vm, own, vm, own)
	if got != want {
		t.Errorf("the guest prints\n%swant\n%s", got, want)
	}
}

// TestArm64Site: nodes of both architectures in one site, each with a guest that the
// other's reaches.
func TestArm64Site(t *testing.T) {
	t.Parallel()
	prefix := emulated(t)
	s := &site{t: t, bin: binaries(t), dir: t.TempDir(), guests: compilePeer(t, "aarch64-linux-gnu-gcc")}
	if err := os.WriteFile(filepath.Join(s.dir, "secret"), []byte("a secret of some thirty letters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	native := compilePeer(t, "gcc")
	arm := slices.Concat(prefix, []string{filepath.Join(s.bin, "stage-arm64/boxer")})
	amd := []string{filepath.Join(s.bin, "stage-amd64/boxer")}
	s.start("seed-0", "amd64", amd, 1)
	s.start("arm", "arm64", arm, 2, s.guests+"/peer", "serve", "9000", "arm64")
	s.start("amd", "amd64", amd, 3, native+"/peer", "serve", "9001", "amd64")
	s.says("arm", "guest running")
	s.says("amd", "guest running")
	s.start("from-arm", "arm64", arm, 4, s.guests+"/peer", "get", "amd", "9001")
	// Emulated, a supervisor is late with the news of who has joined, and its guest is shown
	// the underlay address of somebody unknown until then.
	s.start("from-amd", "amd64", amd, 5, "sh", "-c", `while :; do "$0" get arm 9000; sleep 0.2; done`, native+"/peer")
	s.says("from-arm", s.address("amd")+" says: amd64 sees "+s.address("from-arm"))
	s.says("from-amd", s.address("arm")+" says: arm64 sees "+s.address("from-amd"))
}

// site is nodes that are plain processes of this machine, each with a loopback address.
type site struct {
	t                *testing.T
	bin, dir, guests string
}

func (s *site) start(slot, arch string, boxer []string, number int, argv ...string) {
	s.t.Helper()
	kind := config.KindVM
	if slot == "seed-0" {
		kind = config.KindSeed
	}
	cfg, err := config.New(config.Node{
		Kind: kind, Network: "site", Name: slot, Slot: slot, SecretRef: "file:" + filepath.Join(s.dir, "secret"),
		SeedEndpoints: []string{"127.91.0.1:7717"}, UnderlayAddress: fmt.Sprintf("127.91.0.%d", number), Port: 7717, Site: "here",
		StateDir: filepath.Join(s.dir, slot), Argv: argv, LaunchToken: "of " + slot,
		Restart: config.RestartOnFailure, // the peer may not listen yet
		Env:     map[string]string{"QEMU_LD_PREFIX": "/usr/aarch64-linux-gnu"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if kind == config.KindSeed {
		cfg.Argv, cfg.Env, cfg.Restart = nil, nil, config.RestartNo
	}
	doc, err := json.Marshal(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.dir, slot+".json")
	log, err := os.Create(filepath.Join(s.dir, slot+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	if err := os.WriteFile(path, doc, 0o600); err != nil {
		s.t.Fatal(err)
	}
	args := slices.Concat(boxer[1:], []string{"node", "--config", path, "--library", filepath.Join(s.bin, "stage-"+arch, "libboxer.so")})
	cmd := exec.Command(boxer[0], args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			data, _ := os.ReadFile(log.Name())
			s.t.Logf("--- %s\n%s", slot, clip(string(data)))
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
	})
}

// says waits until a node's supervisor or guest has written text.
func (s *site) says(slot, text string) string {
	s.t.Helper()
	var all string
	eventually(s.t, quick, slot+" says "+text, func() (bool, string) {
		data, _ := os.ReadFile(filepath.Join(s.dir, slot+".log"))
		all = string(data)
		return strings.Contains(all, text), clip(all)
	})
	return all
}

// address is a node's, as it learned when it joined.
func (s *site) address(slot string) string {
	s.t.Helper()
	for line := range strings.Lines(s.says(slot, `"joined"`)) {
		var entry struct{ Message, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "joined" {
			return entry.Address
		}
	}
	s.t.Fatalf("%s does not say its address", slot)
	return ""
}
