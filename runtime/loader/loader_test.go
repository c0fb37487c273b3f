// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
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

// tiny is a small ELF file with a loader, a dynamic section and its strings.
func tiny(t testing.TB) []byte {
	t.Helper()
	const interp, names = "/lib64/ld-linux-x86-64.so.2\x00", "\x00libc.so.6\x00$ORIGIN/x\x00.dynamic\x00.dynstr\x00"
	const base, ehsize, phsize, shsize = 0x400000, 64, 56, 64
	var out bytes.Buffer
	at := func(n uint64) uint64 { return ehsize + 3*phsize + n }
	text := uint64(len(interp) + len(names))
	dynamic := []elf.Dyn64{{Tag: int64(elf.DT_NEEDED), Val: 1}, {Tag: int64(elf.DT_RUNPATH), Val: 11}, {Tag: int64(elf.DT_STRTAB), Val: base + at(uint64(len(interp)))}, {}, {}}
	size := uint64(16 * len(dynamic))
	var ident [elf.EI_NIDENT]byte
	copy(ident[:], elf.ELFMAG+"\x02\x01\x01")
	for _, part := range []any{
		elf.Header64{Ident: ident, Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: ehsize, Shoff: at(text + size), Ehsize: ehsize, Phentsize: phsize, Phnum: 3, Shentsize: shsize, Shnum: 3, Shstrndx: 2},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: 5, Vaddr: base, Filesz: at(text + size), Memsz: at(text + size)},
		elf.Prog64{Type: uint32(elf.PT_INTERP), Off: at(0), Vaddr: base + at(0), Filesz: uint64(len(interp))},
		elf.Prog64{Type: uint32(elf.PT_DYNAMIC), Off: at(text), Vaddr: base + at(text), Filesz: size},
		[]byte(interp + names), dynamic,
		elf.Section64{},
		elf.Section64{Name: 21, Type: uint32(elf.SHT_DYNAMIC), Off: at(text), Size: size, Link: 2, Entsize: 16},
		elf.Section64{Name: 30, Type: uint32(elf.SHT_STRTAB), Off: at(uint64(len(interp))), Size: uint64(len(names))},
	} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestTiny(t *testing.T) {
	f, err := read(bytes.NewReader(tiny(t)))
	if err != nil || f.Interp != "/lib64/ld-linux-x86-64.so.2" || !slices.Equal(f.Needed, []string{"libc.so.6"}) || !slices.Equal(f.RunPath, []string{"$ORIGIN/x"}) {
		t.Errorf("%+v, %v", f, err)
	}
	cut := tiny(t)
	clear(cut[40:48]) // no section headers
	clear(cut[58:64])
	if _, err := read(bytes.NewReader(cut)); err == nil || !strings.Contains(err.Error(), "no section headers") {
		t.Errorf("without section headers: %v", err)
	}
}

// FuzzELF: whatever the file, an answer or an error.
func FuzzELF(f *testing.F) {
	f.Add(tiny(f))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if file, err := read(bytes.NewReader(data)); err == nil && file == nil {
			t.Error("neither")
		}
	})
}
