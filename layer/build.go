// SPDX-License-Identifier: Apache-2.0

// Package layer is what a node is made from: the layer zip (the supervisor and
// the process monitor behind a Lambda bootstrap) and the script that installs
// the same zip on a VM.
package layer

import (
	"archive/zip"
	"compress/flate"
	_ "embed"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Paths inside the layer.
const (
	BootstrapPath = "bootstrap"
	BoxerPath     = "bin/boxer"
	LibraryPath   = "lib/libboxer.so"
)

//go:embed bootstrap
var bootstrap string

// epoch is the time of every entry: the first one a zip can express, so that
// two builds of the same inputs give the same bytes.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Files are the inputs of a layer, as paths.
type Files struct {
	Boxer   string // the supervisor
	Library string // the process monitor, libboxer.so
}

// Build writes the layer zip to w.
func Build(w io.Writer, f Files) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	if err := addFile(z, BoxerPath, 0o755, f.Boxer); err != nil {
		return err
	}
	if err := addEntry(z, BootstrapPath, 0o755, strings.NewReader(bootstrap)); err != nil {
		return err
	}
	if err := addFile(z, LibraryPath, 0o644, f.Library); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

func addFile(z *zip.Writer, name string, mode os.FileMode, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("layer: %s: %w", name, err)
	}
	defer in.Close()
	return addEntry(z, name, mode, in)
}

func addEntry(z *zip.Writer, name string, mode os.FileMode, content io.Reader) error {
	header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: epoch}
	header.SetMode(mode)
	out, err := z.CreateHeader(header)
	if err == nil {
		_, err = io.Copy(out, content)
	}
	if err != nil {
		return fmt.Errorf("layer: %s: %w", name, err)
	}
	return nil
}
