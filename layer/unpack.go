// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// maxEntries is far more than our layers ever have.
const maxEntries = 1000

// maxUnpacked bounds what comes out of a layer: Lambda's own limit for all
// layers of a function. Tests lower it.
var maxUnpacked int64 = 250 << 20

// ErrCorrupt says that the layer is not what it should be.
var ErrCorrupt = errors.New("corrupt layer")

// Hash is the SHA-256 of the file at path, in hexadecimal.
func Hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("layer: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("layer %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Verify checks that the zip at path has the given SHA-256 (empty: any) and
// holds a complete, undamaged layer.
func Verify(path, want string) error {
	return open(path, want, func(z *zip.Reader) error {
		return walk(z, func(_ *zip.File, content io.Reader) error {
			_, err := io.Copy(io.Discard, content)
			return err
		})
	})
}

// Unpack verifies the zip at path and unpacks it into the directory dir, which
// must exist and be empty. On error dir may hold a part; the caller removes it.
func Unpack(path, dir, want string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	defer root.Close()
	return open(path, want, func(z *zip.Reader) error {
		return walk(z, func(f *zip.File, content io.Reader) error { return writeEntry(root, f, content) })
	})
}

// open hands the zip to use once its checksum is right. One descriptor serves
// both, so the file cannot change into another between them.
func open(path, want string, use func(*zip.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return fmt.Errorf("layer %s: %w", path, err)
	}
	found := hex.EncodeToString(h.Sum(nil))
	if want != "" && found != want {
		return corrupt(path, want, found, errors.New("checksum mismatch"))
	}
	z, err := zip.NewReader(f, size)
	if err == nil {
		err = use(z)
	}
	var hostErr *writeError
	if errors.As(err, &hostErr) {
		return fmt.Errorf("unpack layer %s: %w", path, hostErr.err)
	}
	if err != nil {
		return corrupt(path, want, found, err)
	}
	return nil
}

func corrupt(path, want, found string, err error) error {
	if want == "" {
		want = "a complete layer"
	}
	return fmt.Errorf("%w: %s: %w: expected %s, found %s: build or fetch the layer again (make build) and retry",
		ErrCorrupt, path, err, want, found)
}

// writeError is a fault of the machine, not of the layer.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }

// walk checks every entry and hands its bounded content to each.
func walk(z *zip.Reader, each func(*zip.File, io.Reader) error) error {
	if len(z.File) > maxEntries {
		return fmt.Errorf("%d entries are more than %d", len(z.File), maxEntries)
	}
	seen := map[string]bool{}
	budget := maxUnpacked
	for _, f := range z.File {
		name := strings.TrimSuffix(f.Name, "/")
		if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\\x00") {
			return fmt.Errorf("entry %q: not a path inside the layer", f.Name)
		}
		if seen[name] {
			return fmt.Errorf("entry %q: twice", f.Name)
		}
		seen[name] = true
		if err := walkEntry(f, &budget, each); err != nil {
			return fmt.Errorf("entry %q: %w", f.Name, err)
		}
	}
	for _, name := range []string{BootstrapPath, BoxerPath, LibraryPath} {
		if !seen[name] {
			return fmt.Errorf("entry %q: missing", name)
		}
	}
	return nil
}

func walkEntry(f *zip.File, budget *int64, each func(*zip.File, io.Reader) error) error {
	mode := f.Mode()
	if mode.IsDir() {
		return each(f, strings.NewReader(""))
	}
	if !mode.IsRegular() {
		return fmt.Errorf("%s: only files and directories belong into a layer", mode.Type())
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	// The sizes in the headers are the sender's word: count what comes out.
	limited := &io.LimitedReader{R: in, N: *budget + 1}
	if err := each(f, limited); err != nil {
		return err
	}
	*budget = limited.N - 1
	if *budget < 0 {
		return fmt.Errorf("the layer unpacks to more than %d bytes", maxUnpacked)
	}
	return nil
}

// makeDirs makes dir and those above it open to every user, whatever the umask is.
func makeDirs(root *os.Root, dir string) error {
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for ; dir != "."; dir = path.Dir(dir) {
		if err := root.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func writeEntry(root *os.Root, f *zip.File, content io.Reader) error {
	name := strings.TrimSuffix(f.Name, "/")
	dir := path.Dir(name)
	if f.Mode().IsDir() {
		dir = name
	}
	if err := makeDirs(root, dir); err != nil {
		return &writeError{err}
	}
	if f.Mode().IsDir() {
		return nil
	}
	mode := f.Mode().Perm() | 0o400
	out, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return &writeError{err}
	}
	_, err = io.Copy(&hostWriter{out}, content)
	if err == nil {
		if chmodErr := out.Chmod(mode); chmodErr != nil { // whatever the umask is
			err = &writeError{chmodErr}
		}
	}
	if closeErr := out.Close(); err == nil && closeErr != nil {
		err = &writeError{closeErr}
	}
	return err
}

// hostWriter marks write errors, which do not speak against the layer.
type hostWriter struct{ f *os.File }

func (w *hostWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}
