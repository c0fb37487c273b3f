// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
