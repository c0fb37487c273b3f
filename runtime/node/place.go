// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/process"
)

// placeFiles writes the files of the document. On a machine of its own, and in a function
// on AWS, nobody else does; the local cloud has them in place and out of the document.
func placeFiles(cfg config.Node) error {
	_, _, aws := cfg.SecretParameter()
	if own := cfg.Kind == config.KindVM || cfg.Kind == config.KindFunction && aws; !own || len(cfg.Files) == 0 {
		return nil
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if cfg.User != "" {
		account, err := process.FindUser(cfg.User)
		if err != nil {
			return err
		}
		if uid, err = strconv.Atoi(account.Uid); err == nil {
			gid, err = strconv.Atoi(account.Gid)
		}
		if err != nil {
			return fmt.Errorf("user %q: its ids are no numbers: %w", cfg.User, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Files)) {
		if err := placeFile(name, cfg.Files[name], uid, gid); err != nil {
			return fmt.Errorf("files: %w: choose another path", err)
		}
	}
	return nil
}

// placeFile puts a file where anything but a directory may be, in one step. A link is
// replaced and not followed.
func placeFile(name, content string, uid, gid int) error {
	dir := filepath.Dir(name)
	if err := makeDirs(dir, uid, gid); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".boxer-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // unless it has its name
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Chmod(0o644), f.Chown(uid, gid), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	return err
}

// makeDirs makes what is missing of dir, as the guest's.
func makeDirs(dir string, uid, gid int) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDirs(filepath.Dir(dir), uid, gid); err == nil {
			err = os.Mkdir(dir, 0o755)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // or what is made below says why not
	}
	if err == nil {
		err = os.Chown(dir, uid, gid)
	}
	return err
}
