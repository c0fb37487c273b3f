// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// unpackZip unpacks what Lambda would.
func unpackZip(data []byte, dir string) error {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("zip: %q is outside", f.Name)
		}
		if err := unpackEntry(f, filepath.Join(dir, f.Name)); err != nil {
			return err
		}
	}
	return nil
}

func unpackEntry(f *zip.File, path string) error {
	if f.FileInfo().IsDir() {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	content, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if f.Mode()&fs.ModeSymlink != 0 {
		return os.Symlink(string(content), path)
	}
	return os.WriteFile(path, content, f.Mode().Perm()|0o400)
}

// hexHash is a CodeSha256 in hexadecimal.
func hexHash(code string) (string, error) {
	sum, err := base64.StdEncoding.DecodeString(code)
	return hex.EncodeToString(sum), err
}
