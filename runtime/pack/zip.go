// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"archive/zip"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// level of compression; tests, which are slow at it, lower it.
var level = flate.DefaultCompression

// epoch of all files: the first time that a zip can hold.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// manifest is what a package says of itself.
type manifest struct {
	Version      int               `json:"version"`
	Command      []string          `json:"command"`
	Environment  map[string]string `json:"environment,omitempty"`
	Architecture string            `json:"architecture"`
	Loader       string            `json:"loader,omitempty"`
	Libraries    []Library         `json:"libraries,omitempty"`
	Package      string            `json:"package,omitempty"` // the system's, with the program's data
	Files        []string          `json:"files"`
}

// Size is what the package has unpacked.
func (p *Package) Size() int64 {
	var sum int64
	for _, f := range p.Files {
		sum += f.Size
	}
	return sum
}

// Biggest are the n largest files or, where many are in one directory, directories.
func (p *Package) Biggest(n int) []File {
	sums := map[string]int64{}
	for _, f := range p.Files {
		name := f.Name
		if parts := strings.Split(name, "/"); len(parts) > 3 {
			name = strings.Join(parts[:3], "/") + "/"
		}
		sums[name] += f.Size
	}
	var list []File
	for name, size := range sums {
		list = append(list, File{Name: name, Size: size})
	}
	slices.SortFunc(list, func(a, b File) int {
		if a.Size != b.Size {
			return int(b.Size - a.Size)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list[:min(n, len(list))]
}

// CheckSize says what to leave out of a package that Lambda would refuse.
func (p *Package) CheckSize() error {
	if p.Size() <= Limit-LayerShare {
		return nil
	}
	var big []string
	for _, f := range p.Biggest(5) {
		big = append(big, fmt.Sprintf("%s %.1f MB", f.Name, float64(f.Size)/(1<<20)))
	}
	return fmt.Errorf("the package has %.1f MB unpacked, and Lambda allows %d MB, of which %d MB are Boxer's layer's: leave out some of it (--no-data, fewer --include), or make a container image; the biggest are %s",
		float64(p.Size())/(1<<20), Limit>>20, LayerShare>>20, strings.Join(big, ", "))
}

// Write writes the zip: the same bytes for the same files.
func (p *Package) Write(out io.Writer) error {
	w := zip.NewWriter(out)
	w.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(out, level)
	})
	m := manifest{Version: 1, Command: p.Command, Environment: p.Environment, Architecture: p.Architecture, Libraries: p.Libraries, Package: p.Data}
	if p.memory != nil {
		m.Loader = p.main.Interp
	}
	for _, f := range p.Files {
		data, err := f.content()
		if err == nil {
			err = entry(w, f.Name, f.Program, data)
		}
		if err != nil {
			return fmt.Errorf("pack %s: %w", f.From, err)
		}
		m.Files = append(m.Files, f.Name)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = entry(w, ManifestName, false, append(text, '\n'))
	}
	if err == nil {
		err = w.Close()
	}
	return err
}

func (f File) content() ([]byte, error) {
	data, err := os.ReadFile(f.From)
	if err != nil {
		return nil, err
	}
	if f.library != nil {
		return data, moveLibrary(data, append(f.library.RPath, f.library.RunPath...))
	}
	return f.change(data)
}

func entry(w *zip.Writer, name string, program bool, data []byte) error {
	header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: epoch}
	header.SetMode(0o644)
	if program {
		header.SetMode(0o755)
	}
	out, err := w.CreateHeader(header)
	if err == nil {
		_, err = out.Write(data)
	}
	return err
}
