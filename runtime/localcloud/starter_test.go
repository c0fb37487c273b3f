// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// TestStarterLeavesNoTrace: neither the daemon nor a guest has the open files
// or the umask of whoever made the network. Not parallel: both are the process's.
func TestStarterLeavesNoTrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "starters-lock")
	lock, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT, 0o600) // not close-on-exec, as a shell's
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			unix.Close(lock)
		}
	}()
	if err := unix.Flock(lock, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := testLayer(); err != nil { // made with the usual umask
		t.Fatal(err)
	}
	s := testStore(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old) // should making it fail
	c := testNetwork(t, s, "shop")
	unix.Umask(old)
	unix.Close(lock)
	closed = true

	again, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the daemon keeps the lock of its starter: %v", err)
	}
	out := shell(t, c, "probe", "umask; for f in /proc/$$/fd/*; do readlink $f; done")
	if strings.Contains(out, "starters-lock") {
		t.Errorf("a guest has the starter's file open:\n%s", out)
	}
	if !strings.Contains(out, "0022") {
		t.Errorf("want umask 0022:\n%s", out)
	}
	// A function sees the layer itself, which was unpacked under that umask.
	if _, err := c.CreateFunction(testContext(t), FunctionSpec{Name: "work"}); err != nil {
		t.Fatal(err)
	}
	invoke(t, c, "work", "work-0", "sh", "-c", "echo function-output; exec sleep 1000")
	output(t, c, "work-0", "function-output")
}

// TestInterruptedCreate: who is interrupted while a host is made knows of it
// and can take it back.
func TestInterruptedCreate(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "shop")
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	go func() {
		defer cancel()
		for range 2000 {
			if _, err := c.Host(testContext(t), "late"); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := c.CreateHost(ctx, HostSpec{Config: config.Node{
		Network: "shop", Kind: config.KindVM, Slot: "late", Argv: []string{"sleep", "1000"},
	}})
	if err != nil {
		t.Errorf("a host its caller does not know of: %v", err)
	}
	if err := c.DeleteHost(testContext(t), "late"); err != nil {
		t.Error(err)
	}
}

// TestSeedHostDies: the host of the seed comes back by itself, at its addresses.
func TestSeedHostDies(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "shop")
	before, err := c.Host(testContext(t), cluster.SeedName(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(before.MachinePID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		after, err := c.Host(testContext(t), cluster.SeedName(0))
		if err == nil && after.State == HostRunning && after.PID != before.PID {
			if after.UnderlayAddress != before.UnderlayAddress {
				t.Errorf("it moved from %s to %s", before.UnderlayAddress, after.UnderlayAddress)
			}
			if err := observe(testContext(t), c.Info(), readSecret(t, c)); err != nil {
				time.Sleep(10 * time.Millisecond)
				continue // it is still starting
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the seed did not come back")
}

func readSecret(t *testing.T, c *Client) []byte {
	t.Helper()
	secret, err := os.ReadFile(c.Info().SecretFile)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.TrimSpace(string(secret)))
}

// TestOneHolder: a host and a function cannot hold a slot at the same time;
// the second would empty the log of the first, and delete it in the end.
func TestOneHolder(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "shop")
	vm(t, c, "work-0", nil, "sh", "-c", "echo precious; exec sleep 1000")
	output(t, c, "work-0", "precious")
	for _, f := range []string{"work", "seed"} {
		if _, err := c.CreateFunction(testContext(t), FunctionSpec{Name: f}); err != nil {
			t.Fatal(err)
		}
		payload := []byte(`{"slot":"` + f + `-0"}`)
		if _, err := c.Invoke(testContext(t), f, payload); !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v", f, err)
		}
		if err := c.DeleteFunction(testContext(t), f); err != nil {
			t.Error(err)
		}
	}
	output(t, c, "work-0", "precious")
	if _, err := os.Stat(c.NodeLogPath(cluster.SeedName(0))); err != nil {
		t.Error(err)
	}

	if _, err := c.CreateFunction(testContext(t), FunctionSpec{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	invoke(t, c, "other", "other-0", "sleep", "1000")
	_, err := c.CreateHost(testContext(t), HostSpec{Config: config.Node{
		Network: "shop", Kind: config.KindVM, Slot: "other-0", Argv: []string{"sleep", "1"},
	}})
	if !errors.Is(err, ErrExists) {
		t.Errorf("a host in a function's slot: %v", err)
	}
}
