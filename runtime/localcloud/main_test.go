// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// The test binary stands in for boxer where this package runs it: as daemon and
// as init of hosts. In the layer is testdata/fakeboxer, a plain supervisor.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "local-cloud":
			os.Exit(Main(args))
		case "local-host":
			os.Exit(HostMain(args))
		}
	}
	status := m.Run()
	if dir := filepath.Dir(testLayerMade); testLayerMade != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(status)
}

// testLayerMade is the layer this process made, to be removed.
var testLayerMade string

// testLayer is a layer with the fake boxer.
var testLayer = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("BOXER_TEST_LAYER"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "boxer-test-layer-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	library := filepath.Join(dir, "libboxer.so")
	if err := os.WriteFile(library, []byte("not a library"), 0o644); err != nil {
		return "", err
	}
	boxer, path := filepath.Join(dir, "boxer"), filepath.Join(dir, "layer.zip")
	// By the go tool: this process may be slowed down by the race detector.
	for _, args := range [][]string{
		{"build", "-ldflags=-s -w", "-o", boxer, "./testdata/fakeboxer"},
		{"run", "../../layer/cmd/layer", "-boxer", boxer, "-library", library, "-out", path},
	} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("make a layer: go %s: %w: %s", args[0], err, out)
		}
	}
	testLayerMade = path
	return path, nil
})

func testRuntime(t *testing.T) Runtime {
	t.Helper()
	path, err := testLayer()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Runtime{Boxer: exe, Layers: map[string]string{runtime.GOARCH: path}}
}

func testStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), testRuntime(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testNetwork is a fresh network that is deleted at the end of the test.
func testNetwork(t *testing.T, s *Store, name string) *Client {
	t.Helper()
	ctx := testContext(t)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(s.netDir(name).join("cloud.log"))
			t.Logf("cloud.log:\n%s", log)
		}
		if err := s.DeleteNetwork(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.CreateNetwork(ctx, NetworkSpec{Name: name}); err != nil {
		t.Fatal(err)
	}
	c, err := s.Connect(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	c.Locate = true
	t.Cleanup(c.Close)
	return c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// vm starts a host that runs argv.
func vm(t *testing.T, c *Client, slot string, publish []config.Publish, argv ...string) Host {
	t.Helper()
	h, err := c.CreateHost(testContext(t), HostSpec{Config: config.Node{
		Network: c.Info().Name, Kind: config.KindVM, Slot: slot, Argv: argv, Publish: publish,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// output waits until the guest of a slot has written a line with want.
func output(t *testing.T, c *Client, slot, want string) string {
	t.Helper()
	var lines []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		lines, _ = c.Tail(slot, 1000)
		if text := strings.Join(lines, "\n"); strings.Contains(text, want) {
			return text
		}
	}
	node, _ := os.ReadFile(c.NodeLogPath(slot))
	t.Fatalf("%s wrote no %q: %q; node log: %s", slot, want, lines, node)
	return ""
}

const boxerInVM = "/opt/boxer/bin/boxer"

// shell runs a script on a VM of its own and returns what it wrote.
func shell(t *testing.T, c *Client, slot, script string) string {
	t.Helper()
	vm(t, c, slot, nil, "sh", "-c", script+"\necho the-end\nexec sleep 1000")
	return output(t, c, slot, "the-end")
}
