// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sources makes what a build leaves, in a directory of its own.
func sources(t *testing.T) release {
	t.Helper()
	dir := t.TempDir()
	r := release{version: "1.2.3-rc1", bin: filepath.Join(dir, "bin"), root: dir, out: filepath.Join(dir, "dist")}
	for _, name := range []string{
		"LICENSE", "README.md", "CHANGELOG.md",
		"bin/man/boxer.1", "bin/man/boxer-run.1", "bin/boxer-layer-amd64.zip", "bin/boxer-layer-arm64.zip",
		"bin/stage-amd64/boxer-cli", "bin/stage-amd64/libboxer.so", "bin/stage-amd64/terraform-provider-boxer",
		"bin/stage-arm64/boxer-cli", "bin/stage-arm64/libboxer.so", "bin/stage-arm64/terraform-provider-boxer",
	} {
		put(t, filepath.Join(dir, name), strings.Repeat("this is "+name+"\n", 100))
	}
	manifest, err := os.ReadFile("../terraform-registry-manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, manifestSource), string(manifest))
	return r
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// packed returns the files of the release by name.
func packed(t *testing.T, r release) map[string]string {
	t.Helper()
	if err := r.pack(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(r.out)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(r.out, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

// The names are a contract: the registry and install instructions go by them.
func TestNamesAndChecksums(t *testing.T) {
	r := sources(t)
	put(t, filepath.Join(r.out, "boxer_0.0.1_SHA256SUMS"), "of an earlier release")
	files := packed(t, r)
	sums := map[string][]string{
		"terraform-provider-boxer_1.2.3-rc1_SHA256SUMS": {
			"terraform-provider-boxer_1.2.3-rc1_linux_amd64.zip", "terraform-provider-boxer_1.2.3-rc1_linux_arm64.zip",
			"terraform-provider-boxer_1.2.3-rc1_manifest.json",
		},
		"boxer_1.2.3-rc1_SHA256SUMS": {
			"boxer-layer_1.2.3-rc1_amd64.zip", "boxer-layer_1.2.3-rc1_arm64.zip",
			"boxer_1.2.3-rc1_linux_amd64.tar.gz", "boxer_1.2.3-rc1_linux_arm64.tar.gz",
		},
	}
	count := 0
	for file, names := range sums {
		var want strings.Builder
		for _, name := range names {
			fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256([]byte(files[name])), name)
			count++
		}
		count++
		if diff := cmp.Diff(want.String(), files[file]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
	if len(files) != count {
		t.Errorf("%d files, want %d", len(files), count)
	}
	var manifest struct {
		Version  int
		Metadata struct {
			Protocols []string `json:"protocol_versions"`
		}
	}
	err := json.Unmarshal([]byte(files["terraform-provider-boxer_1.2.3-rc1_manifest.json"]), &manifest)
	if err != nil || manifest.Version != 1 || !slices.Equal(manifest.Metadata.Protocols, []string{"6.0"}) {
		t.Errorf("the manifest says %+v (%v)", manifest, err)
	}
}

func TestArchives(t *testing.T) {
	files := packed(t, sources(t))
	provider := files["terraform-provider-boxer_1.2.3-rc1_linux_arm64.zip"]
	z, err := zip.NewReader(strings.NewReader(provider), int64(len(provider)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range z.File {
		got = append(got, fmt.Sprint(f.Mode(), " ", f.Name, " ", f.Modified.UTC().Format(time.DateOnly)))
	}
	want := []string{"-rw-r--r-- LICENSE 1980-01-01", "-rwxr-xr-x terraform-provider-boxer_v1.2.3-rc1 1980-01-01"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the provider's zip (-want +got):\n%s", diff)
	}

	unzipped, err := gzip.NewReader(strings.NewReader(files["boxer_1.2.3-rc1_linux_amd64.tar.gz"]))
	if err != nil {
		t.Fatal(err)
	}
	got = nil
	var library bytes.Buffer
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(header.Name, "/libboxer.so") {
			if _, err := io.Copy(&library, archive); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, fmt.Sprint(header.FileInfo().Mode(), " ", header.Name, " ", header.Uid, header.Gid))
	}
	const at = "boxer_1.2.3-rc1_linux_amd64/"
	want = []string{
		"-rw-r--r-- " + at + "CHANGELOG.md 0 0", "-rw-r--r-- " + at + "LICENSE 0 0", "-rw-r--r-- " + at + "README.md 0 0",
		"-rwxr-xr-x " + at + "boxer 0 0", "-rw-r--r-- " + at + "boxer-layer-amd64.zip 0 0", "-rwxr-xr-x " + at + "libboxer.so 0 0",
		"-rw-r--r-- " + at + "man/boxer-run.1 0 0", "-rw-r--r-- " + at + "man/boxer.1 0 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the command line's archive (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(library.String(), "this is bin/stage-amd64/libboxer.so\n") {
		t.Error("the library is another architecture's")
	}
}

// Neither the place, nor the times, nor the owner's rights of what is packed matter.
func TestReproducible(t *testing.T) {
	first := sources(t)
	want := packed(t, first)
	second := sources(t)
	old := time.Now().Add(-1000 * time.Hour)
	for _, name := range []string{"LICENSE", "bin/stage-amd64/boxer-cli", "bin/stage-arm64/terraform-provider-boxer", "bin/man/boxer.1"} {
		path := filepath.Join(second.root, name)
		if err := errors.Join(os.Chtimes(path, old, old), os.Chmod(path, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, packed(t, second)); diff != "" {
		t.Errorf("two releases of the same files differ:\n%s", diff)
	}
}

// A release that is not whole is none, and one that was stays.
func TestIncomplete(t *testing.T) {
	for name, want := range map[string]string{
		"bin/stage-arm64/terraform-provider-boxer": "run make release", "bin/man": "run make release",
		"LICENSE": "LICENSE", manifestSource: manifestSource,
	} {
		r := sources(t)
		before := packed(t, r)
		if err := os.RemoveAll(filepath.Join(r.root, name)); err != nil {
			t.Fatal(err)
		}
		if err := r.pack(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v, want %q", name, err, want)
		}
		if entries, err := os.ReadDir(r.out); err != nil || len(entries) != len(before) {
			t.Errorf("without %s the release of before is gone (%v)", name, err)
		}
	}
	for _, version := range []string{"", "v1.2.3", "1.2", "1.2.3 "} {
		r := sources(t)
		r.version = version
		if err := r.pack(); err == nil {
			t.Errorf("version %q was released", version)
		}
	}
}
