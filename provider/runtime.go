// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// unpackRuntime puts the layer of this machine's architecture into
// <state>/runtime/<sha256>/, as the zip that hosts fetch and unpacked for the
// daemon. A directory with the right content is used as it is.
func unpackRuntime(stateDir string, source LayerSource) (localcloud.Runtime, error) {
	arch := runtime.GOARCH
	data, err := source(arch)
	if err != nil {
		return localcloud.Runtime{}, err
	}
	sum := sha256.Sum256(data)
	hash := hex.EncodeToString(sum[:])
	parent := filepath.Join(stateDir, "runtime")
	dir := filepath.Join(parent, hash)
	zip := "boxer-layer-" + arch + ".zip"

	unlock, err := lockDir(stateDir)
	if err != nil {
		return localcloud.Runtime{}, err
	}
	defer unlock()
	if !complete(dir, zip, hash) {
		if err := unpackInto(parent, dir, zip, hash, data); err != nil {
			return localcloud.Runtime{}, err
		}
	}
	return localcloud.Runtime{
		Boxer:  filepath.Join(dir, layer.BoxerPath),
		Layers: map[string]string{arch: filepath.Join(dir, zip)},
	}, nil
}

// complete reports whether dir holds the layer, zipped and unpacked.
func complete(dir, zip, hash string) bool {
	if found, err := layer.Hash(filepath.Join(dir, zip)); err != nil || found != hash {
		return false
	}
	for _, name := range []string{layer.BoxerPath, layer.LibraryPath} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			return false
		}
	}
	return true
}

// unpackInto makes dir in one step: built beside it, then renamed, so that
// nobody ever sees a part.
func unpackInto(parent, dir, zip, hash string, data []byte) error {
	fail := func(err error) error { return fmt.Errorf("unpack the runtime into %s: %w", parent, err) }
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fail(err)
	}
	scratch, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(scratch)
	fresh := filepath.Join(scratch, "layer")
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fail(err)
	}
	packed := filepath.Join(scratch, zip)
	if err := os.WriteFile(packed, data, 0o600); err != nil {
		return fail(err)
	}
	if err := layer.Unpack(packed, fresh, hash); err != nil {
		return unpackProblem(err, fail)
	}
	if err := os.Rename(packed, filepath.Join(fresh, zip)); err != nil {
		return fail(err)
	}
	// What stands there is incomplete (see complete): move it out of the way.
	if err := os.Rename(dir, filepath.Join(scratch, "old")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fail(err)
	}
	return nil
}

func unpackProblem(err error, fail func(error) error) error {
	if errors.Is(err, layer.ErrCorrupt) {
		return &explained{fmt.Errorf("the layer inside this provider is damaged: %w", err),
			"Install the provider again: its binary is incomplete or was altered."}
	}
	return fail(err)
}

// lockDir takes the lock of a directory. It is held on the directory itself,
// so that no file stays behind, and lasts for moments only.
func lockDir(dir string) (unlock func(), err error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock the state directory %s: %w", dir, err)
	}
	return func() { file.Close() }, nil
}
