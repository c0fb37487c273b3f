// SPDX-License-Identifier: Apache-2.0

package guestcheck

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// guestID is the user that functions run as on Lambda.
const guestID = 993

// Inside is what Run starts, as pid 1 of new namespaces: it makes them like a
// function's and runs the program as an ordinary user. It tells file 3 the program's
// exit status, and stays until it is killed.
func Inside(argv []string) {
	said := os.NewFile(3, "run")
	syscall.CloseOnExec(3)
	if err := likeFunction(); err != nil {
		fmt.Fprintln(said, err)
		os.Exit(1)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	id := []syscall.SysProcIDMap{{ContainerID: guestID, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: id, GidMappings: id}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		fmt.Fprintln(said, 0)
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		fmt.Fprintln(said, exit.ExitCode())
	case errors.As(err, &exit):
		fmt.Fprintln(said, 128+int(exit.Sys().(syscall.WaitStatus).Signal()))
	default:
		fmt.Fprintln(said, err)
	}
	for { // what it left in the background goes on until all are killed
		time.Sleep(time.Hour)
	}
}

// likeFunction: loopback, and nothing to write to but /tmp.
func likeFunction() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("/tmp", "/tmp", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind /tmp: %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make everything read-only (needs Linux 5.12 or newer): %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/tmp", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("keep /tmp writable: %w", err)
	}
	// Of these processes; the program's user is set by a file of it.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if dir, err := os.Getwd(); err == nil {
		_ = os.Chdir(dir) // the new mount of what lies in /tmp
	}
	return nil
}
