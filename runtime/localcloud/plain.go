// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Without namespaces a host is a directory and the processes below its init,
// which is no process 1: it has to find its processes, and to end them, itself.

const plainWord = "plain"

// clearTime bounds ending what is left of a host.
const clearTime = 5 * time.Second

// plainMain is `boxer local-host plain NAME`.
func plainMain() int {
	// What loses its parent comes to the init, as it does to a process 1.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "boxer local-host: %v\n", err)
		return 125
	}
	h, err := newHostInit()
	if err == nil && !h.spec.Plain {
		err = errors.New("local host: told to be a host with namespaces")
	}
	if err == nil {
		go h.endWithDaemon()
		err = h.run()
	}
	h.clear()
	h.report(initReport{Done: err == nil, Error: errorText(err)})
	return 0
}

// endWithDaemon ends the host at once when its daemon is gone, as a process
// namespace would.
func (h *hostInit) endWithDaemon() {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: reportFD, Events: unix.POLLRDHUP}}, -1)
		if n > 0 {
			h.clear()
			os.Exit(1)
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// killAll kills every process of the host but its init.
func (h *hostInit) killAll() {
	switch {
	case h.spec.Plain:
		killBelow(os.Getpid())
	case os.Getpid() == 1:
		_ = syscall.Kill(-1, unix.SIGKILL)
	}
}

// clear returns when no process of the host is left but its init.
func (h *hostInit) clear() {
	for end := time.Now().Add(clearTime); killBelow(os.Getpid()) > 0 && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
}

// killBelow kills all descendants of a process and returns how many it saw.
func killBelow(root int) int {
	found := descendants(root)
	for _, p := range found {
		p.kill(unix.SIGKILL)
	}
	return len(found)
}

// descendants are the processes below root, those that only wait to be reaped
// excepted.
func descendants(root int) []processID {
	parent := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err == nil {
			parent[pid] = statusField(pid, "PPid:")[0]
		}
	}
	var found []processID
	for pid := range parent {
		for above, hops := parent[pid], 0; above > 1 && hops < 1000; above, hops = parent[above], hops+1 {
			if above == root {
				if p, err := identify(pid); err == nil {
					found = append(found, p)
				}
				break
			}
		}
	}
	return found
}

// plainRoot is the directory of a plain host: what is private to a host with
// namespaces lies below it.
type plainRoot struct {
	spec   *initSpec
	placed []string // files, to be taken back
}

func (r *plainRoot) at(path string) string { return filepath.Join(r.spec.Staging, path) }

// assemble makes the directory what the spec says, also when it was another one
// before.
func (r *plainRoot) assemble(spec *initSpec) error {
	r.spec = spec
	for _, step := range []func() error{r.dirs, r.secret, r.layer, r.source, r.files} {
		if err := step(); err != nil {
			return fmt.Errorf("make the host's directory: %w", err)
		}
	}
	return nil
}

// own gives a path to the guest.
func (r *plainRoot) own(path string) error {
	if r.spec.MapUID == os.Geteuid() {
		return nil
	}
	return os.Lchown(path, r.spec.MapUID, r.spec.MapGID)
}

func (r *plainRoot) dirs() error {
	if err := r.own(r.spec.Staging); err != nil {
		return err
	}
	if err := r.unlink([]string{"/opt", "/etc/boxer", "/run/boxer", "/tmp", "/var", hostStateDir}); err != nil {
		return err
	}
	for dir, mode := range map[string]os.FileMode{
		"/opt": 0o755, "/etc/boxer": 0o700, "/run/boxer": 0o755, "/tmp": 0o700, hostStateDir: 0o700,
	} {
		err := os.MkdirAll(r.at(dir), 0o755)
		if err == nil {
			err = os.Chmod(r.at(dir), mode)
		}
		if err == nil {
			err = r.own(r.at(dir))
		}
		if err != nil {
			return err
		}
	}
	return os.MkdirAll(r.at("/var"), 0o755)
}

// unlink removes links that the guest has put in the place of directories: this process
// would follow them, and it may more than the guest. Those of a package that stay in it
// are its own.
func (r *plainRoot) unlink(dirs []string) error {
	for _, dir := range dirs {
		for _, part := range partsBelow("/", dir) {
			info, err := os.Lstat(r.at(part))
			if err == nil && info.Mode()&fs.ModeSymlink != 0 && part != "/var/task" && !r.inPackage(part) {
				err = os.Remove(r.at(part))
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				return err
			}
		}
	}
	return nil
}

// inPackage tells whether a link below /var/task leads to what is below it, too.
func (r *plainRoot) inPackage(link string) bool {
	if !strings.HasPrefix(link, "/var/task/") {
		return false
	}
	task, err := filepath.EvalSymlinks(r.at("/var/task"))
	if err != nil {
		return false
	}
	to, err := filepath.EvalSymlinks(r.at(link))
	return err == nil && strings.HasPrefix(to, task+"/")
}

// fileDirs are the directories of the node's files, and of those it had before.
func (r *plainRoot) fileDirs() []string {
	var dirs []string
	for name := range r.spec.Files {
		dirs = append(dirs, filepath.Dir(name))
	}
	for _, name := range r.placed {
		dirs = append(dirs, filepath.Dir(name))
	}
	return dirs
}

func (r *plainRoot) secret() error {
	return r.write(hostSecretFile, r.spec.Secret, 0o600)
}

func (r *plainRoot) write(name, content string, mode os.FileMode) error {
	path := r.at(name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return r.own(path)
}

// layer puts the layer where the host looks for it: the zip for a VM, which
// unpacks it itself, the files for a function.
func (r *plainRoot) layer() error {
	if r.spec.LayerZip != "" {
		return linkOrCopy(r.spec.LayerZip, r.at(hostLayerZip), 0o644)
	}
	if r.spec.LayerDir == "" {
		return nil
	}
	return filepath.WalkDir(r.spec.LayerDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(r.spec.LayerDir, path)
		if err != nil {
			return err
		}
		target := filepath.Join(r.at("/opt"), relative)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return linkOrCopy(path, target, info.Mode().Perm())
	})
}

// linkOrCopy makes to the file from, at no cost where both are of one file system.
func linkOrCopy(from, to string, mode os.FileMode) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	return copyFile(from, to, mode)
}

// source shows the host's source at /var/task. A function's is everybody's, so
// one that gets files there gets a copy.
func (r *plainRoot) source() error {
	task := r.at("/var/task")
	if err := removeAll(task); err != nil {
		return err
	}
	if r.spec.Source == "" {
		return os.Mkdir(task, 0o755)
	}
	for name := range r.spec.Files {
		if !r.spec.isVM() && strings.HasPrefix(name, "/var/task/") {
			if _, err := copySource(r.spec.Source, task); err != nil {
				return err
			}
			return giveTo(task, r.spec.MapUID, r.spec.MapGID)
		}
	}
	return os.Symlink(r.spec.Source, task)
}

// files puts the node's files below the root.
func (r *plainRoot) files() error {
	if err := r.unlink(r.fileDirs()); err != nil { // /var/task is a link of ours by now
		return err
	}
	for _, name := range r.placed {
		if err := os.Remove(r.at(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	r.placed = nil
	for name, content := range r.spec.Files {
		if err := os.MkdirAll(filepath.Dir(r.at(name)), 0o755); err != nil {
			return fmt.Errorf("file %s: %w", name, err)
		}
		if err := r.write(name, content, 0o644); err != nil {
			return fmt.Errorf("file %s: %w", name, err)
		}
		r.placed = append(r.placed, name)
	}
	return nil
}

// startFunctionPlain starts the runtime of a function; of Lambda's rules it is held
// to the number of descriptors.
func (h *hostInit) startFunctionPlain(bootstrap string) error {
	if !h.spec.Relaxed {
		if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: maxFiles, Max: maxFiles}); err != nil {
			return fmt.Errorf("limit descriptors: %w", err)
		}
	}
	return h.start(bootstrap, []string{bootstrap}, append(h.spec.Event.environment(), h.spec.plainEnvironment()...), nil)
}

// plainEnvironment is what a plain host's processes are told besides the rest.
func (s *initSpec) plainEnvironment() []string {
	return []string{"TMPDIR=" + s.Staging + "/tmp", networkVariable + "=" + s.Network}
}

// startPlain starts the guest's side, as the guest's user if that is another, and
// without a way back to more rights.
func (h *hostInit) startPlain(path string, argv, env []string, files, _ []uintptr) (int, error) {
	sys := &syscall.SysProcAttr{Setsid: true}
	if h.spec.MapUID != os.Geteuid() {
		sys.Credential = &syscall.Credential{Uid: uint32(h.spec.MapUID), Gid: uint32(h.spec.MapGID)}
	}
	// The thread that starts the child is the one that must have it.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("no new privileges: %w", err)
	}
	dir := "/"
	if !h.spec.isVM() {
		dir = h.plain.at("/var/task")
	}
	pid, _, err := syscall.StartProcess(path, argv, &syscall.ProcAttr{Dir: dir, Env: env, Files: files, Sys: sys})
	runtime.UnlockOSThread()
	return pid, err
}
