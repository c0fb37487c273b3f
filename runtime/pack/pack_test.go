// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/boxer-overlay/boxer/runtime/loader"
)

func init() { level = flate.NoCompression }

// collected packs argv as from dir.
func collected(t *testing.T, o Options) *Package {
	t.Helper()
	if o.Path == "" {
		o.Path = "/usr/bin:/bin"
	}
	p, err := Collect(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func zipped(t *testing.T, p *Package) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpacked is a root with nothing but the package at /var/task.
func unpacked(t *testing.T, data []byte) string {
	t.Helper()
	root := t.TempDir()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		if !f.Mode().IsRegular() {
			t.Errorf("%s is no file: the provider would refuse the package", f.Name)
		}
		to := filepath.Join(root, "var/task", f.Name)
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, content, f.Mode().Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// run runs a command with nothing but what is in root.
func run(t *testing.T, root string, command []string, env ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = "/", slices.Concat(env, []string{"LD_LIBRARY_PATH=/lib64:/var/task:/var/task/lib"})
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) && os.Getuid() != 0 {
		t.Skip("this system denies user namespaces, in which the test would change its root")
	}
	if err != nil {
		t.Errorf("%v: %v: %s", command, err, out)
	}
	return string(out)
}

func compile(t *testing.T, compiler, path, source string, args ...string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".c", []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(compiler, append([]string{path + ".c", "-o", path}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", compiler, err, out)
	}
	return path
}

const speaks = `#include <stdio.h>
#include <unistd.h>
int main(int n, char **v) {
	char exe[999] = {0};
	if (readlink("/proc/self/exe", exe, 998) < 0) exe[0] = '-';
	printf("%s %s", v[0], n > 1 ? v[1] : "");
	return 0;
}`

// TestRunsAlone: what is packed runs in a root with nothing else, however it was
// linked, although LD_LIBRARY_PATH names other places first.
func TestRunsAlone(t *testing.T) {
	dir := t.TempDir()
	lib := compile(t, "gcc", filepath.Join(dir, "lib/libplus.so"), "int plus(int a){return a+1;}", "-shared", "-fPIC", "-Wl,-soname,libplus.so")
	calls := "#include <stdio.h>\nint plus(int); int main(int n, char **v){printf(\"%s %d\", v[0], plus(n)); return 0;}"
	for name, c := range map[string]struct {
		compiler, source string
		flags            []string
		want             string
	}{
		"pie":       {"gcc", speaks, nil, " x"},
		"no-pie":    {"gcc", speaks, []string{"-no-pie"}, " x"},
		"relro":     {"gcc", speaks, []string{"-Wl,-z,now,-z,relro"}, " x"},
		"no-spares": {"gcc", speaks, []string{"-Wl,-z,nodynamic-undefined-weak"}, " x"},
		"musl":      {"musl-gcc", speaks, nil, " x"},
		"runpath":   {"gcc", calls, []string{lib, "-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib"}, " 3"},
		"rpath":     {"gcc", calls, []string{lib, "-Wl,--disable-new-dtags,-rpath," + filepath.Join(dir, "lib")}, " 3"},
	} {
		program := compile(t, c.compiler, filepath.Join(dir, name), c.source, c.flags...)
		p := collected(t, Options{Argv: []string{program, "x"}})
		root := unpacked(t, zipped(t, p))
		if got, want := run(t, root, p.Command), p.Command[0]+c.want; got != want {
			t.Errorf("%s says %q, want %q", name, got, want)
		}
	}
}

// TestRunsAloneOnARM64: names of loaders are shorter there, and both still fit.
func TestRunsAloneOnARM64(t *testing.T) {
	const system = "/usr/aarch64-linux-gnu/lib/"
	emulator, err := exec.LookPath("qemu-aarch64-static")
	if err != nil || runtime.GOARCH == "arm64" {
		t.Skip("no qemu-aarch64-static, or no need for it")
	}
	root := t.TempDir()
	program := compile(t, "aarch64-linux-gnu-gcc", filepath.Join(root, "var/task/program"), speaks)
	for name, from := range map[string]string{"ld": "ld-linux-aarch64.so.1", "l/libc.so.6": "libc.so.6"} {
		data, err := os.ReadFile(system + from)
		if err == nil {
			err = os.MkdirAll(filepath.Join(root, "var/task/l"), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(root, "var/task", name), data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(program)
	if err == nil {
		err = moveProgram(data)
	}
	if err == nil {
		err = os.WriteFile(program, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(emulator, "-L", root, program, "x").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "program x") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestEnvironment: what is looked for at a fixed path is found by a variable.
func TestEnvironment(t *testing.T) {
	p := collected(t, Options{Argv: []string{"perl", "-e", `use strict; use POSIX; print POSIX::floor(42.5)`}})
	root := unpacked(t, zipped(t, p))
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dev/null"), nil, 0o600); err != nil { // Perl opens it
		t.Fatal(err)
	}
	if got := run(t, root, p.Command, "PERL5LIB="+p.Environment["PERL5LIB"]); got != "42" {
		t.Errorf("it says %q, with %v", got, p.Environment)
	}
	if _, err := os.Stat("/usr/lib/" + multiarch + "/gconv/gconv-modules"); err != nil {
		return // not every system has it there
	}
	if p := collected(t, Options{Argv: []string{"cat"}, Include: []string{"/usr/lib/" + multiarch + "/gconv"}}); p.Environment["GCONV_PATH"] != "/var/task/usr/lib/"+multiarch+"/gconv" {
		t.Errorf("with gconv: %v", p.Environment)
	}
}

// multiarch is this machine's name in Debian's paths.
var multiarch = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]

// TestInterpreted: scripts run with the packed interpreter, children of the package too.
func TestInterpreted(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, script := range map[string]string{
		"app":   "#!/usr/bin/env python3\nimport sys, ssl, json, subprocess\nprint(sys.argv[1:], subprocess.check_output([sys.executable, '-c', 'print(6*7)'], text=True), subprocess.check_output(['/var/task/tool'], text=True))\n",
		"tool":  "#!/usr/bin/python3 -I\nimport sys\nprint(sys.flags.isolated, open('/var/task/etc/x.conf').read())",
		"x":     "of x",
		"other": "#!/nowhere/at all\n",
	} {
		if err := os.WriteFile(name, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := collected(t, Options{Argv: []string{"./app", "--config=x", "-c/nowhere", "--", "x"}, Include: []string{"tool", "x:etc/x.conf", "other"}})
	root := unpacked(t, zipped(t, p))
	if got, want := run(t, root, p.Command), "['--config=/var/task/x', '-c/nowhere', '--', '/var/task/x'] 42\n 1 of x\n\n"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	if data, _ := os.ReadFile(filepath.Join(root, "var/task/other")); string(data) != "#!/nowhere/at all\n" {
		t.Errorf("a script of the target's interpreter became %q", data)
	}
}

// TestPackage: the same files give the same bytes; links are what they point to, once
// around a loop; what is written about the package is there.
func TestPackage(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll("data/deep", 0o755))
	must(os.WriteFile("data/a", []byte("a"), 0o640))
	must(os.Symlink("../a", "data/deep/link"))
	must(os.Symlink("..", "data/deep/up"))
	must(os.Symlink("nothing", "data/dangling"))
	must(syscall.Mkfifo("data/pipe", 0o600))
	must(os.WriteFile("data/broken.so", []byte("\x7fELF and no more"), 0o644))
	o := Options{Argv: []string{"/bin/cat", "data", "-"}, Include: []string{"data"}}
	p := collected(t, o)
	first := zipped(t, p)
	must(os.Chtimes("data/a", epoch, epoch))
	if !bytes.Equal(first, zipped(t, collected(t, o))) {
		t.Error("the second package of the same files differs")
	}
	root := filepath.Join(unpacked(t, first), "var/task")
	for name, want := range map[string]string{"data/a": "a", "data/deep/link": "a", "data/broken.so": "\x7fELF and no more"} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, ManifestName))
	must(err)
	var m manifest
	must(json.Unmarshal(text, &m))
	if want := []string{"/var/task/usr/bin/cat", "/var/task/data", "-"}; !slices.Equal(m.Command, want) || len(m.Libraries) != 1 || m.Libraries[0].Name != "libc.so.6" {
		t.Errorf("manifest: %s", text)
	}
	if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "data/dangling points to nothing") || !strings.Contains(notes, "data/pipe is neither") {
		t.Errorf("notes: %s", notes)
	}
}

func TestRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("text", []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	lib := compile(t, "gcc", "libgone.so", "int gone(void){return 1;}", "-shared", "-fPIC", "-Wl,-soname,libgone.so")
	compile(t, "gcc", "lost", "int gone(void); int main(void){return gone();}", lib)
	foreign := compile(t, "gcc", "foreign", speaks, "-Wl,--dynamic-linker,/nowhere/ld.so")
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no loader":   {Options{Argv: []string{"./" + foreign}}, "its loader /nowhere/ld.so is not on this machine"},
		"none":        {Options{}, "name the program"},
		"unknown":     {Options{Argv: []string{"no-such-program"}}, "no-such-program: not found: install it"},
		"not there":   {Options{Argv: []string{"./nothing"}}, "./nothing: not found"},
		"directory":   {Options{Argv: []string{"./"}}, "not a program"},
		"text":        {Options{Argv: []string{"./text"}}, "not an ELF file"},
		"no library":  {Options{Argv: []string{"./lost"}}, "its library libgone.so is not on this machine"},
		"no include":  {Options{Argv: []string{"/bin/cat"}, Include: []string{"nothing"}}, `include "nothing": stat nothing: no such file`},
		"bad place":   {Options{Argv: []string{"/bin/cat"}, Include: []string{"text:../x"}}, "want PATH or PATH:PLACE"},
		"empty place": {Options{Argv: []string{"/bin/cat"}, Include: []string{""}}, "want PATH or PATH:PLACE"},
	} {
		c.o.Path = "/usr/bin:/bin"
		if _, err := Collect(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	p := collected(t, Options{Argv: []string{"/bin/cat"}})
	p.Files = append(p.Files, File{Name: "big", Size: Limit - LayerShare})
	if err := p.CheckSize(); err == nil || !strings.Contains(err.Error(), "the biggest are big 230.0 MB, ") {
		t.Errorf("too big: %v", err)
	}
}

func TestStaticIsNoGuest(t *testing.T) {
	program := compile(t, "gcc", filepath.Join(t.TempDir(), "still"), speaks, "-static")
	p := collected(t, Options{Argv: []string{program}})
	if len(p.Files) != 1 || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "is no guest") {
		t.Errorf("%d files, %q", len(p.Files), p.Notes)
	}
}

func TestInterpreterLine(t *testing.T) {
	for line, want := range map[string][]string{
		"#!/bin/sh\nx":                       {"/bin/sh"},
		"#! /usr/bin/python3 -I -B\n":        {"/usr/bin/python3", "-I", "-B"},
		"#!/usr/bin/env -S A=b node --x\nyy": {"node", "--x"},
		"#!":                                 {""},
		"#!/usr/bin/env\n":                   {""},
		"text":                               {""},
		"":                                   {""},
	} {
		program, args := loader.Interpreter([]byte(line))
		if got := append([]string{program}, args...); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestDpkg(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"status": "Package: web\nStatus: install ok installed\nSource: webs (1.0)\nDepends: web-common (= 1), libc6 | other\n\n" +
			"Package: web-common\nSource: webs\nDepends: web\n\nPackage: libc6\nSource: glibc\n",
		"info/web.list":              "/.\n/usr/sbin/web\n/usr/share/web/page\n/usr/share/doc/web/copyright\n",
		"info/web-common:amd64.list": "/etc/web/web.conf\n/etc/init.d/web\n/usr/bin/webtool\n/usr/lib/web/libx.a\n",
		"info/libc6.list":            "/usr/share/libc/x\n/bin/merged\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := dpkg{dir}
	name, files := d.data("/usr/sbin/web")
	if diff := cmp.Diff([]string{"/.", "/usr/share/web/page", "/etc/web/web.conf"}, files); name != "web" || diff != "" {
		t.Errorf("package %s: %s", name, diff)
	}
	if name, _ := d.data("/usr/bin/merged"); name != "libc6" {
		t.Errorf("the owner of /usr/bin/merged is %q", name)
	}
	if name, files := (dpkg{t.TempDir()}).data("/usr/sbin/web"); name != "" || files != nil {
		t.Errorf("without dpkg: %q, %q", name, files)
	}
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

// FuzzImage: whatever the file, it is changed in its own bytes or refused.
func FuzzImage(f *testing.F) {
	f.Add(tiny(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, move := range []func([]byte) error{moveProgram, func(d []byte) error { return moveLibrary(d, nil) }} {
			copied := slices.Clone(data)
			if err := move(copied); err != nil && len(copied) != len(data) {
				t.Error("its length changed")
			}
		}
	})
}

// FuzzInterpreter: the first line that is put into a script is read again as it was meant.
func FuzzInterpreter(f *testing.F) {
	f.Add([]byte("#!/usr/bin/env -S python3 -x\nbody"))
	f.Add([]byte("#!/bin/sh"))
	f.Fuzz(func(t *testing.T, data []byte) {
		program, args := loader.Interpreter(data)
		if program == "" || len(args) > 3 || len(data) > 100 {
			return
		}
		again, args2 := loader.Interpreter(withInterpreter(data, "/var/task/x", args))
		if again != "/var/task/x" || !slices.Equal(args, args2) {
			t.Errorf("%q: %q %q, then %q %q", data, program, args, again, args2)
		}
	})
}

// TestQuickstart: the command that the example on AWS says makes the package whose command
// it declares.
func TestQuickstart(t *testing.T) {
	t.Chdir("../../examples/quickstart/aws")
	text, err := os.ReadFile("main.tf")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`boxer pack -o logic\.zip -- ([^"]*)"`).FindSubmatch(text)
	declared := regexp.MustCompile(`package +=.*\n +command +=(.*)\n`).FindSubmatch(text)
	if said == nil || declared == nil {
		t.Fatal("main.tf does not say how its package is made, or what of it is run")
	}
	var want []string
	if err := json.Unmarshal(declared[1], &want); err != nil {
		t.Fatal(err)
	}
	p := collected(t, Options{Argv: strings.Fields(string(said[1]))})
	if !slices.Equal(p.Command, want) {
		t.Errorf("it is run by %q, and main.tf has %q", p.Command, want)
	}
	if page, err := os.ReadFile("../../../docs/aws-untried.md"); err != nil || !strings.Contains(string(page), "boxer pack -o logic.zip -- "+string(said[1])+"\n") {
		t.Errorf("docs/aws-untried.md has another command (%v)", err)
	}
}
