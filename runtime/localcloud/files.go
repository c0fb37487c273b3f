// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// filesBase is where the files of a node lie until each is in its place.
const filesBase = "/mnt"

// placeFiles puts the configured files where the guest looks for them. In the
// host's own directories they are written; over what is the machine's they are
// mounted, so that nothing changes there: a file over a file, and where there is
// none an overlay of two read-only directories.
func (r *hostRoot) placeFiles() error {
	if len(r.spec.Files) == 0 {
		return nil
	}
	if err := r.tmpfs(filesBase, "mode=0755", 0); err != nil {
		return err
	}
	extended := map[string]map[string]string{} // the machine's directory -> what it lacks
	names := make([]string, 0, len(r.spec.Files))
	for name := range r.spec.Files {
		names = append(names, name)
	}
	slices.Sort(names)
	var err error
	for i, name := range names {
		if err = r.placeFile(filepath.Join(filesBase, strconv.Itoa(i)), name, extended); err != nil {
			err = fmt.Errorf("file %s: %w", name, err)
			break
		}
	}
	if err == nil {
		err = r.extendAll(extended)
	}
	// What is mounted from there stays.
	return errors.Join(err, unix.Unmount(filesBase, unix.MNT_DETACH))
}

func (r *hostRoot) placeFile(aside, name string, extended map[string]map[string]string) error {
	content := r.spec.Files[name]
	info, err := os.Lstat(name)
	switch {
	case err == nil && info.IsDir():
		return errors.New("there is a directory of that name: choose another path")
	case err == nil && info.Mode().IsRegular():
		return r.coverFile(aside, name, content)
	case err == nil || errors.Is(err, fs.ErrNotExist):
		// Nothing there, or a link, which is replaced and not followed.
	case errors.Is(err, syscall.ENOTDIR):
		return errors.New("one of the directories above is a file: choose another path")
	default:
		return err
	}
	err = r.writeFile(name, content)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) { // the machine's
		dir, err := existingDir(filepath.Dir(name))
		if err != nil {
			return err
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return err
		}
		if extended[real] == nil {
			extended[real] = map[string]string{}
		}
		extended[real][strings.TrimPrefix(name, dir)] = content
		return nil
	}
	return err
}

// coverFile mounts a file over one that is there.
func (r *hostRoot) coverFile(aside, name, content string) error {
	if err := os.WriteFile(aside, []byte(content), 0o644); err != nil {
		return err
	}
	if err := os.Chown(aside, r.spec.MapUID, r.spec.MapGID); err != nil {
		return err
	}
	if err := unix.Mount(aside, name, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	r.undo = append(r.undo, func() error { return unix.Unmount(name, unix.MNT_DETACH) })
	return nil
}

// writeFile makes a file in one of the host's own directories.
func (r *hostRoot) writeFile(name, content string) error {
	dir, err := existingDir(filepath.Dir(name))
	if err != nil {
		return err
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return err // before anything is changed
	}
	for _, part := range partsBelow(dir, filepath.Dir(name)) {
		if err := r.own(part, 0o755); err != nil {
			return err
		}
		r.undo = append(r.undo, func() error { return forgive(os.Remove(part)) })
	}
	target, linkErr := os.Readlink(name)
	if linkErr == nil {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		return err
	}
	r.undo = append(r.undo, func() error {
		err := forgive(os.Remove(name))
		if linkErr == nil && err == nil {
			err = os.Symlink(target, name)
		}
		return err
	})
	return os.Chown(name, r.spec.MapUID, r.spec.MapGID)
}

// forgive: the guest may have removed a file of its own, or put others beside it.
func forgive(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return nil
	}
	return err
}

// existingDir is dir, or the nearest above it that exists.
func existingDir(dir string) (string, error) {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return dir, nil
		case err == nil || errors.Is(err, syscall.ENOTDIR):
			return "", errors.New("one of the directories above is a file: choose another path")
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
}

// partsBelow lists the directories from below base down to dir.
func partsBelow(base, dir string) []string {
	var parts []string
	for ; dir != base; dir = filepath.Dir(dir) {
		parts = append(parts, dir)
	}
	slices.Reverse(parts)
	return parts
}

// extendAll adds files to directories of the machine. An overlay shows nothing
// that is mounted below, so that a directory below another one is that one's.
func (r *hostRoot) extendAll(extended map[string]map[string]string) error {
	dirs := make([]string, 0, len(extended))
	for dir := range extended {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	var roots []string
	for _, dir := range dirs {
		above := slices.IndexFunc(roots, func(root string) bool { return strings.HasPrefix(dir, root+"/") })
		if above < 0 {
			roots = append(roots, dir)
			continue
		}
		for name, content := range extended[dir] {
			extended[roots[above]][strings.TrimPrefix(dir, roots[above])+name] = content
		}
	}
	for i, dir := range roots {
		if err := r.extend(filepath.Join(filesBase, "dir"+strconv.Itoa(i)), dir, extended[dir]); err != nil {
			return fmt.Errorf("add files to %s: %w", dir, err)
		}
	}
	return nil
}

func (r *hostRoot) extend(aside, dir string, files map[string]string) error {
	if strings.ContainsAny(dir, ":,\\") {
		return errors.New("its path holds one of : , \\ which a mount cannot name: choose another place")
	}
	// The overlay's own directory takes its mode from the upper of the two.
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(aside, info.Mode().Perm()|0o555); err != nil {
		return err
	}
	for name, content := range files {
		path := aside + name
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "lowerdir="+aside+":"+dir); err != nil {
		return fmt.Errorf("mount an overlay: %w: put the file below /etc, /var, /opt or /tmp instead", err)
	}
	r.undo = append(r.undo, func() error { return unix.Unmount(dir, unix.MNT_DETACH) })
	return nil
}

// removeFiles takes back what placeFiles did.
func (r *hostRoot) removeFiles() error {
	for _, undo := range slices.Backward(r.undo) {
		if err := undo(); err != nil {
			return fmt.Errorf("take back a file: %w", err)
		}
	}
	r.undo = nil
	return nil
}
