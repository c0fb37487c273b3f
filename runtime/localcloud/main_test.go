// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// The test binary stands in for boxer: it is in the layer, and runs the
// daemon, hosts, and plain stand-ins for the supervisor.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "local-cloud":
			os.Exit(Main(args))
		case "local-host":
			os.Exit(HostMain(args))
		case "node":
			os.Exit(fakeNode(args[1]))
		case "function":
			os.Exit(fakeFunction())
		case "serve":
			os.Exit(fakeServe(args))
		case "dial":
			os.Exit(fakeDial(args[0]))
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

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "fake boxer:", err)
	return 1
}

// fakeNode runs a seed, or the command of the document.
func fakeNode(path string) int {
	n, err := config.Load(path)
	if err != nil {
		return fail(err)
	}
	if n.Kind == config.KindSeed {
		return fail(fakeSeed(n))
	}
	cmd := exec.Command(n.Argv[0], n.Argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	fds, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for i := range fds {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(3+i), "listener"))
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-signals:
		_ = cmd.Process.Signal(unix.SIGTERM)
		<-ended
		fmt.Fprintln(os.Stderr, "fake boxer: ended by TERM")
		return 0
	case err := <-ended:
		return fail(err)
	}
}

func fakeSeed(n config.Node) error {
	secret, err := n.Secret()
	if err != nil {
		return err
	}
	if count, err := os.ReadFile(filepath.Join(n.StateDir, "starts")); err == nil || os.IsNotExist(err) {
		if err := os.WriteFile(filepath.Join(n.StateDir, "starts"), append(count, '.'), 0o600); err != nil {
			return err
		}
	}
	seed, err := cluster.NewSeed(cluster.SeedOptions{
		Network: n.Network, Secret: secret, CIDR: netip.MustParsePrefix(n.CIDR),
		StatePath: filepath.Join(n.StateDir, "seed.json"), Logger: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	published, err := net.FileListener(os.NewFile(3, "published"))
	if err != nil {
		return err
	}
	for {
		conn, err := published.Accept()
		if err != nil {
			return err
		}
		go seed.ServeConn(conn)
	}
}

// fakeFunction is a runtime that runs the event's command.
func fakeFunction() int {
	base := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime"
	resp, err := http.Get(base + "/invocation/next")
	if err != nil {
		return fail(err)
	}
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		return fail(err)
	}
	invocation := base + "/invocation/" + resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
	n, err := config.Parse(doc)
	if err == nil {
		cmd := exec.Command(n.Argv[0], n.Argv[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		err = cmd.Run()
	}
	if err != nil {
		body := fmt.Sprintf(`{"errorType":"Guest.Failed","errorMessage":%q}`, err)
		_, err = http.Post(invocation+"/error", "application/json", strings.NewReader(body))
	} else {
		_, err = http.Post(invocation+"/response", "application/json", strings.NewReader("{}"))
	}
	if err != nil {
		return fail(err)
	}
	_, err = http.Get(base + "/invocation/next") // until the sandbox ends
	return fail(err)
}

// fakeServe tells everyone who connects to one of the ports (or the inherited
// listener, "fd") who they are.
func fakeServe(ports []string) int {
	var wg sync.WaitGroup
	for _, port := range ports {
		l, err := net.Listen("tcp4", ":"+port)
		if port == "fd" {
			l, err = net.FileListener(os.NewFile(3, "published"))
		}
		if err != nil {
			return fail(err)
		}
		wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				host, _ := os.Hostname()
				fmt.Fprintf(conn, "%s sees %s\n", host, conn.RemoteAddr().(*net.TCPAddr).IP)
				conn.Close()
			}
		})
	}
	fmt.Println("serving", ports)
	wg.Wait()
	return 0
}

func fakeDial(address string) int {
	conn, err := net.DialTimeout("tcp4", address, time.Second)
	if err != nil {
		fmt.Println("dial:", err)
		return 0
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	text, err := io.ReadAll(conn)
	fmt.Printf("%s", text)
	if err != nil {
		fmt.Println("read:", err)
	}
	return 0
}

// testLayer is a layer with this test binary as boxer.
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
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	var zip bytes.Buffer
	if err := layer.Build(&zip, layer.Files{Boxer: exe, Library: library}); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "layer.zip")
	testLayerMade = path
	return path, os.WriteFile(path, zip.Bytes(), 0o644)
})

func testRuntime(t *testing.T) Runtime {
	t.Helper()
	path, err := testLayer()
	if err != nil {
		t.Fatal(err)
	}
	return Runtime{Layers: map[string]string{runtime.GOARCH: path}}
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
	for range 500 {
		lines, _ = c.Tail(slot, 1000)
		if text := strings.Join(lines, "\n"); strings.Contains(text, want) {
			return text
		}
		time.Sleep(10 * time.Millisecond)
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
