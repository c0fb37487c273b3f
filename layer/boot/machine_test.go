// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed testdata/machine.sh
var machineScript string

// machine is an instance: its disk outlives a boot.
type machine struct {
	t       *testing.T
	s       *space
	number  int
	dir     string
	address string
	gateway string // the other end of its cable
	console *record
	cmd     *exec.Cmd
	ended   chan struct{}
}

// record is what was written so far.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(data []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(data)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func newMachine(t *testing.T, s *space, number int) *machine {
	t.Helper()
	for _, program := range []string{"/usr/bin/cloud-init", "/lib/systemd/systemd", "/usr/bin/unshare", "/usr/bin/setpriv"} {
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("%v: run 'make deps'", err)
		}
	}
	m := &machine{t: t, s: s, number: number, dir: fmt.Sprintf("%s/%d", s.dir, number), console: &record{},
		address: fmt.Sprintf("10.77.%d.2", number), gateway: fmt.Sprintf("10.77.%d.1", number)}
	s.do(func() { _ = os.Mkdir(m.dir, 0o755) })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of %d:\n%s", number, m.console)
			t.Logf("cloud-init of %d:\n%s", number, m.run("tail", "-n", "30", "/var/log/cloud-init.log"))
			t.Logf("journal of %d:\n%s", number, m.run("journalctl", "--no-pager", "-n", "60", "-u", "boxer", "-u", "boxer-upgrade"))
		}
		m.kill()
	})
	return m
}

// own puts a program of its own on its disk, before the first boot.
func (m *machine) own(path, content string) {
	m.t.Helper()
	var err error
	m.s.do(func() {
		path = m.dir + "/upper" + path
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.WriteFile(path, []byte(content), 0o755)
		}
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// boot starts it. It ends by itself or with the test.
func (m *machine) boot() {
	m.t.Helper()
	master, slave := pty(m.t)
	go func() { _, _ = io.Copy(m.console, master); master.Close() }()
	script := filepath.Join(m.t.TempDir(), "machine.sh")
	if err := os.WriteFile(script, []byte(machineScript), 0o755); err != nil {
		m.t.Fatal(err)
	}
	cgroup := group(m.t, fmt.Sprint(m.number))
	m.cmd = exec.Command("/bin/sh", script, m.dir, cgroup, slave.Name(), m.address, m.gateway)
	m.cmd.Stdout, m.cmd.Stderr = slave, slave
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET}
	start, err := m.cmd.StdinPipe()
	if err == nil {
		m.s.do(func() { err = m.cmd.Start() })
	}
	if err != nil {
		_ = os.Remove(cgroup)
		m.t.Fatalf("a machine cannot be made: %v", err)
	}
	ended := make(chan struct{})
	m.ended = ended
	go func() {
		_ = m.cmd.Wait()
		slave.Close()
		for range 100 { // its control groups are let go of by and by
			if removeGroup(cgroup) == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		close(ended)
	}()
	cable := fmt.Sprintf("vm%d", m.number)
	m.s.do(func() { _ = exec.Command("ip", "link", "delete", cable).Run() }) // of the boot before: the kernel takes its time
	m.s.ip(m.t, fmt.Sprintf("link add %s type veth peer name eth0 netns %d", cable, m.cmd.Process.Pid))
	m.s.ip(m.t, fmt.Sprintf("address add %s/24 dev %s", m.gateway, cable))
	m.s.ip(m.t, fmt.Sprintf("link set %s up", cable))
	if _, err := start.Write([]byte("go\n")); err != nil {
		m.t.Fatal(err)
	}
}

// removeGroup removes a control group with those below.
func removeGroup(dir string) error {
	below, _ := filepath.Glob(dir + "/*/cgroup.procs")
	for _, file := range below {
		_ = removeGroup(filepath.Dir(file))
	}
	return os.Remove(dir)
}

func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// run runs a command in the machine.
func (m *machine) run(args ...string) string {
	if m.cmd == nil || m.cmd.Process == nil {
		return "not started"
	}
	in := append([]string{"-t", fmt.Sprint(m.cmd.Process.Pid), "-m", "-p", "-u", "-n", "-i", "-C", "-r", "-w"}, args...)
	cmd := exec.Command("nsenter", in...)
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s\n%v", out, err)
	}
	return string(out)
}

// shutDown ends it in order, as a reboot does.
func (m *machine) shutDown() {
	m.t.Helper()
	const reboot = 34 + 5 // SIGRTMIN+5, see systemd(1)
	if err := m.cmd.Process.Signal(syscall.Signal(reboot)); err != nil {
		m.t.Fatal(err)
	}
	select {
	case <-m.ended:
	case <-time.After(20 * time.Second):
		m.t.Fatalf("the machine does not shut down: %s", m.run("systemctl", "list-jobs", "--no-pager"))
	}
}

// kill cuts its power.
func (m *machine) kill() {
	if m.ended == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// says waits for words on the console.
func (m *machine) says(within time.Duration, words ...string) {
	m.t.Helper()
	for _, word := range words {
		m.until(within, fmt.Sprintf("%q on the console", word), func() bool { return strings.Contains(m.console.String(), word) })
	}
}

// until waits for what must come.
func (m *machine) until(within time.Duration, what string, met func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(within); !met(); time.Sleep(50 * time.Millisecond) {
		select {
		case <-m.ended:
			m.t.Fatalf("the machine has ended; waited for %s", what)
		default:
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("no %s within %s", what, within)
		}
	}
}
