// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hostRoot assembles the file system of a host: what is installed on the
// machine (or in another root), read-only, around private directories.
//
// All that is taken from the machine is cloned first, as detached trees, and
// only then attached to a new tmpfs: the order keeps the new root out of its own
// clones, and works wherever the state directory lies.
type hostRoot struct {
	spec   *initSpec
	base   string // where the new root is seen: staging, then /
	trees  []tree
	links  map[string]string // path -> target
	hidden []string          // directories that exist but are empty

	passwd, group string         // of the machine
	undo          []func() error // takes the placed files away, last first
}

type tree struct {
	fd       int
	from     string
	path     string // below the new root
	dir      bool
	readOnly bool
}

// assembleRoot builds the root of this process's mount namespace and enters it.
func assembleRoot(spec *initSpec) (*hostRoot, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("assemble root: make mounts private: %w", err)
	}
	r := &hostRoot{spec: spec, base: spec.Staging, links: map[string]string{}}
	defer r.close()
	for _, step := range []func() error{
		r.readAccounts, r.cloneTop, r.cloneEtc, r.cloneDevices, r.cloneOwn, r.mountBase, r.attach, r.mountPrivate, r.writeEtc, r.maskState,
		r.enter, r.placeFiles, r.seal,
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("assemble root: %w", err)
		}
	}
	return r, nil
}

// change makes the root another one of the same host, whose guest has ended.
func (r *hostRoot) change(spec *initSpec) error {
	r.spec = spec
	for _, step := range []func() error{r.unseal, r.removeFiles, r.writeAccounts, r.placeFiles, r.seal} {
		if err := step(); err != nil {
			return fmt.Errorf("change root: %w", err)
		}
	}
	return nil
}

func (r *hostRoot) close() {
	for _, t := range r.trees {
		unix.Close(t.fd)
	}
}

// at is a path below the new root, as seen before it is entered.
func (r *hostRoot) at(path string) string { return filepath.Join(r.base, path) }

// system is where a path of the system that the host shows lies on this machine.
func (r *hostRoot) system(path string) string { return filepath.Join("/", r.spec.Root, path) }

// private are the top-level directories that are not the machine's.
var private = map[string]bool{
	"dev": true, "etc": true, "home": true, "lost+found": true, "media": true, "mnt": true, "opt": true,
	"proc": true, "root": true, "run": true, "sys": true, "tmp": true, "var": true,
}

// cloneTop takes the machine's other top-level directories.
func (r *hostRoot) cloneTop() error {
	entries, err := os.ReadDir(r.system("/"))
	if err != nil {
		return err
	}
	r.hidden = append(r.hidden, "home", "root", "mnt", "media")
	for _, e := range entries {
		path := "/" + e.Name()
		switch {
		case private[e.Name()]:
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(r.system(path))
			if err != nil {
				return err
			}
			r.links[path] = target
		case e.IsDir():
			// Some are closed to everybody but their owner (FUSE): left out.
			if err := r.clone(r.system(path), path, true); err != nil && !errors.Is(err, fs.ErrPermission) {
				return err
			}
		}
	}
	return nil
}

// clone takes a file or directory, with what is mounted below, to be attached
// at path.
func (r *hostRoot) clone(from, path string, readOnly bool) error {
	t := tree{from: from, path: path, readOnly: readOnly}
	if err := t.open(); err != nil {
		return err
	}
	r.trees = append(r.trees, t)
	return nil
}

// open clones what is at t.from now.
func (t *tree) open() error {
	info, err := os.Stat(t.from)
	if err != nil {
		return err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, t.from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return &fs.PathError{Op: "open_tree", Path: t.from, Err: err}
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	if t.readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(fd)
		return fmt.Errorf("make %s read-only (needs Linux 5.12 or newer): %w", t.from, err)
	}
	t.fd, t.dir = fd, info.IsDir()
	return nil
}

// devices are what /dev has.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

func (r *hostRoot) cloneDevices() error {
	for _, name := range devices {
		if err := r.clone("/dev/"+name, "/dev/"+name, false); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		r.links["/dev/"+name] = target
	}
	return nil
}

// cloneOwn takes what the network's directory has for this host.
func (r *hostRoot) cloneOwn() error {
	own := []struct {
		from, path string
		readOnly   bool
	}{
		{r.spec.Source, "/var/task", true},
		{r.spec.State, hostStateDir, false},
		{r.spec.LayerZip, hostLayerZip, true},
		{r.spec.LayerDir, "/opt", true},
	}
	for _, o := range own {
		if o.from == "" {
			continue
		}
		if err := r.clone(o.from, o.path, o.readOnly); err != nil {
			return err
		}
	}
	return nil
}

// mountBase mounts the tmpfs that carries everything.
func (r *hostRoot) mountBase() error {
	return r.tmpfs("/", "mode=0755,size=16m", 0)
}

func (r *hostRoot) tmpfs(path, options string, flags uintptr) error {
	if err := os.MkdirAll(r.at(path), 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", r.at(path), "tmpfs", flags|unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// own makes the directory path and gives it to the guest.
func (r *hostRoot) own(path string, mode os.FileMode) error {
	if err := os.MkdirAll(r.at(path), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(r.at(path), mode); err != nil {
		return err
	}
	return os.Chown(r.at(path), r.spec.MapUID, r.spec.MapGID)
}

// writable mounts a private tmpfs that belongs to the guest.
func (r *hostRoot) writable(path string, mode os.FileMode, options string) error {
	if err := r.tmpfs(path, options, 0); err != nil {
		return err
	}
	return r.own(path, mode)
}

// attach puts the private directories that hold mounts in place, then the trees.
func (r *hostRoot) attach() error {
	for _, dir := range r.hidden {
		if err := os.MkdirAll(r.at(dir), 0o755); err != nil {
			return err
		}
	}
	if err := r.tmpfs("/dev", "mode=0755,size=64k", 0); err != nil {
		return err
	}
	if err := r.writableDirs(); err != nil {
		return err
	}
	for i := range r.trees {
		if err := r.trees[i].attach(r.at(r.trees[i].path)); err != nil {
			return fmt.Errorf("attach %s: %w", r.trees[i].path, err)
		}
	}
	for path, target := range r.links {
		if err := os.MkdirAll(filepath.Dir(r.at(path)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, r.at(path)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// attachTries is how often a file that is replaced all the time is cloned again.
const attachTries = 10

// attach puts t at path. A file that was replaced since it was cloned (package
// managers do that in /etc) has no name any more, and cannot be attached: the one
// in its place is taken.
func (t *tree) attach(path string) error {
	if err := makeMountPoint(path, t.dir); err != nil {
		return err
	}
	for range attachTries - 1 {
		err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
		if !errors.Is(err, unix.ENOENT) || t.dir {
			return err
		}
		old := t.fd
		if err := t.open(); err != nil {
			return err
		}
		unix.Close(old)
	}
	return unix.MoveMount(t.fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func makeMountPoint(path string, dir bool) error {
	if dir {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// writableDirs makes what the guest may write: on VMs everything private, on
// functions /tmp alone.
func (r *hostRoot) writableDirs() error {
	if !r.spec.isVM() {
		for _, dir := range []string{"/run", "/opt", "/var/task", "/var/runtime", "/var/lib", "/var/log", "/etc/boxer"} {
			if err := os.MkdirAll(r.at(dir), 0o755); err != nil {
				return err
			}
		}
		r.links["/var/run"] = "/run"
		r.links["/var/tmp"] = "/tmp"
		return r.writable("/tmp", os.ModeSticky|0o777, fmt.Sprintf("size=%dm", r.spec.TmpMB))
	}
	for path, mode := range map[string]os.FileMode{"/run": 0o755, "/opt": 0o755, "/var": 0o755, "/tmp": os.ModeSticky | 0o777, "/etc/boxer": 0o700} {
		if err := r.writable(path, mode, ""); err != nil {
			return err
		}
	}
	if err := r.skeleton(); err != nil {
		return err
	}
	for path, mode := range map[string]os.FileMode{"/var/tmp": os.ModeSticky | 0o777, "/run/lock": os.ModeSticky | 0o777, "/run/boxer": 0o755, hostStateDir: 0o700} {
		if err := r.own(path, mode); err != nil {
			return err
		}
	}
	r.links["/var/run"] = "/run"
	r.links["/var/lock"] = "/run/lock"
	if r.spec.Source == "" { // a seed's; as read-only as one with something in it
		return r.tmpfs("/var/task", "mode=0755,size=4k", unix.MS_RDONLY)
	}
	return nil
}

// skeleton repeats the machine's directories below /var that packages make for
// their daemons (/var/log/nginx, /var/lib/redis), empty and open to the guest.
func (r *hostRoot) skeleton() error {
	for _, base := range []string{"/var/lib", "/var/log", "/var/cache", "/var/spool"} {
		if err := r.own(base, 0o755); err != nil {
			return err
		}
		if err := r.skeletonBelow(base, 2); err != nil {
			return err
		}
	}
	return nil
}

func (r *hostRoot) skeletonBelow(dir string, depth int) error {
	entries, err := os.ReadDir(dir)
	if err != nil || depth == 0 {
		return nil // closed to us: not one a guest needs
	}
	if len(entries) > 200 {
		return nil // a database's, not a package's
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() || strings.HasPrefix(r.spec.StateDir+"/", path+"/") {
			continue
		}
		if err := r.own(path, 0o755); err != nil {
			return err
		}
		if err := r.skeletonBelow(path, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// mountPrivate mounts proc and sys of the host's own namespaces.
func (r *hostRoot) mountPrivate() error {
	for _, dir := range []string{"/proc", "/sys"} {
		if err := os.MkdirAll(r.at(dir), 0o755); err != nil {
			return err
		}
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", r.at("/proc"), "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("sysfs", r.at("/sys"), "sysfs", flags|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if !r.spec.isVM() && !r.spec.Relaxed {
		return nil // Lambda has no /dev/shm
	}
	return r.writable("/dev/shm", os.ModeSticky|0o777, "")
}

// maskState hides the state directory where one of the machine's directories
// would show it, with the secrets of all networks in it.
func (r *hostRoot) maskState() error {
	if _, err := os.Stat(r.at(r.spec.StateDir)); err != nil {
		return nil
	}
	top, _, _ := strings.Cut(strings.TrimPrefix(r.spec.StateDir, "/"), "/")
	if private[top] {
		return nil
	}
	return r.tmpfs(r.spec.StateDir, "mode=0555,size=4k", unix.MS_RDONLY)
}

// seal makes read-only what is not the guest's.
func (r *hostRoot) seal() error {
	return r.setReadOnly(unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

func (r *hostRoot) unseal() error {
	return r.setReadOnly(unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
}

func (r *hostRoot) setReadOnly(attr unix.MountAttr) error {
	for _, path := range []string{"/", "/dev"} {
		if err := unix.MountSetattr(unix.AT_FDCWD, r.at(path), 0, &attr); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	return nil
}

// enter makes the assembled root this process's own and lets go of the old one.
func (r *hostRoot) enter() error {
	if err := unix.Chdir(r.spec.Staging); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's root: %w", err)
	}
	r.base = "/"
	return unix.Chdir("/")
}
