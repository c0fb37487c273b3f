// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// TestLoadsAsTheLoader: the libraries of real programs are those that the loader
// itself names.
func TestLoadsAsTheLoader(t *testing.T) {
	for _, program := range []string{"/usr/sbin/nginx", "/usr/bin/redis-server", "/usr/bin/python3", "/usr/bin/curl", "/bin/sh", "/usr/lib/jvm/default-java/bin/java"} {
		f, err := Open(program)
		if err != nil {
			t.Errorf("%v: run make deps", err)
			continue
		}
		got := map[string]string{}
		for _, l := range Load(f, "").Libraries {
			got[l.Name] = real(t, l.Path)
		}
		out, err := exec.Command(f.Interp, "--list", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, m := range regexp.MustCompile(`(\S+) => (/\S+) `).FindAllStringSubmatch(string(out), -1) {
			if strings.HasPrefix(m[1], "ld-linux") {
				continue
			}
			want++
			if got[m[1]] != real(t, m[2]) {
				t.Errorf("%s: %s is %q, the loader finds %s", program, m[1], got[m[1]], m[2])
			}
		}
		if want == 0 || want != len(got) {
			t.Errorf("%s: %d libraries, the loader finds %d", program, len(got), want)
		}
	}
}

func real(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func compile(t *testing.T, compiler, name, source string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path+".c", []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(compiler, append([]string{path + ".c", "-o", path}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// TestSearchPaths: RPATH goes to what is loaded for whom it is of, RUNPATH does
// not, and $ORIGIN is where the file really is.
func TestSearchPaths(t *testing.T) {
	inner := compile(t, "gcc", "libinner.so", "int inner(void){return 1;}", "-shared", "-fPIC", "-Wl,-soname,libinner.so")
	outer := compile(t, "gcc", "libouter.so", "int inner(void); int outer(void){return inner();}", "-shared", "-fPIC", "-Wl,-soname,libouter.so", inner)
	both := filepath.Dir(outer) + ":" + filepath.Dir(inner)
	for name, c := range map[string]struct {
		flags   []string
		env     string
		missing string
	}{
		"rpath":             {[]string{"-Wl,--disable-new-dtags,-rpath," + both}, "", ""},
		"runpath":           {[]string{"-Wl,--enable-new-dtags,-rpath," + both}, "", "libinner.so"},
		"nothing":           {nil, "", "libouter.so"},
		"environment":       {nil, both, ""},
		"own, rpath":        {[]string{"-Wl,--disable-new-dtags,-rpath,$ORIGIN/../" + filepath.Base(filepath.Dir(outer)) + ":${ORIGIN}/../" + filepath.Base(filepath.Dir(inner))}, "", ""},
		"runpath over none": {[]string{"-Wl,--enable-new-dtags,-rpath," + filepath.Dir(outer)}, filepath.Dir(inner), ""},
	} {
		program := compile(t, "gcc", "program", "int outer(void); int main(void){return outer();}", append(c.flags, outer, inner, "-Wl,--no-as-needed,--unresolved-symbols=ignore-all")...)
		f, err := Open(program)
		if err != nil {
			t.Fatal(err)
		}
		// The program itself asks for the outer one only.
		f.Needed = []string{"libouter.so", "libc.so.6"}
		if got := strings.Join(Load(f, c.env).Missing(), " "); got != c.missing {
			t.Errorf("%s: %q are missing, want %q", name, got, c.missing)
		}
	}
}

func TestMusl(t *testing.T) {
	f, err := Open(compile(t, "musl-gcc", "program", "int main(void){return 0;}"))
	if err != nil {
		t.Fatal(err)
	}
	if p := Load(f, ""); !f.Musl() || f.Static() || len(p.Libraries) > 0 {
		t.Errorf("%+v: want a program of musl, whose only library is its loader: %v", f, p.Libraries)
	}
}

func TestNewer(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"2.34", "", true}, {"2.34", "2.4", true}, {"2.4", "2.34", false}, {"2.34", "2.34", false}, {"2.2.5", "2.2", true}, {"PRIVATE", "", false}, {"", "", false}} {
		if got := Newer(c.a, c.b); got != c.want {
			t.Errorf("Newer(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

// TestCache: what ldconfig -p prints for this machine.
func TestCache(t *testing.T) {
	data, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseCache(data, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if path := got["libc.so.6"]; !strings.HasSuffix(path, "/libc.so.6") || len(got) < 10 {
		t.Errorf("libc is %q among %d libraries", path, len(got))
	}
	for cut := range len(data) / 7 {
		_, _ = parseCache(data[:cut*7], runtime.GOARCH)
	}
}

func FuzzCache(f *testing.F) {
	data, _ := os.ReadFile("/etc/ld.so.cache")
	f.Add(data[:min(len(data), 2000)])
	f.Add([]byte(cacheOldMagic + "\x00\x02\x00\x00\x00"))
	f.Add([]byte(cacheMagic + "\x01\x00\x00\x00" + strings.Repeat("\x00", 60)))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := parseCache(data, "amd64")
		if err != nil && found != nil {
			t.Error("both an error and libraries")
		}
	})
}

// FuzzELF: whatever the file, an answer or an error.
func FuzzELF(f *testing.F) {
	if out, err := exec.Command("gcc", "-v").CombinedOutput(); err == nil && len(out) > 0 {
		dir := f.TempDir()
		cmd := exec.Command("gcc", "-s", "-x", "c", "-", "-o", dir+"/p", "-Wl,-rpath,/x", "-Wl,-z,norelro")
		cmd.Stdin = strings.NewReader("int main(void){return 0;}")
		if cmd.Run() == nil {
			data, _ := os.ReadFile(dir + "/p")
			f.Add(data)
		}
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if file, err := read(bytes.NewReader(data)); err == nil && file == nil {
			t.Error("neither")
		}
	})
}
