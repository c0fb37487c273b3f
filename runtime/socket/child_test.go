// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// holdInChild lets a child hold g's listener and closes it here. back fetches
// it from the child.
func holdInChild(t *testing.T, g *guest) (back func() int) {
	t.Helper()
	copied, err := unix.Dup(g.fd)
	must(t, err)
	child := exec.Command("sleep", "60")
	file := os.NewFile(uintptr(copied), "listener")
	child.ExtraFiles = []*os.File{file}
	must(t, child.Start())
	file.Close()
	g.close()
	t.Cleanup(func() {
		child.Process.Kill()
		child.Wait()
	})
	return func() int {
		pidfd, err := unix.PidfdOpen(child.Process.Pid, 0)
		must(t, err)
		defer unix.Close(pidfd)
		fd, err := unix.PidfdGetfd(pidfd, 3, 0)
		must(t, err)
		t.Cleanup(g.close)
		return fd
	}
}
