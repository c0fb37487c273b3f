// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// space is the network around the machines, and a file system that only it sees: the
// namespaces of one thread, and of what that starts.
type space struct {
	dir  string // a tmpfs
	work chan func()
}

// cannot skips a test that this machine cannot run; CI's must.
func cannot(t *testing.T, why string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("CI requires this test: "+why, args...)
	}
	t.Skipf(why, args...)
}

// newSpace skips the test where it may not be made.
func newSpace(t *testing.T) *space {
	t.Helper()
	if os.Getuid() != 0 {
		cannot(t, "booting a machine takes root")
	}
	s := &space{dir: t.TempDir(), work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespaces
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", s.dir, "tmpfs", 0, "mode=0755")
		}
		made <- err
		for f := range s.work {
			f()
		}
	}()
	t.Cleanup(func() { close(s.work) })
	if err := <-made; err != nil {
		cannot(t, "no namespaces for a machine of the test's own: %v", err)
	}
	s.ip(t, "link set lo up")
	return s
}

// do runs f inside.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.work <- func() { defer close(done); f() }
	<-done
}

func (s *space) ip(t *testing.T, args string) {
	t.Helper()
	var out []byte
	var err error
	s.do(func() { out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput() })
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// listen opens a port inside; ttl bounds how far its answers go, as the metadata's do.
func (s *space) listen(t *testing.T, address string, ttl int) net.Listener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if ttl > 0 {
			_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) })
		}
		return err
	}}
	var ln net.Listener
	var err error
	s.do(func() { ln, err = lc.Listen(context.Background(), "tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// dial connects inside, to an address.
func (s *space) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	s.do(func() { conn, err = (&net.Dialer{}).DialContext(ctx, network, address) })
	return conn, err
}

// start starts a program inside, which ends with the test.
func (s *space) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var err error
	s.do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// group makes a control group for a machine; "" where there is none of version 2.
func group(t *testing.T, name string) string {
	t.Helper()
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			dir := fmt.Sprintf("%s/boxer-%d-%s", fields[1], os.Getpid(), name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				cannot(t, "no control group for a machine of the test's own: %v", err)
			}
			return dir
		}
	}
	cannot(t, "no control groups of version 2, which systemd needs")
	return ""
}
