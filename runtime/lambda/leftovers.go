// SPDX-License-Identifier: Apache-2.0

package lambda

import (
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// sandbox is what there was before a node's life. The platform uses a sandbox
// again, for another node: what the first one's guest has left, processes that
// left its group and files in /tmp, is not the next one's business.
type sandbox struct {
	processes map[int]string // start time by number
	files     map[string]bool
}

// clearTime bounds how long killed processes take to be gone.
const clearTime = 2 * time.Second

// look notes what there is; nil where this is not alone in a sandbox of the
// platform's, whose root nobody can write.
func look() *sandbox {
	var root unix.Statfs_t
	if err := unix.Statfs("/", &root); err != nil || root.Flags&unix.ST_RDONLY == 0 || os.Getuid() == 0 {
		return nil
	}
	s := &sandbox{processes: map[int]string{}, files: map[string]bool{}}
	for pid, p := range processes() {
		s.processes[pid] = p.started
	}
	for _, name := range names(os.TempDir()) {
		s.files[name] = true
	}
	return s
}

// restore ends what was not there before, and removes its files.
func (s *sandbox) restore(log zerolog.Logger) {
	if s == nil {
		return
	}
	killed := map[int]bool{}
	for end := time.Now().Add(clearTime); ; time.Sleep(2 * time.Millisecond) {
		left := s.strangers()
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			log.Error().Ints("pids", left).Msg("processes of the guest do not end")
			break
		}
		for _, pid := range left {
			if err := unix.Kill(pid, unix.SIGKILL); errors.Is(err, unix.EPERM) {
				s.processes[pid] = processes()[pid].started // the platform's own
				continue
			}
			killed[pid] = true
		}
	}
	removed := 0
	for _, name := range names(os.TempDir()) {
		if s.files[name] {
			continue
		}
		removed++
		if err := removeAll(filepath.Join(os.TempDir(), name)); err != nil {
			log.Error().Err(err).Msg("the next node here finds a file of this one's guest")
		}
	}
	if len(killed) > 0 || removed > 0 {
		log.Info().Int("processes", len(killed)).Int("files", removed).Msg("cleared away what the guest had left")
	}
	debug.FreeOSMemory()
}

// strangers are the processes that were not there before, but for those
// that descend from one that was: what an extension starts is its own.
func (s *sandbox) strangers() []int {
	all := processes()
	var found []int
	for pid, p := range all {
		if pid != os.Getpid() && !p.ended && s.processes[pid] != p.started && !s.belongs(all, p.parent) {
			found = append(found, pid)
		}
	}
	return found
}

// belongs: the chain of parents has somebody from before, who is neither this
// process nor the one that orphans come to.
func (s *sandbox) belongs(all map[int]running, parent int) bool {
	for parent > 1 && parent != os.Getpid() {
		p, there := all[parent]
		if !there {
			return false
		}
		if s.processes[parent] == p.started {
			return true
		}
		parent = p.parent
	}
	return false
}

// running is a process as /proc has it.
type running struct {
	parent  int
	started string
	ended   bool // and not reaped yet
}

func processes() map[int]running {
	all := map[int]running{}
	for _, name := range names("/proc") {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		stat := string(data)
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // from the third, the state
		if len(fields) < 20 {
			continue
		}
		p := running{started: fields[19], ended: fields[0] == "Z" || fields[0] == "X"}
		p.parent, _ = strconv.Atoi(fields[1])
		all[pid] = p
	}
	return all
}

func names(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	list, _ := d.Readdirnames(-1)
	return list
}

// removeAll also removes what was closed to everybody.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(path string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
