// SPDX-License-Identifier: Apache-2.0

package guestcheck

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Measured is how a program ran for a while, much as on a function.
type Measured struct {
	Seconds    float64 `json:"seconds"`
	Exit       *int    `json:"exit,omitempty"` // of the program, if it ended
	Background bool    `json:"background"`     // others of it went on then
	Ports      []int   `json:"ports"`          // it listened at
	Tasks      int     `json:"tasks"`          // processes and threads, the most at once
	MemoryMB   int     `json:"memory_mb"`      // likewise
	Ring       bool    `json:"io_uring"`
	LastWords  string  `json:"last_words,omitempty"`
}

// InsideVerb makes this executable set up the namespaces that Run starts it in, see Inside.
const InsideVerb = "check-inside"

// looksEvery is how often Run looks at the program.
const looksEvery = 50 * time.Millisecond

// Run runs a program for a time in namespaces of its own: without privileges or a
// network, everything but /tmp read-only. Nothing of it is left.
func Run(ctx context.Context, argv []string, limit time.Duration) (*Measured, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	said, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer said.Close()
	output := &tail{}
	cmd := exec.CommandContext(ctx, exe, append([]string{InsideVerb}, argv...)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles, cmd.WaitDelay = output, output, []*os.File{tell}, time.Second
	id := func(n int) []syscall.SysProcIDMap { return []syscall.SysProcIDMap{{HostID: n, Size: 1}} }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC,
		UidMappings: id(os.Getuid()), GidMappings: id(os.Getgid()),
	}
	err = cmd.Start()
	tell.Close()
	if err != nil {
		return nil, fmt.Errorf("run %s apart from this machine: %w: this system denies user namespaces; check without --run", argv[0], err)
	}
	ended := make(chan string, 2)
	go func() {
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			ended <- lines.Text()
		}
		close(ended)
	}()
	m := &Measured{Ports: []int{}}
	began := time.Now()
	err = m.watch(ctx, cmd.Process.Pid, limit, ended)
	m.Seconds = time.Since(began).Round(10 * time.Millisecond).Seconds()
	_ = cmd.Process.Kill() // pid 1 of its namespace: all end with it
	_ = cmd.Wait()         // then all it said is there
	m.LastWords = output.last()
	return m, err
}

// watch looks at the program until it ends or the time is over.
func (m *Measured) watch(ctx context.Context, pid int, limit time.Duration, ended <-chan string) error {
	over, look := time.After(limit), time.NewTicker(looksEvery)
	defer look.Stop()
	for {
		m.look(pid)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
			return nil
		case <-look.C:
		case text, ok := <-ended:
			status, err := strconv.Atoi(text)
			if !ok || err != nil {
				return fmt.Errorf("run it apart from this machine: %s: check without --run", text)
			}
			m.Exit = &status
			// What went to the background may take a moment to show.
			m.Background = m.look(pid) > 0
			if !m.Background {
				return nil
			}
			ended = nil
		}
	}
}

// look adds what is seen of the program now to what was, and says how many processes there are.
func (m *Measured) look(inside int) (processes int) {
	own := namespace(inside)
	entries, err := os.ReadDir("/proc")
	if err != nil || own == "" {
		return 0
	}
	tasks, memory := 0, 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == inside || namespace(pid) != own {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil || field(status, "State") == "Z (zombie)" {
			continue
		}
		processes++
		threads, _ := strconv.Atoi(field(status, "Threads"))
		tasks += threads
		kb, _ := strconv.Atoi(strings.TrimSuffix(field(status, "RssAnon"), " kB"))
		memory += kb
		m.ring(dir)
	}
	m.Tasks, m.MemoryMB = max(m.Tasks, tasks), max(m.MemoryMB, (memory+1023)/1024)
	for _, table := range []string{"tcp", "tcp6"} {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", inside, table))
		for _, port := range listening(data) {
			if !slices.Contains(m.Ports, port) {
				m.Ports = append(m.Ports, port)
			}
		}
	}
	return processes
}

func namespace(pid int) string {
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return link
}

func (m *Measured) ring(dir string) {
	fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && to == "anon_inode:[io_uring]" {
			m.Ring = true
		}
	}
}

// field of /proc/PID/status.
func field(status []byte, name string) string {
	for _, line := range strings.Split(string(status), "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// listening are the ports of /proc/PID/net/tcp that are listened at.
func listening(table []byte) (ports []int) {
	for _, line := range strings.Split(string(table), "\n") {
		words := strings.Fields(line)
		if len(words) < 4 || words[3] != "0A" {
			continue
		}
		_, text, _ := strings.Cut(words[1], ":")
		if port, err := strconv.ParseUint(text, 16, 16); err == nil {
			ports = append(ports, int(port))
		}
	}
	return ports
}

// tail keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const tailSize = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	t.data = t.data[max(0, len(t.data)-tailSize):]
	return len(p), nil
}

// last is the last line that was written.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.data), []byte("\n"))
	clean := func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}
	return strings.Map(clean, strings.ToValidUTF8(string(lines[len(lines)-1]), "?"))
}

// measured is what the run has shown.
func (r *Report) measured(m Measured) {
	r.listens(slices.Clone(m.Ports), "It listened at port")
	switch {
	case m.Background:
		r.find("background", Change, Change, "It went to the background, and its supervisor would take it for ended.", "Have it stay in the foreground: an option, or its configuration.")
	case m.Exit != nil && *m.Exit != 0:
		r.find("run", Note, Change, fmt.Sprintf("It ended with status %d after %.1f s, without privileges and with only /tmp to write to; the last it said: %q.", *m.Exit, m.Seconds, m.LastWords),
			"Have it write to /tmp only, and do without what the message names.")
	}
	if m.Ring {
		r.find("io_uring", Change, Change, "It set up io_uring: connections made with it go past the process monitor, and functions deny it.", "Turn io_uring off in the program.")
	}
	if m.Tasks > 1000 {
		r.find("tasks", "", Change, fmt.Sprintf("It had %d processes and threads; a function may have 1,024, Boxer's included.", m.Tasks), "Lower its number of workers or threads.")
	}
}
