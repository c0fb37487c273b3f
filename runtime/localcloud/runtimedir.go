// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/boxer-overlay/boxer/layer"
)

// runtimeDir holds what the networks made with one layer run: layer.zip (VMs
// unpack it themselves), layer/ (functions see it at /opt) and boxer.
type runtimeDir string

func (s *Store) runtimeDir(key string) runtimeDir {
	return runtimeDir(filepath.Join(s.dir, "runtime", key))
}

func (d runtimeDir) zip() string   { return filepath.Join(string(d), "layer.zip") }
func (d runtimeDir) layer() string { return filepath.Join(string(d), "layer") }

// sum holds the checksum the zip had when it came in.
func (d runtimeDir) sum() string { return filepath.Join(string(d), "layer.sha256") }

func (d runtimeDir) boxer() string { return filepath.Join(string(d), "boxer") }

// installRuntime copies the layer of this machine's architecture into the state
// directory, once per content, and returns its key. The caller holds the lock
// of the state directory.
func (s *Store) installRuntime() (string, error) {
	source := s.rt.Layers[runtime.GOARCH]
	if source == "" {
		return "", fmt.Errorf("no layer for %s: build it (make build) or name it in the configuration", runtime.GOARCH)
	}
	key, err := layer.Hash(source)
	if err != nil {
		return "", err
	}
	sum := key
	if s.rt.Boxer != "" {
		own, err := layer.Hash(s.rt.Boxer)
		if err != nil {
			return "", fmt.Errorf("boxer executable: %w", err)
		}
		both := sha256.Sum256([]byte(key + own))
		key = hex.EncodeToString(both[:])
	}
	d := s.runtimeDir(key)
	if _, err := os.Stat(d.boxer()); err == nil {
		if found, err := layer.Hash(d.zip()); err == nil && found == sum {
			return key, nil
		}
	}
	if err := s.fillRuntime(d, source, sum); err != nil {
		return "", s.wrap(err)
	}
	return key, nil
}

func (s *Store) fillRuntime(d runtimeDir, source, sum string) error {
	parent := filepath.Dir(string(d))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = removeAll(tmp) }() // nothing is left there once it was renamed
	fresh := runtimeDir(tmp)
	if err := os.Mkdir(fresh.layer(), 0o755); err != nil {
		return err
	}
	if err := layer.Unpack(source, fresh.layer(), sum); err != nil {
		return err
	}
	if err := copyFile(source, fresh.zip(), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(fresh.sum(), []byte(sum+"\n"), 0o644); err != nil {
		return err
	}
	boxer := s.rt.Boxer
	if boxer == "" {
		boxer = filepath.Join(fresh.layer(), layer.BoxerPath)
	}
	if err := copyFile(boxer, fresh.boxer(), 0o755); err != nil {
		return err
	}
	for _, dir := range []string{tmp, fresh.layer()} {
		if err := os.Chmod(dir, 0o755); err != nil { // guests of another uid look below
			return err
		}
	}
	if err := removeAll(string(d)); err != nil { // a damaged one
		return err
	}
	return os.Rename(tmp, string(d))
}

// pruneRuntimes removes what no network refers to any more, and then the empty
// directories around. The caller holds the lock of the state directory.
func (s *Store) pruneRuntimes() error {
	used := map[string]bool{}
	networks, err := os.ReadDir(filepath.Join(s.dir, "networks"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.wrap(err)
	}
	for _, n := range networks {
		for _, file := range []string{"network.json", "pending.json"} {
			var info NetworkInfo
			if readJSON(s.netDir(n.Name()).join(file), &info) == nil {
				used[info.Runtime] = true
			}
		}
	}
	runtimes, err := os.ReadDir(filepath.Join(s.dir, "runtime"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.wrap(err)
	}
	for _, r := range runtimes {
		if !used[r.Name()] {
			if err := removeAll(string(s.runtimeDir(r.Name()))); err != nil {
				return s.wrap(err)
			}
		}
	}
	for _, empty := range []string{"runtime", "networks"} {
		_ = os.Remove(filepath.Join(s.dir, empty)) // fails while something is in it, as it should
	}
	return nil
}

// underLock runs f under the lock of the state directory.
func (s *Store) underLock(ctx context.Context, f func() error) error {
	l, err := waitLock(ctx, s.dir)
	if err != nil {
		return s.wrap(err)
	}
	defer l.unlock()
	return f()
}

func copyFile(from, to string, mode os.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
	}()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Chmod(mode) // whatever the umask is
}

// removeAll is os.RemoveAll that also removes what sits in directories without
// write permission, as copies of a source directory may have.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
