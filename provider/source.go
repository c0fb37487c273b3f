// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// checkSourceDir says what is wrong with a source_dir, and what to write. No
// validator does, since terraform also validates before it destroys.
func checkSourceDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case dir == "":
		return errors.New("the path is empty: name a directory, such as \"${path.module}/app\", or leave the attribute out")
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: create it, or correct the path (relative paths start where terraform runs; "+
			"\"${path.module}/app\" is beside the configuration)", dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory: name the directory that holds the file", dir)
	}
	return nil
}

// sourceHash is the base64 SHA-256 of what a source directory holds: relative
// names, kinds, executable bits and contents. Times, owners and the directory's
// own place do not count, so that a fresh checkout hashes the same.
func sourceHash(dir string) (string, error) {
	if err := checkSourceDir(dir); err != nil {
		return "", err
	}
	sum := sha256.New()
	// WalkDir visits in lexical order, and "dir/." follows a link to a directory.
	err := filepath.WalkDir(filepath.Clean(dir)+"/.", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		return hashEntry(sum, name, filepath.ToSlash(relative), entry.Type())
	})
	if err != nil {
		return "", fmt.Errorf("read source directory %s: %w", dir, err)
	}
	return base64.StdEncoding.EncodeToString(sum.Sum(nil)), nil
}

func hashEntry(sum hash.Hash, name, relative string, kind fs.FileMode) error {
	switch {
	case kind.IsDir():
		return hashFields(sum, "dir", relative)
	case kind&fs.ModeSymlink != 0:
		target, err := os.Readlink(name)
		if err != nil {
			return err
		}
		return hashFields(sum, "link", relative, target)
	case kind.IsRegular():
		return hashFile(sum, name, relative)
	}
	return fmt.Errorf("%s is neither a file, a directory nor a link: remove it", relative)
}

func hashFile(sum hash.Hash, name, relative string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	what := "file"
	if info.Mode().Perm()&0o111 != 0 {
		what = "program"
	}
	content := sha256.New()
	if _, err := io.Copy(content, file); err != nil {
		return err
	}
	return hashFields(sum, what, relative, string(content.Sum(nil)))
}

// hashFields writes each field with its length before it, so that no two
// different lists of fields look the same.
func hashFields(sum io.Writer, fields ...string) error {
	for _, field := range fields {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(field)))
		if _, err := sum.Write(append(length[:], field...)); err != nil {
			return err
		}
	}
	return nil
}
