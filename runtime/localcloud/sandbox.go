// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUpTime bounds assembling a host.
const setUpTime = 15 * time.Second

// sandbox is a running init with everything below it: a VM host or a function's
// sandbox.
type sandbox struct {
	cmd  *exec.Cmd
	line *os.File      // to its init: reports in, orders out
	gone chan struct{} // closed when every process is gone and all was given back

	started, halted chan struct{}   // a report of either kind
	frozen          chan initReport // how each event ended, where there are several

	ended time.Time // set before gone is closed

	logs string // the name of its logs, under daemon.logging

	mu     sync.Mutex
	asked  bool       // to end
	result initReport // the last report
}

// startSandbox starts an init at a place and waits until it is set up. It takes
// over what is handed in (listeners, or entries of control groups) and the
// place, whatever happens, and calls cleanUp when all processes are gone.
func (d *daemon) startSandbox(spec initSpec, at *place, handed []*os.File, cleanUp func(*sandbox)) (*sandbox, error) {
	b := &sandbox{gone: make(chan struct{}), started: make(chan struct{}, 1), halted: make(chan struct{}, 1), frozen: make(chan initReport, 1)}
	release := func() {
		b.ended = time.Now().UTC()
		at.release()
		d.leaveLogs(b, spec.Slot)
		cleanUp(b)
		close(b.gone)
	}
	err := d.launchInit(b, spec, at, handed)
	closeAll(handed)
	if err != nil {
		release()
		return nil, err
	}
	go func() {
		b.follow()
		_ = b.cmd.Wait()
		if d.plain() {
			d.forgetInit(b.cmd.Process.Pid)
			d.clearStrays()
		}
		b.mu.Lock()
		if b.result.Error != "" {
			b.result.Error += d.lastWordsOf(b)
		}
		b.mu.Unlock()
		release()
	}()
	select {
	case <-b.started:
		return b, nil
	case <-b.gone:
		return nil, errors.New(b.failure())
	case <-time.After(setUpTime):
		b.end(0)
		return nil, fmt.Errorf("not set up after %s", setUpTime)
	}
}

func (d *daemon) launchInit(b *sandbox, spec initSpec, at *place, handed []*os.File) error {
	doc, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	logs, err := d.takeLogs(b, spec.Slot)
	if err != nil {
		return err
	}
	defer logs.close()
	specOut, specIn, err := os.Pipe()
	if err != nil {
		return err
	}
	defer specOut.Close()
	defer specIn.Close()
	ours, theirs, err := initLine()
	if err != nil {
		return err
	}
	defer theirs.Close()
	// The arguments are only for whoever looks at the list of processes.
	b.cmd = exec.Command("/proc/self/exe", "local-host", d.info.Name+"/"+spec.Slot)
	b.cmd.Args[0] = "boxer"
	b.cmd.Env, b.cmd.Dir = []string{"PATH=" + hostPath}, "/"
	b.cmd.Stdout, b.cmd.Stderr = logs.guest, logs.node
	b.cmd.ExtraFiles = append([]*os.File{specOut, theirs}, handed...)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	if err := d.startInit(b.cmd, at, spec); err != nil {
		ours.Close()
		return fmt.Errorf("start host: %w", err)
	}
	specOut.Close() // so that an init that ends early fails the write
	if _, err := io.Copy(specIn, bytes.NewReader(doc)); err != nil {
		ours.Close()
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		d.forgetInit(b.cmd.Process.Pid)
		return fmt.Errorf("start host: %w", err)
	}
	b.line = ours
	return nil
}

// initLine makes the two ends of a sandbox's line. Ours can wait without a thread.
func initLine() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "line"), os.NewFile(uintptr(fds[1]), "line"), nil
}

// follow reads the init's reports until it has ended.
func (b *sandbox) follow() {
	defer b.line.Close()
	decoder := json.NewDecoder(b.line)
	for {
		var r initReport
		if err := decoder.Decode(&r); err != nil {
			return
		}
		if r.Frozen {
			b.frozen <- r
			continue
		}
		if r.Started || r.Halted {
			tell := b.started
			if r.Halted {
				tell = b.halted
			}
			select {
			case tell <- struct{}{}:
			default: // of an order that nobody waits for any more
			}
			continue
		}
		b.mu.Lock()
		b.result = r
		b.mu.Unlock()
	}
}

// failure says why the sandbox ended, "" if it was asked to or was done.
func (b *sandbox) failure() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.result.Error != "":
		return b.result.Error
	case b.result.Done || b.asked:
		return ""
	}
	return "killed from outside"
}

// explain puts the reason before what is known of a failure.
func (b *sandbox) explain(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.result.Error != "" {
		b.result.Error = reason + ": " + b.result.Error
	}
}

// done: the event of the sandbox was answered.
func (b *sandbox) done() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.result.Done
}

func (b *sandbox) running() bool {
	select {
	case <-b.gone:
		return false
	default:
		return true
	}
}

// end asks the sandbox to end, kills it after grace, and returns when it is gone.
func (b *sandbox) end(grace time.Duration) {
	b.mu.Lock()
	b.asked = true
	b.mu.Unlock()
	_ = b.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-b.gone:
		return
	case <-time.After(grace + time.Second/2):
	}
	_ = b.cmd.Process.Kill()
	<-b.gone
}

// endAll ends sandboxes, all at the same time.
func endAll(boxes []*sandbox) {
	var wg sync.WaitGroup
	for _, b := range boxes {
		wg.Go(func() { b.end(drainTime) })
	}
	wg.Wait()
}

// logFiles are the two logs of a slot.
type logFiles struct{ guest, node *os.File }

func (l logFiles) close() {
	for _, f := range []*os.File{l.guest, l.node} {
		if f != nil {
			f.Close()
		}
	}
}

// openLogs makes the logs of a launch. New files tell it from the launch before
// to whoever reads along. They belong to the guest, which may open them again as
// /dev/stdout.
func (d *daemon) openLogs(slot string) (logs logFiles, err error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	uid, gid := d.mapIDs()
	for _, l := range []struct {
		path string
		file **os.File
	}{{guestLog(d.dir, slot), &logs.guest}, {nodeLog(d.dir, slot), &logs.node}} {
		if err = os.Remove(l.path); err == nil || errors.Is(err, os.ErrNotExist) {
			*l.file, err = os.OpenFile(l.path, os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
		}
		if err == nil {
			err = (*l.file).Chown(uid, gid)
		}
		if err == nil {
			err = makeRoom(*l.file)
		}
		if err != nil {
			logs.close()
			return logFiles{}, stateError(d.dir.stateDir(), err)
		}
	}
	return logs, nil
}

// makeRoom sees to it that the first words can be written. Where the file system
// cannot tell, that is left open.
func makeRoom(f *os.File) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	return nil
}

func guestLog(d netDir, slot string) string { return d.join("logs", slot+".log") }
func nodeLog(d netDir, slot string) string  { return d.join("logs", slot+".node.log") }
