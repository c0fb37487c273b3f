// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testFiles are inputs with the given content.
func testFiles(t *testing.T, boxer, library string) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{Boxer: filepath.Join(dir, "boxer"), Library: filepath.Join(dir, "lib.so")}
	if err := errors.Join(os.WriteFile(f.Boxer, []byte(boxer), 0o700), os.WriteFile(f.Library, []byte(library), 0o600)); err != nil {
		t.Fatal(err)
	}
	return f
}

func build(t *testing.T, f Files) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Build(&out, f); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write(t *testing.T, data []byte) (path, hash string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "layer.zip")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	hash, err := Hash(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, hash
}

func TestBuildIsDeterministic(t *testing.T) {
	first := build(t, testFiles(t, "boxer", "library"))
	time.Sleep(10 * time.Millisecond)
	other := testFiles(t, "boxer", "library")
	if err := errors.Join(os.Chtimes(other.Boxer, time.Time{}, time.Unix(1, 0)), os.Chmod(other.Library, 0o777)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, build(t, other)) {
		t.Error("two builds of the same inputs differ")
	}
	if bytes.Equal(first, build(t, testFiles(t, "boxer2", "library"))) {
		t.Error("other inputs, same layer")
	}
	if err := Build(&bytes.Buffer{}, Files{Boxer: "/does/not/exist"}); err == nil || !strings.Contains(err.Error(), "bin/boxer") {
		t.Errorf("missing input: %v", err)
	}
}

func TestUnpack(t *testing.T) {
	path, hash := write(t, build(t, testFiles(t, "boxer", "library")))
	dir := t.TempDir()
	if err := errors.Join(Verify(path, hash), Verify(path, ""), Unpack(path, dir, hash)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		content string
		mode    fs.FileMode
	}{BoxerPath: {"boxer", 0o755}, LibraryPath: {"library", 0o644}, BootstrapPath: {bootstrap, 0o755}} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		info, err2 := os.Stat(filepath.Join(dir, name))
		if err != nil || err2 != nil || string(data) != want.content || info.Mode() != want.mode {
			t.Errorf("%s: %q %v %v %v", name, data, info, err, err2)
		}
	}
	if err := Unpack(path, filepath.Join(dir, "none"), hash); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("into a directory that is not there: %v", err)
	}
	if err := Unpack(path, dir, hash); err == nil || errors.Is(err, ErrCorrupt) { // what is there is not overwritten
		t.Errorf("twice: %v", err)
	}
}

// TestUnpackUmask: what is unpacked is for guests of any user.
func TestUnpackUmask(t *testing.T) {
	path, hash := write(t, build(t, testFiles(t, "boxer", "library")))
	dir := t.TempDir()
	old := syscall.Umask(0o077)
	err := Unpack(path, dir, hash)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		BoxerPath: 0o755, LibraryPath: 0o644, filepath.Dir(BoxerPath): 0o755, filepath.Dir(LibraryPath): 0o755,
	} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, info, err, want)
		}
	}
}

func TestCorrupt(t *testing.T) {
	data := build(t, testFiles(t, strings.Repeat("boxer ", 1000), "library"))
	path, hash := write(t, data)
	damaged := bytes.Clone(data)
	damaged[60] ^= 1
	for name, data := range map[string][]byte{"damaged": damaged, "cut": data[:len(data)/2], "empty": nil} {
		bad, found := write(t, data)
		err := Unpack(bad, t.TempDir(), hash)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := "corrupt layer: " + bad + ": checksum mismatch: expected " + hash + ", found " + found + ": build or fetch the layer again (make build) and retry"
		if err.Error() != want {
			t.Errorf("%s:\n got %s\nwant %s", name, err, want)
		}
		if err := Verify(bad, ""); !errors.Is(err, ErrCorrupt) { // also by its content
			t.Errorf("%s, hash unknown: %v", name, err)
		}
	}
	if err := Verify(path+".none", hash); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("no file: %v", err)
	}
}

// hostile is a complete layer with one more entry.
func hostile(t testing.TB, name string, mode fs.FileMode, content []byte) []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, e := range []string{BootstrapPath, BoxerPath, LibraryPath} {
		if err := addEntry(z, e, 0o755, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := addEntry(z, name, mode, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestHostileLayers(t *testing.T) {
	parent := t.TempDir()
	for name, data := range map[string][]byte{
		"../escape":   hostile(t, "../escape", 0o644, nil),
		"/absolute":   hostile(t, "/absolute", 0o644, nil),
		"a/../../b":   hostile(t, "a/../../b", 0o644, nil),
		"a\\..\\b":    hostile(t, "a\\..\\b", 0o644, nil),
		"bin/boxer":   hostile(t, "bin/boxer", 0o644, nil),
		"link":        hostile(t, "link", fs.ModeSymlink|0o777, []byte("/etc/passwd")),
		"device":      hostile(t, "device", fs.ModeDevice|0o666, nil),
		"bootstrap/x": hostile(t, "bootstrap/x", 0o644, nil),
	} {
		path, _ := write(t, data)
		dir := filepath.Join(parent, "dir")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Unpack(path, dir, ""); err == nil {
			t.Errorf("%s was unpacked", name)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(parent); len(left) != 0 {
			t.Errorf("%s wrote %v outside", name, left)
		}
	}
	var incomplete bytes.Buffer
	z := zip.NewWriter(&incomplete)
	_ = addEntry(z, BootstrapPath, 0o755, strings.NewReader("x"))
	z.Close()
	path, _ := write(t, incomplete.Bytes())
	if err := Verify(path, ""); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("incomplete: %v", err)
	}
}

// TestBomb: the size limit counts what comes out, not what headers say.
func TestBomb(t *testing.T) {
	defer func(was int64) { maxUnpacked = was }(maxUnpacked)
	maxUnpacked = 1 << 20
	path, _ := write(t, hostile(t, "zeros", 0o644, make([]byte, maxUnpacked)))
	err := Verify(path, "")
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "unpacks to more than") {
		t.Error(err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte{})
	f.Add(hostile(f, "../x", 0o644, []byte("y")))
	f.Add(hostile(f, "dir/", fs.ModeDir|0o755, nil))
	f.Add(hostile(f, "ok", 0o4755, []byte("z")))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir, path := filepath.Join(parent, "dir"), filepath.Join(parent, "zip")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		err := Unpack(path, dir, "")
		entries, readErr := os.ReadDir(parent)
		if readErr != nil || len(entries) != 2 {
			t.Errorf("outside: %v %v", entries, readErr)
		}
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
			if info, infoErr := d.Info(); infoErr != nil || info.Mode()&(fs.ModeSymlink|fs.ModeDevice|fs.ModeSetuid) != 0 {
				t.Errorf("%s: %v", p, info.Mode())
			}
			return nil
		})
		if err == nil && Verify(path, "") != nil {
			t.Error("unpacked what does not verify")
		}
	})
}

// TestBootstrap runs the function bootstrap with a fake supervisor.
func TestBootstrap(t *testing.T) {
	dir := t.TempDir()
	script := strings.ReplaceAll(bootstrap, "/opt/", dir+"/")
	fake := "#!/bin/sh\necho \"$1 $HOME $$\""
	if err := errors.Join(os.Mkdir(dir+"/bin", 0o755), os.WriteFile(dir+"/bin/boxer", []byte(fake), 0o755), os.WriteFile(dir+"/bootstrap", []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	for home, want := range map[string]string{"": "/tmp", "/does/not/exist": "/tmp", dir: dir} {
		cmd := exec.Command(dir + "/bootstrap")
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		if home != "" {
			cmd.Env = append(cmd.Env, "HOME="+home)
		}
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(out.String())
		if len(fields) != 3 || fields[0] != "function" || fields[1] != want {
			t.Errorf("home %q: %q", home, out.String())
		}
		if pid := cmd.ProcessState.Pid(); len(fields) == 3 && fields[2] != itoa(pid) {
			t.Errorf("not replaced by the supervisor: %s and %d", fields[2], pid)
		}
	}
}
