// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// stopTime is for a supervisor to leave and its guest to end.
const stopTime = 15 * time.Second

// killTime is for what was killed to be gone.
const killTime = 5 * time.Second

// process is one supervisor, with all that it starts: known by their mount namespace,
// for programs that change their title overwrite their environment.
type process struct {
	name, root, address string
	ended               chan struct{} // closed when the supervisor has ended, or never began

	mu     sync.Mutex
	cmd    *exec.Cmd
	mounts string   // the mount namespace
	held   *os.File // of it: else its number would be another one's when all of it has ended
	gone   bool     // told to end: nothing starts any more
}

// place is what a node's document needs to be true of a plain process.
type place struct {
	UnderlayAddress string   `json:"underlay_address"`
	Shared          bool     `json:"shared"`
	Root            string   `json:"root"`
	Places          []string `json:"places"`
}

func (p *process) place(files map[string]string) place {
	at := place{UnderlayAddress: p.address, Shared: true, Root: p.root, Places: []string{"/var/task", "/opt"}}
	for name := range files {
		at.Places = append(at.Places, name)
	}
	return at
}

func (p *process) log() string { return filepath.Join(p.root, "log") }

// prepare makes what a machine has. Files are put in place here, below its directory:
// a supervisor would put them where they are said to be, on this machine.
func (p *process) prepare(doc *config.Node) error {
	for _, dir := range []string{"tmp", "etc/boxer", "var/lib/boxer", "var/task"} {
		if err := os.MkdirAll(filepath.Join(p.root, dir), 0o755); err != nil {
			return err
		}
	}
	for name, content := range doc.Files {
		path := p.root + name
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	doc.Files = nil
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return os.WriteFile(p.root+layer.DefaultConfigFile, data, 0o600)
}

func (p *process) start(dir string, env []string, argv ...string) error {
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		close(p.ended)
		return err
	}
	defer log.Close()
	cmd, err := withAccount(p.root, argv...)
	if err != nil {
		close(p.ended)
		return err
	}
	env = append(env, "TMPDIR="+p.root+"/tmp")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, log, log
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		close(p.ended)
		return nil
	}
	if err := cmd.Start(); err != nil {
		close(p.ended)
		return err
	}
	p.cmd = cmd
	if p.held, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid)); err == nil {
		p.mounts, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.held.Fd()))
	}
	go func() {
		err := cmd.Wait()
		p.say(fmt.Sprintf("the supervisor has ended: %v", err))
		close(p.ended)
	}()
	return nil
}

// withAccount is a command that finds the account that the bootstrap script makes for
// guests. Here it is the test's own user, in a mount namespace whose /etc/passwd has it.
func withAccount(dir string, argv ...string) (*exec.Cmd, error) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	account := fmt.Sprintf("%s:x:0:0::%s/tmp:/bin/sh\n", layer.GuestUser, dir)
	if err := os.WriteFile(filepath.Join(dir, "passwd"), append(passwd, account...), 0o644); err != nil {
		return nil, err
	}
	const script = `mount --bind "$0" /etc/passwd && exec "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, filepath.Join(dir, "passwd")}, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return cmd, nil
}

func (p *process) say(text string) {
	_ = os.MkdirAll(p.root, 0o755)
	if log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
		_, _ = fmt.Fprintln(log, text)
		_ = log.Close()
	}
}

// stop ends it as a machine that is shut down does.
func (p *process) stop() {
	p.mu.Lock()
	p.gone = true
	cmd := p.cmd
	p.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(stopTime):
			p.say("the supervisor did not end in time")
		}
	}
	p.kill()
	if cmd != nil {
		select {
		case <-p.ended: // what is said of that is written where it is removed next
		case <-time.After(killTime):
		}
	}
}

// kill returns when nothing of it is left.
func (p *process) kill() {
	p.mu.Lock()
	p.gone = true
	mounts := p.mounts
	p.mu.Unlock()
	if mounts == "" {
		return
	}
	for end := time.Now().Add(killTime); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		found := false
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if of, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); of == mounts {
				found = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if !found {
			return
		}
	}
}

func (p *process) lastWords() string {
	data, _ := os.ReadFile(p.log())
	const most = 4096
	return string(data[max(0, len(data)-most):])
}
