// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What Lambda takes, in bytes. Tests lower it.
var (
	maxDirectZip int64 = 50 << 20  // in the request itself; more comes from S3
	maxUnzipped  int64 = 250 << 20 // of a function and its layers
)

const s3Scheme = "s3://"

// zipTime is the time of every entry, so that the same contents are the same zip.
var zipTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// codeZip is the deployment package of what a source_dir or package holds: sorted
// names, one time, and of modes only what the hash of the contents counts. Links
// stay links, as Lambda unpacks them.
func codeZip(spec nodeSpec) ([]byte, error) {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	var err error
	switch {
	case spec.Package != "":
		err = zipPackage(z, spec.Package)
	case spec.SourceDir != "":
		err = zipDirectory(z, spec.SourceDir)
	default: // Lambda takes no function without code
		err = zipEntry(z, "boxer", 0o644, strings.NewReader("The command of this function node is not in its package.\n"))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("pack the function: %w", err)
	}
	return out.Bytes(), nil
}

func zipDirectory(z *zip.Writer, dir string) error {
	empty := true
	err := filepath.WalkDir(filepath.Clean(dir)+"/.", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil || relative == "." {
			return err
		}
		empty = false
		return zipSource(z, name, filepath.ToSlash(relative), entry.Type())
	})
	if err == nil && empty {
		err = errors.New("it is empty, which Lambda does not take: put the program into it, or leave source_dir out")
	}
	if err != nil {
		return fmt.Errorf("source directory %s: %w", dir, err)
	}
	return nil
}

func zipSource(z *zip.Writer, name, relative string, kind fs.FileMode) error {
	switch {
	case kind.IsDir():
		return zipEntry(z, relative+"/", fs.ModeDir|0o755, strings.NewReader(""))
	case kind&fs.ModeSymlink != 0:
		target, err := os.Readlink(name)
		if err != nil {
			return err
		}
		return zipEntry(z, relative, fs.ModeSymlink|0o777, strings.NewReader(target))
	case !kind.IsRegular():
		return fmt.Errorf("%s is neither a file, a directory nor a link: remove it", relative)
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return zipEntry(z, relative, plainMode(info.Mode()), file)
}

// plainMode is a mode that every user can read with.
func plainMode(mode fs.FileMode) fs.FileMode {
	if mode.Perm()&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

func zipPackage(z *zip.Writer, name string) error {
	return withPackage(name, func(files map[string]*zip.File) error {
		if len(files) == 0 {
			return errors.New("it is empty, which Lambda does not take")
		}
		budget := int64(maxPackage)
		for _, relative := range sortedPaths(files) {
			file := files[relative]
			if file == nil || file.Mode().IsDir() {
				if err := zipEntry(z, relative+"/", fs.ModeDir|0o755, strings.NewReader("")); err != nil {
					return err
				}
				continue
			}
			to, err := z.CreateHeader(zipHeader(relative, plainMode(file.Mode())))
			if err == nil {
				err = readPackaged(file, to, &budget)
			}
			if err != nil {
				return fmt.Errorf("entry %q: %w", relative, err)
			}
		}
		return nil
	})
}

func zipHeader(name string, mode fs.FileMode) *zip.FileHeader {
	header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: zipTime}
	if mode.IsDir() {
		header.Method = zip.Store
	}
	header.SetMode(mode)
	return header
}

func zipEntry(z *zip.Writer, name string, mode fs.FileMode, content io.Reader) error {
	to, err := z.CreateHeader(zipHeader(name, mode))
	if err == nil {
		_, err = io.Copy(to, content)
	}
	return err
}

// unzippedSize is how much a source_dir or package unpacks to.
func unzippedSize(spec nodeSpec) (int64, error) {
	var size int64
	if spec.Package != "" {
		err := withPackage(spec.Package, func(files map[string]*zip.File) error {
			for _, file := range files {
				if file != nil {
					size += int64(file.UncompressedSize64)
				}
			}
			return nil
		})
		return size, err
	}
	err := filepath.WalkDir(filepath.Clean(spec.SourceDir)+"/.", func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

// checkCodeSize refuses what Lambda would. with is what the layer unpacks to. Only
// what may be too large is packed to find out.
func checkCodeSize(spec nodeSpec, with int64) error {
	size, err := unzippedSize(spec)
	if err != nil {
		return err
	}
	if size+with > maxUnzipped {
		return fmt.Errorf("its contents unpack to %s, and with Boxer's layer (%s) that is more than the %d MB that Lambda gives a function and its layers: "+
			"leave out what the program does not need, or use image_uri (10 GB)", megabytes(size), megabytes(with), maxUnzipped>>20)
	}
	if size <= maxDirectZip {
		return nil
	}
	packed, err := codeZip(spec)
	if err == nil && int64(len(packed)) > maxDirectZip {
		err = fmt.Errorf("it has %s packed, and Lambda takes %d MB in a request: put the zip into a bucket of the region and write package = \"s3://bucket/key\"",
			megabytes(int64(len(packed))), maxDirectZip>>20)
	}
	return err
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }

// s3Package is a package that Lambda fetches itself.
type s3Package struct{ Bucket, Key, Version, SHA256 string }

// parseS3 reads s3://bucket/key?version=V&sha256=H. ok is false for other packages.
func parseS3(name string) (p s3Package, ok bool, err error) {
	rest, ok := strings.CutPrefix(name, s3Scheme)
	if !ok {
		return p, false, nil
	}
	rest, query, _ := strings.Cut(rest, "?")
	p.Bucket, p.Key, _ = strings.Cut(rest, "/")
	if p.Bucket == "" || p.Key == "" {
		return p, true, fmt.Errorf("package %q: write s3://bucket/key, and ?version=ID if the bucket keeps versions", name)
	}
	for _, field := range strings.Split(query, "&") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "":
		case "version":
			p.Version = value
		case "sha256":
			p.SHA256 = value
		default:
			return p, true, fmt.Errorf("package %q: %q is not known: write version=ID or sha256=HASH (base64, as openssl dgst -sha256 -binary | base64 prints it)", name, key)
		}
	}
	return p, true, nil
}
