// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxPackage bounds what comes out of a package, as Lambda does.
const maxPackage = 250 << 20

// packageHash is the sourceHash of what a zip file holds, so that a package and
// a directory with the same contents are the same, however it was packed.
func packageHash(name string) (string, error) {
	var hash string
	err := withPackage(name, func(files map[string]*zip.File) error {
		sum := sha256.New()
		_ = hashFields(sum, "dir", ".")
		budget := int64(maxPackage)
		for _, relative := range sortedPaths(files) {
			if err := hashPackaged(sum, relative, files[relative], &budget); err != nil {
				return fmt.Errorf("entry %q: %w", relative, err)
			}
		}
		hash = base64.StdEncoding.EncodeToString(sum.Sum(nil))
		return nil
	})
	return hash, err
}

func hashPackaged(sum io.Writer, relative string, file *zip.File, budget *int64) error {
	if file == nil || file.Mode().IsDir() {
		return hashFields(sum, "dir", relative)
	}
	what := "file"
	if file.Mode().Perm()&0o111 != 0 {
		what = "program"
	}
	content := sha256.New()
	if err := readPackaged(file, content, budget); err != nil {
		return err
	}
	return hashFields(sum, what, relative, string(content.Sum(nil)))
}

// unpack writes what a zip file holds into a new temporary directory.
func unpack(name string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "boxer-package-"); err != nil {
		return "", err
	}
	err = withPackage(name, func(files map[string]*zip.File) error {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		budget := int64(maxPackage)
		for _, relative := range sortedPaths(files) {
			if err := writePackaged(root, relative, files[relative], &budget); err != nil {
				return fmt.Errorf("entry %q: %w", relative, err)
			}
		}
		return nil
	})
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	return dir, nil
}

func writePackaged(root *os.Root, relative string, file *zip.File, budget *int64) error {
	if file == nil || file.Mode().IsDir() {
		return root.Mkdir(relative, 0o755)
	}
	mode := os.FileMode(0o644)
	if file.Mode().Perm()&0o111 != 0 {
		mode = 0o755
	}
	out, err := root.OpenFile(relative, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := readPackaged(file, out, budget); err != nil {
		return err
	}
	return out.Chmod(mode) // whatever the umask is
}

func readPackaged(file *zip.File, to io.Writer, budget *int64) error {
	in, err := file.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	// The sizes in the headers are the packer's word: count what comes out.
	n, err := io.Copy(to, io.LimitReader(in, *budget+1))
	if *budget -= n; err == nil && *budget < 0 {
		err = fmt.Errorf("the package holds more than %d MB", maxPackage>>20)
	}
	return err
}

// withPackage hands out the entries of a zip file by path; directories that it
// does not name are nil.
func withPackage(name string, use func(map[string]*zip.File) error) error {
	z, err := zip.OpenReader(name)
	switch {
	case name == "":
		return errors.New("the path is empty: name a zip file, such as \"${path.module}/app.zip\", or leave the attribute out")
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: pack it first, or correct the path (relative paths start where terraform runs; "+
			"\"${path.module}/app.zip\" is beside the configuration)", name)
	case errors.Is(err, zip.ErrFormat):
		return fmt.Errorf("%s is not a zip file: pack the contents of /var/task with zip, or name a directory with source_dir", name)
	case err != nil:
		return fmt.Errorf("package %s: %w", name, err)
	}
	defer z.Close()
	files := map[string]*zip.File{}
	for _, file := range z.File {
		relative := strings.TrimSuffix(file.Name, "/")
		mode := file.Mode()
		switch {
		case !fs.ValidPath(relative) || relative == "." || strings.ContainsAny(relative, "\\\x00"):
			return fmt.Errorf("package %s: entry %q is no path inside the package: pack it again with relative paths", name, file.Name)
		case files[relative] != nil:
			return fmt.Errorf("package %s: entry %q is there twice: pack it again", name, file.Name)
		case !mode.IsDir() && !mode.IsRegular():
			return fmt.Errorf("package %s: entry %q is neither a file nor a directory: pack what it stands for instead", name, file.Name)
		}
		files[relative] = file
		for dir := path.Dir(relative); dir != "."; dir = path.Dir(dir) {
			if above, known := files[dir]; !known {
				files[dir] = nil
			} else if above != nil && !above.Mode().IsDir() {
				return fmt.Errorf("package %s: entry %q lies below a file: pack it again", name, file.Name)
			}
		}
	}
	if err := use(files); err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	return nil
}

// sortedPaths are in the order of filepath.WalkDir: a directory's contents come
// right after it.
func sortedPaths(files map[string]*zip.File) []string {
	paths := make([]string, 0, len(files))
	for name := range files {
		paths = append(paths, name)
	}
	slices.SortFunc(paths, func(a, b string) int {
		return slices.Compare(strings.Split(filepath.ToSlash(a), "/"), strings.Split(filepath.ToSlash(b), "/"))
	})
	return paths
}
