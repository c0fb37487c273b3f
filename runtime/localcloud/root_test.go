// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A package manager replaces files of /etc while a host's root is assembled.
func TestAttachWhatWasReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "gshadow"), filepath.Join(dir, "attached")
	write := func(content string) {
		if err := errors.Join(os.WriteFile(from+"+", []byte(content), 0o600), os.Rename(from+"+", from)); err != nil {
			t.Error(err)
		}
	}
	var denied error
	done := make(chan struct{})
	go func() { // its thread has mounts of its own, and ends with it
		defer close(done)
		runtime.LockOSThread()
		denied = unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if denied != nil {
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
			return
		}
		write("old")
		placed := tree{from: from, path: "/gshadow", readOnly: true}
		if err := placed.open(); err != nil {
			t.Error(err)
			return
		}
		defer func() { unix.Close(placed.fd) }()
		write("new")
		if err := placed.attach(to); err != nil {
			t.Errorf("attach: %v", err)
		}
		if got, err := os.ReadFile(to); string(got) != "new" {
			t.Errorf("%q, %v", got, err)
		}
	}()
	switch <-done; {
	case denied != nil && os.Getuid() == 0:
		t.Error("root may make a mount namespace: ", denied)
	case denied != nil:
		t.Skip("only root may make a mount namespace: ", denied)
	}
}
