// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// TestArm64Machine boots an arm64 kernel of Lambda's series and runs the layer there as
// a function: what user emulation has not, the machine has. Its guest connects to an
// amd64 node and accepts connections of others, in a first life and in a second.
func TestArm64Machine(t *testing.T) {
	if os.Getenv("BOXER_ARM64") == "" {
		t.Skip("run it with `make arm64`")
	}
	t.Parallel()
	root, kernel := systemRoot(t, "glibc-arm64"), kernelRoot(t)
	l := newLambdas(t, "machine")
	l.vm(t, "vm", "--", "python3", "-c", `import socket
s = socket.create_server(('', 9000))
while True:
    c, a = s.accept()
    c.sendall(b'vm sees %s\n' % a[0].encode())
    c.close()`)
	dir := filepath.Dir(l.state)
	layer := filepath.Join(dir, "layer")
	unzip(t, filepath.Join(l.bin, "boxer-layer-arm64.zip"), layer)
	secret, err := os.ReadFile(l.Network.SecretFile)
	if err != nil {
		t.Fatal(err)
	}
	initrd := newArchive(t, root, kernel, layer, secret)
	api := serveEvents(t)
	console := boot(t, kernel, dir, initrd, api.address)

	n := l.Client.ClientConfig(config.Node{Name: "arm", Slot: "arm"})
	n.Kind, n.SecretRef, n.LaunchToken = config.KindFunction, "file:/etc/boxer/secret", ""
	n.SeedEndpoints = slices.Clone(n.SeedEndpoints)
	for i, endpoint := range n.SeedEndpoints {
		_, port, _ := strings.Cut(endpoint, ":")
		n.SeedEndpoints[i] = "10.0.2.2:" + port // this machine, as QEMU shows it
	}
	n.Argv = []string{"python3", "-c", `import os, socket, threading
s = socket.create_server(('', 9000))
c = socket.create_connection(('vm', 9000), 10)
print(os.uname().machine, os.uname().release, c.getpeername(), c.makefile().read().strip(), flush=True)
while True:
    c, a = s.accept()
    what = c.makefile().readline().strip()
    c.sendall(b'arm64 sees %s, who says %s\n' % (a[0].encode(), what.encode()))
    c.close()
    if what == 'end': break`}
	for life := 1; life <= 2; life++ {
		n.LaunchToken = launch.Token()
		api.send(t, n)
		own := l.node(t, "arm", quick, "runs", func(n node) bool { return n.State == "running" }).Overlay
		eventually(t, quick, "the guest says what it saw", func() (bool, string) {
			data, _ := os.ReadFile(console)
			want := fmt.Sprintf("('%s', 9000) vm sees %s", l.nodes(t)["vm"].Overlay, own)
			return strings.Count(string(data), want) == life && strings.Contains(string(data), "aarch64 5.10."), clip(string(data))
		})
		for _, kind := range []string{"vm", "function", "client"} {
			says := "hello"
			if kind == "client" {
				says = "end"
			}
			out := l.must(t, "run", "--kind", kind, "--", "sh", "-c", `echo $BOXER_NODE_ADDRESS; exec python3 -c "$0" "$@"`, `import socket, sys
c = socket.create_connection(('arm', 9000), 10)
c.sendall(sys.argv[1].encode() + b'\n')
print(c.getpeername()[0], c.makefile().read().strip())`, says)
			from, got, _ := strings.Cut(out, "\n")
			if want := fmt.Sprintf("%s arm64 sees %s, who says %s\n", own, from, says); got != want {
				t.Errorf("life %d: a %s is told %q, want %q", life, kind, got, want)
			}
		}
		if got := api.answer(t); !strings.Contains(got, `"reason":"guest"`) {
			t.Errorf("life %d ends: %s", life, got)
		}
	}
}

func kernelRoot(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../tools/bin/roots/kernel-arm64")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "boot")); err != nil {
		t.Fatalf("%v: run `make arm64`", err)
	}
	return dir
}

// events is a Runtime API for a runtime elsewhere.
type events struct {
	address string
	next    chan []byte
	answers chan string
}

func serveEvents(t *testing.T) *events {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	api := &events{next: make(chan []byte, 1), answers: make(chan string, 1)}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	api.address = "10.0.2.2:" + port
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case event := <-api.next:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "request")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(15*time.Minute).UnixMilli(), 10))
			_, _ = w.Write(event)
		case <-r.Context().Done():
		}
	})
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		api.answers <- string(body)
	}
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/request/", answer)
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", answer)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return api
}

func (e *events) send(t *testing.T, n config.Node) {
	t.Helper()
	doc, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	e.next <- doc
}

func (e *events) answer(t *testing.T) string {
	t.Helper()
	select {
	case answer := <-e.answers:
		return answer
	case <-time.After(quick):
		t.Fatal("the event is not answered")
		return ""
	}
}

// boot starts the machine and returns the file that its console is written to.
func boot(t *testing.T, kernel, dir, initrd, api string) (console string) {
	t.Helper()
	images, _ := filepath.Glob(filepath.Join(kernel, "boot/vmlinuz-*"))
	if len(images) != 1 {
		t.Fatal(images)
	}
	file, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "768", "-nographic", "-no-reboot",
		"-kernel", images[0], "-initrd", initrd, "-append", "console=ttyAMA0 quiet panic=-1 runtime_api="+api,
		"-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net")
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: run `make arm64`", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			data, _ := os.ReadFile(file.Name())
			t.Logf("--- console\n%s", clip(string(data)))
		}
	})
	return file.Name()
}

// archive is an initial file system (cpio, newc).
type archive struct {
	bytes.Buffer
	inode int
}

func newArchive(t *testing.T, root, kernel, layer string, secret []byte) string {
	t.Helper()
	a := &archive{}
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "modules", "var", "var/task", "etc", "etc/boxer"} {
		a.add(dir, fs.ModeDir|0o755, nil)
	}
	a.tree(t, root, "", "usr/share", "usr/lib/python3.9/test", "usr/lib/python3.9/idlelib", "usr/lib/python3.9/lib2to3", "usr/lib/python3.9/distutils")
	a.tree(t, layer, "opt")
	a.add("etc/boxer/secret", 0o600, secret)
	init, err := os.ReadFile("testdata/lambda/init")
	if err != nil {
		t.Fatal(err)
	}
	a.add("init", 0o755, init)
	for i, name := range []string{"virtio", "virtio_ring", "virtio_mmio", "failover", "net_failover", "virtio_net", "inet_diag", "tcp_diag"} {
		found, err := exec.Command("find", filepath.Join(kernel, "lib/modules"), "-name", name+".ko").Output()
		if err != nil || len(found) == 0 {
			t.Fatalf("module %s: %v", name, err)
		}
		data, err := os.ReadFile(strings.TrimSpace(string(found)))
		if err != nil {
			t.Fatal(err)
		}
		a.add(fmt.Sprintf("modules/%d-%s.ko", i, name), 0o644, data)
	}
	a.add("TRAILER!!!", 0, nil)
	path := filepath.Join(filepath.Dir(layer), "initrd")
	if err := os.WriteFile(path, a.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// add appends one entry.
func (a *archive) add(name string, mode fs.FileMode, content []byte) {
	kind := map[fs.FileMode]int{fs.ModeDir: 0o040000, fs.ModeSymlink: 0o120000, 0: 0o100000}[mode.Type()]
	a.inode++
	fmt.Fprint(a, "070701")
	for _, field := range []int{a.inode, kind | int(mode.Perm()), 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(a, "%08X", field)
	}
	fmt.Fprintf(a, "%s\x00", name)
	a.align()
	a.Write(content)
	a.align()
}

func (a *archive) align() { a.Write(make([]byte, -a.Len()&3)) }

// tree appends what is in a directory, at a path, without some below it.
func (a *archive) tree(t *testing.T, from, at string, without ...string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, _ := filepath.Rel(from, path)
		if slices.Contains(without, relative) {
			return filepath.SkipDir
		}
		name := filepath.Join(at, relative)
		if name == "." || name == "etc" {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			var target string
			target, err = os.Readlink(path)
			content = []byte(target)
		case d.Type().IsRegular():
			content, err = os.ReadFile(path)
		}
		a.add(name, info.Mode(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
