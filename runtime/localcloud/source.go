// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// copySource copies a source directory into the new directory to, with modes
// and symbolic links, and returns a hash of what is in it. Links that lead out
// of the directory and anything that is no file, directory or link are refused:
// they would not be there on another platform.
func copySource(from, to string) (hash string, err error) {
	if from, err = sourceRoot(from); err != nil {
		return "", err
	}
	sum := sha256.New()
	var dirs []dirMode
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q %s ", relative, info.Mode())
		switch {
		case d.IsDir():
			dirs = append(dirs, dirMode{target, info.Mode().Perm()})
			return os.Mkdir(target, 0o700) // until it is filled
		case info.Mode().IsRegular():
			return copyRegular(path, target, info.Mode().Perm(), sum)
		case info.Mode()&fs.ModeSymlink != 0:
			return copyLink(from, path, target, sum)
		}
		return fmt.Errorf("%s is a %s: only files, directories and links can be copied to a node", path, kindOf(info.Mode()))
	})
	for _, d := range slices.Backward(dirs) { // children first: a parent may close itself
		if chmodErr := os.Chmod(d.path, d.mode); err == nil && chmodErr != nil {
			err = chmodErr
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: make it readable for this user, or leave it out of the directory", err)
	}
	if err != nil {
		return "", fmt.Errorf("source_dir %s: %w", from, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// sourceRoot is the directory that is meant, itself no link.
func sourceRoot(from string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", fmt.Errorf("source_dir: %w", err)
	}
	info, err := os.Stat(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("source_dir %s does not exist: create it, or correct the path", from)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("source_dir: %w: make it readable for this user", err)
	case err != nil:
		return "", fmt.Errorf("source_dir: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("source_dir %s is not a directory: name the directory that holds the file", from)
	}
	if from, err = filepath.EvalSymlinks(from); err != nil {
		return "", fmt.Errorf("source_dir: %w", err)
	}
	return from, nil
}

type dirMode struct {
	path string
	mode os.FileMode
}

func copyRegular(from, to string, mode os.FileMode, sum io.Writer) error {
	if err := copyFile(from, to, mode); err != nil {
		return err
	}
	content, err := fileHash(from)
	if err != nil {
		return err
	}
	_, err = sum.Write(content)
	return err
}

func fileHash(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := f.WriteTo(h); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

func copyLink(root, path, to string, sum io.Writer) error {
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(root, filepath.Join(filepath.Dir(path), target))
	if filepath.IsAbs(target) || err != nil || relative == ".." || strings.HasPrefix(relative, "../") {
		return fmt.Errorf("the link %s leads out of the directory, to %s: copy what it points to, or make it relative", path, target)
	}
	fmt.Fprintf(sum, "-> %q ", target)
	return os.Symlink(target, to)
}

func kindOf(mode os.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// moveTree renames, or copies where the two places are of different file systems.
func moveTree(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	if info, err := os.Lstat(from); err != nil {
		return err
	} else if info.Mode().IsRegular() {
		err = copyFile(from, to, info.Mode().Perm())
		return errors.Join(err, os.Remove(from))
	} else if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		return errors.Join(err, os.Symlink(target, to), os.Remove(from))
	}
	_, err = copySource(from, to)
	return errors.Join(err, removeAll(from))
}

// giveTo makes uid the owner of a tree, so that a guest can read what its user
// could; links and all, never following one.
func giveTo(path string, uid, gid int) error {
	return filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, uid, gid)
	})
}
