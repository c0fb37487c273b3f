// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sourceTree makes the directory that each case of TestSourceHash changes.
func sourceTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"app.py": "print(1)", "lib/a.py": "a", "lib/b.py": ""} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("app.py", filepath.Join(dir, "main.py")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustHash(t *testing.T, dir string) string {
	t.Helper()
	sum, err := sourceHash(dir)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestSourceHashSeesWhatTheGuestSees(t *testing.T) {
	changes := map[string]struct {
		change func(dir string) error
		same   bool
	}{
		"nothing":  {func(string) error { return nil }, true},
		"a time":   {func(d string) error { return os.Chtimes(d+"/app.py", time.Unix(1, 0), time.Unix(1, 0)) }, true},
		"content":  {func(d string) error { return os.WriteFile(d+"/app.py", []byte("print(2)"), 0o644) }, false},
		"a name":   {func(d string) error { return os.Rename(d+"/lib/a.py", d+"/lib/c.py") }, false},
		"execute":  {func(d string) error { return os.Chmod(d+"/app.py", 0o755) }, false},
		"new file": {func(d string) error { return os.WriteFile(d+"/new", nil, 0o644) }, false},
		"new dir":  {func(d string) error { return os.Mkdir(d+"/new", 0o755) }, false},
		"no link":  {func(d string) error { return os.Remove(d + "/main.py") }, false},
		"link target": {func(d string) error {
			if err := os.Remove(d + "/main.py"); err != nil {
				return err
			}
			return os.Symlink("lib/a.py", d+"/main.py")
		}, false},
	}
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			dir := sourceTree(t)
			before := mustHash(t, dir)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			if after := mustHash(t, dir); (after == before) != c.same {
				t.Errorf("before %s, after %s; want same: %v", before, after, c.same)
			}
		})
	}
}

func TestSourceHashDoesNotDependOnThePlace(t *testing.T) {
	one, two := sourceTree(t), sourceTree(t)
	if a, b := mustHash(t, one), mustHash(t, two); a != b {
		t.Errorf("equal trees hash differently: %s, %s", a, b)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	if a, b := mustHash(t, one), mustHash(t, link); a != b {
		t.Errorf("a link to the directory hashes differently: %s, %s", a, b)
	}
}

func TestSourceHashRefusesWhatCannotBeCopied(t *testing.T) {
	dir := sourceTree(t)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := sourceHash(dir)
	if err == nil || !strings.Contains(err.Error(), "pipe is neither a file, a directory nor a link: remove it") {
		t.Errorf("got %v", err)
	}
}
