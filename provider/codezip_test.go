// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCodeZip: the same contents are the same zip, links stay links, and a package
// of them is the same as a directory.
func TestCodeZip(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("app/bin/run", "#!/bin/sh", 0o700)
	write("app/data", "text", 0o600)
	if err := os.Symlink("bin/run", filepath.Join(dir, "app/link")); err != nil {
		t.Fatal(err)
	}
	spec := nodeSpec{SourceDir: filepath.Join(dir, "app")}
	first, err := codeZip(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chtimes(filepath.Join(dir, "app/data"), time.Time{}, time.Unix(1, 0)), os.Chmod(filepath.Join(dir, "app/data"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if again, err := codeZip(spec); err != nil || !bytes.Equal(first, again) {
		t.Errorf("packed again: other bytes, %v", err)
	}
	z, err := zip.NewReader(bytes.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]os.FileMode{"bin/": os.ModeDir | 0o755, "bin/run": 0o755, "data": 0o644, "link": os.ModeSymlink | 0o777}
	for _, file := range z.File {
		if file.Mode() != modes[file.Name] {
			t.Errorf("%s: %v, want %v", file.Name, file.Mode(), modes[file.Name])
		}
		if file.Name == "link" {
			in, err := file.Open()
			if err != nil {
				t.Fatal(err)
			}
			if target, _ := io.ReadAll(in); string(target) != "bin/run" {
				t.Errorf("the link leads to %q", target)
			}
			in.Close()
		}
		delete(modes, file.Name)
	}
	if len(modes) > 0 {
		t.Errorf("not packed: %v", modes)
	}
	if err := os.Remove(filepath.Join(dir, "app/link")); err != nil {
		t.Fatal(err)
	}
	direct, err := codeZip(spec)
	if err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(dir, "app.zip")
	if err := os.WriteFile(packed, direct, 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := codeZip(nodeSpec{Package: packed}); err != nil || !bytes.Equal(direct, again) {
		t.Errorf("of a package: other bytes, %v", err)
	}
	if nothing, err := codeZip(nodeSpec{}); err != nil || len(nothing) == 0 {
		t.Errorf("of nothing: %d bytes, %v", len(nothing), err)
	}
	if _, err := codeZip(nodeSpec{SourceDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "it is empty") {
		t.Errorf("of an empty directory: %v", err)
	}
}

func TestPackageInS3(t *testing.T) {
	for name, want := range map[string]s3Package{
		"s3://shop/app.zip":                          {Bucket: "shop", Key: "app.zip"},
		"s3://shop/a/b.zip?version=3sL4.x&sha256=q=": {Bucket: "shop", Key: "a/b.zip", Version: "3sL4.x", SHA256: "q="},
	} {
		if got, ok, err := parseS3(name); !ok || err != nil || got != want {
			t.Errorf("%s: %+v %v %v", name, got, ok, err)
		}
	}
	if _, ok, _ := parseS3("app.zip"); ok {
		t.Error("app.zip is in no bucket")
	}
	for _, name := range []string{"s3://", "s3://shop", "s3:///key", "s3://shop/key?v=1"} {
		if _, ok, err := parseS3(name); !ok || err == nil {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
}
