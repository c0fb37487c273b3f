// SPDX-License-Identifier: Apache-2.0

// Package process starts, signals, reaps and restarts one guest, and takes up
// again a guest that outlived the supervisor before this one.
package process

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec is what to run.
type Spec struct {
	Argv []string
	Env  []string // complete; its PATH is where the command is looked for
	Dir  string   // empty: this process's
	User string   // a name or number of the node's accounts; empty: this process's

	Stdin, Stdout, Stderr *os.File // handed over as they are; nil: /dev/null

	// Foreground keeps the guest in this process group, so that a terminal
	// treats both as one job. Otherwise it leads a session of its own.
	Foreground bool
}

// Process is one run of the guest.
type Process struct {
	pid     int
	started uint64 // clock ticks since boot: with the pid, unique
	group   bool   // leads a process group of its own

	mu    sync.Mutex
	pidfd int // -1 when the end has been seen

	done chan struct{}
	exit *int // nil: unknown, of an adopted process
}

// StartError says why the guest does not run, with the exit status that shells
// and container runtimes give: 127 not found, 126 found but not runnable.
type StartError struct {
	Code int
	Err  error
}

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// Start runs the guest. Its descriptors are the given files themselves, never
// pipes to this process: killing the supervisor must not break the guest.
// There is no parent-death signal either (Lambda forbids it, and a guest
// survives its supervisor).
func Start(s Spec) (*Process, error) {
	path, err := lookUp(s)
	if err != nil {
		return nil, err
	}
	files, closeFiles, err := stdio(s)
	if err != nil {
		return nil, &StartError{126, err}
	}
	defer closeFiles()
	who, err := credential(s.User)
	if err != nil {
		return nil, &StartError{126, err}
	}
	sys := &syscall.SysProcAttr{Setsid: !s.Foreground, Credential: who}
	child, err := os.StartProcess(path, s.Argv, &os.ProcAttr{Dir: s.Dir, Env: s.Env, Files: files, Sys: sys})
	if err != nil {
		return nil, startError(s.Argv[0], path, err)
	}
	// The child is not reaped yet, so the number is its own. (Having clone make the
	// descriptor saves a call, and does not work under emulators.)
	pidfd, err := unix.PidfdOpen(child.Pid, 0)
	if err != nil {
		_ = child.Kill()
		_, _ = child.Wait()
		return nil, &StartError{126, fmt.Errorf("hold the guest: %w", os.NewSyscallError("pidfd_open", err))}
	}
	p := &Process{pid: child.Pid, group: !s.Foreground, pidfd: pidfd, done: make(chan struct{})}
	p.started, _ = startTime(p.pid)
	go p.reap(child)
	return p, nil
}

func stdio(s Spec) ([]*os.File, func(), error) {
	files := []*os.File{s.Stdin, s.Stdout, s.Stderr}
	var null *os.File
	for i, f := range files {
		if f != nil {
			continue
		}
		if null == nil {
			var err error
			if null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
				return nil, nil, err
			}
		}
		files[i] = null
	}
	return files, func() {
		if null != nil {
			_ = null.Close()
		}
	}, nil
}

func (p *Process) reap(child *os.Process) {
	state, err := child.Wait()
	code := 255 // cannot happen: the child is ours alone
	if err == nil {
		code = state.ExitCode()
		if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
	}
	p.exit = &code
	p.end()
}

func (p *Process) end() {
	p.mu.Lock()
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
		p.pidfd = -1
	}
	p.mu.Unlock()
	close(p.done)
}

// Adopt takes up a running process by its pid and start time. Its exit status
// will stay unknown, since it is not a child of this process.
func Adopt(pid int, started uint64) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	// Looked at after the descriptor was opened: it cannot become another's now.
	now, err := startTime(pid)
	if err == nil && now != started {
		err = errors.New("the process number belongs to another process now")
	}
	if err == nil && ended(fd) {
		err = syscall.ESRCH // a zombie
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	pgid, _ := unix.Getpgid(pid)
	p := &Process{pid: pid, started: started, group: pgid == pid, pidfd: fd, done: make(chan struct{})}
	go p.watch(fd)
	return p, nil
}

func ended(pidfd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// watch waits for the end of an adopted process.
func (p *Process) watch(fd int) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n > 0 || err != nil && !errors.Is(err, syscall.EINTR) {
			p.end()
			return
		}
	}
}

// PID of the guest.
func (p *Process) PID() int { return p.pid }

// StartTime is in clock ticks since boot, as Adopt wants it.
func (p *Process) StartTime() uint64 { return p.started }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is valid after Done: the exit status, 128+n after signal n, nil
// when it is unknown.
func (p *Process) ExitCode() *int { return p.exit }

// Signal sends to the guest's first process.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return os.ErrProcessDone
	}
	if err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("send %v to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// SignalAll sends to all processes of the guest that did not make a group of
// their own. A foreground guest shares this process's group: then only to it.
func (p *Process) SignalAll(sig syscall.Signal) error {
	if !p.group {
		return p.Signal(sig)
	}
	if err := unix.Kill(-p.pid, sig); err != nil {
		return fmt.Errorf("send %v to process group %d: %w", sig, p.pid, err)
	}
	return nil
}

// Find looks for a guest by a variable of its environment ("NAME=value") that no other
// has: the process that leads its session, as Start makes it lead one. Not found are
// those that write over their environment to change what ps shows.
func Find(variable string) (pid int, started uint64, ok bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, false
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if sid, err := unix.Getsid(pid); err != nil || sid != pid {
			continue
		}
		environ, err := os.ReadFile("/proc/" + entry.Name() + "/environ")
		if err != nil || !slices.Contains(strings.Split(string(environ), "\x00"), variable) {
			continue
		}
		if started, err := startTime(pid); err == nil {
			return pid, started, true
		}
	}
	return 0, 0, false
}

// startTime reads field 22 of /proc/<pid>/stat. The command in field 2 may
// hold any byte, so the fields are counted from its last parenthesis.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStartTime(string(data))
}

func parseStartTime(stat string) (uint64, error) {
	at := strings.LastIndexByte(stat, ')')
	if at < 0 {
		return 0, errors.New("process status: no command")
	}
	fields := strings.Fields(stat[at+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("process status: %d fields", len(fields))
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("process status: start time: %w", err)
	}
	return started, nil
}
