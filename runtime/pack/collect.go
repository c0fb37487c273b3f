// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/loader"
)

// maxFiles bounds a package that somebody did not mean (--include /).
const maxFiles = 50_000

// put adds a file once: what came first stays.
func (p *Package) put(f File) error {
	if _, known := p.byName[f.Name]; known {
		return nil
	}
	if !fs.ValidPath(f.Name) || f.Name == "." || strings.ContainsAny(f.Name, "\\\x00") {
		return fmt.Errorf("%s: a package cannot have a file of the name %q: rename it", f.From, f.Name)
	}
	if len(p.Files) == maxFiles {
		return fmt.Errorf("more than %d files: include less", maxFiles)
	}
	info, err := os.Stat(f.From)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", f.From)
	}
	f.Size = info.Size()
	p.byName[f.Name] = len(p.Files)
	p.Files = append(p.Files, f)
	return nil
}

// add adds a file that may be a program, a plugin or a script.
func (p *Package) add(place, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return p.put(File{Name: place, From: from, Program: info.Mode().Perm()&0o111 != 0})
}

// walk adds a directory, links as what they point to; skip says what is left out.
func (p *Package) walk(dir, place string, skip func(name string, isDir bool) bool) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if p.walked[real] {
		return nil // a link to a directory around it
	}
	p.walked[real] = true
	defer delete(p.walked, real)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(dir, e.Name()), path.Join(place, e.Name())
		info, err := os.Stat(from)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			p.note("%s points to nothing and is left out", from)
		case err != nil:
			return err
		case skip != nil && skip(e.Name(), info.IsDir()):
		case info.IsDir():
			if err := p.walk(from, to, skip); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			if err := p.add(to, from); err != nil {
				return err
			}
		default:
			p.note("%s is neither a file nor a directory and is left out", from)
		}
	}
	return nil
}

var pythonName = regexp.MustCompile(`^python3\.[0-9]+$`)

// pythonLibrary is the standard library of a Python, empty if program is none.
func pythonLibrary(program string) string {
	name := filepath.Base(program)
	dir := filepath.Join(filepath.Dir(filepath.Dir(program)), "lib", name)
	if _, err := os.Stat(filepath.Join(dir, "os.py")); err != nil || !pythonName.MatchString(name) {
		return ""
	}
	return dir
}

// pythonLeaves: what programs do not import. Compiled files would not be used: they
// are of files of another time.
func pythonLeaves(name string, isDir bool) bool {
	if isDir {
		switch name {
		case "__pycache__", "test", "tests", "idlelib", "idle_test", "ensurepip", "tkinter", "turtledemo", "pydoc_data", "dist-packages", "site-packages":
			return true
		}
		return strings.HasPrefix(name, "config-")
	}
	return strings.HasSuffix(name, ".a") || strings.HasSuffix(name, ".pyc")
}

// Libraries that libc loads by name when it is asked for something.
var (
	nameService = []string{"libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"}
	unwinder    = []string{"libgcc_s.so.1"}

	asksForNames  = []string{"getaddrinfo", "gethostbyname", "gethostbyname_r", "gethostbyname2_r", "getpwnam", "getpwnam_r", "getpwuid", "getpwuid_r", "getgrnam", "getservbyname"}
	asksToUnwind  = []string{"pthread_exit", "pthread_cancel", "backtrace"}
	asksToConvert = []string{"iconv_open"}
)

// resolve adds the libraries of all programs and plugins, and says of each file how
// it is to be changed.
func (p *Package) resolve() error {
	if p.main != nil && !p.main.Static() {
		p.memory = loader.Load(p.main, os.Getenv("LD_LIBRARY_PATH"))
	}
	scripts := []int{}
	for i := range p.Files {
		if p.Files[i].change != nil {
			continue
		}
		f, err := loader.Open(p.Files[i].From)
		switch {
		case errors.Is(err, loader.ErrNotELF):
			scripts = append(scripts, i)
		case err != nil:
			p.note("%v: packed as it is", err)
			p.Files[i].change = unchanged
		default:
			if err := p.object(i, f); err != nil {
				return err
			}
		}
	}
	if err := p.libraries(); err != nil {
		return err
	}
	for _, i := range scripts {
		p.script(i)
	}
	for place := range p.byName { // what is looked for at a fixed path, unless told
		switch {
		case strings.HasSuffix(place, "/gconv/gconv-modules"):
			p.Environment["GCONV_PATH"] = taskRoot + path.Dir(place)
		case strings.HasSuffix(place, "/perl-base/strict.pm"):
			p.Environment["PERL5LIB"] = taskRoot + path.Dir(place)
		}
	}
	if p.Musl { // where an RPATH comes after it, and Lambda sets it
		p.Environment["LD_LIBRARY_PATH"] = taskRoot + libraryDir
	}
	return nil
}

// object is a program or a plugin.
func (p *Package) object(i int, f *loader.File) error {
	file := &p.Files[i]
	switch {
	case f.Machine != p.main.Machine || !f.Dynamic || f.Static() && f.Type.String() != "ET_DYN" || p.memory == nil:
		file.change = unchanged
	case f.Static(): // a library
		p.memory.Add(f)
		file.library = f
	case f.Musl() != p.Musl || filepath.Base(f.Interp) != filepath.Base(p.main.Interp):
		p.note("%s is for another libc than %s and will not run", file.From, p.main.Path)
		file.change = unchanged
	case !file.Program:
		file.library = f
	default:
		if file.From != p.main.Path {
			p.memory.Add(f)
		}
		file.change = func(data []byte) ([]byte, error) { return data, moveProgram(data) }
	}
	return nil
}

// libraries adds what was found to be needed, and what libc itself loads.
func (p *Package) libraries() error {
	if p.memory == nil {
		return nil
	}
	uses := func(symbols []string) bool {
		if len(p.main.Uses(symbols...)) > 0 {
			return true
		}
		for _, l := range p.memory.Libraries {
			if l.File != nil && !loader.OfGlibc(l.Name) && len(l.Uses(symbols...)) > 0 {
				return true
			}
		}
		return false
	}
	if !p.Musl {
		for _, c := range []struct{ names, asks []string }{{nameService, asksForNames}, {unwinder, asksToUnwind}} {
			if uses(c.asks) {
				for _, name := range c.names {
					p.memory.AddName(name)
				}
			}
		}
		if len(p.main.Uses(asksToConvert...)) > 0 && !p.holds("usr/lib/"+map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[p.Architecture]+"-linux-gnu/gconv") {
			p.note("iconv converts Unicode and ASCII only: --include the system's gconv directory for other character sets")
		}
	}
	own := map[string]bool{} // real paths of what is in the package at a place of its own
	for _, f := range p.Files {
		if f.library != nil { // programs have lost the path to it
			if real, err := filepath.EvalSymlinks(f.From); err == nil {
				own[real] = true
			}
		}
	}
	for _, l := range p.memory.Libraries {
		if l.File == nil {
			if l.By == p.main.Path {
				return fmt.Errorf("its library %s is not on this machine: install it, or set LD_LIBRARY_PATH as for the program", l.Name)
			}
			if !p.has(l.Name) { // else it is loaded by its path, before
				p.note("%s needs %s, which is not on this machine", l.By, l.Name)
			}
			continue
		}
		real, err := filepath.EvalSymlinks(l.Path)
		if err != nil {
			return err
		}
		if by, err := filepath.EvalSymlinks(l.By); err == nil && l.Own && own[real] && own[by] {
			continue
		}
		p.Libraries = append(p.Libraries, Library{l.Name, real})
		if err := p.put(File{Name: path.Join(libraryDir, path.Base(l.Name)), From: real, library: l.File}); err != nil {
			return err
		}
	}
	return nil
}

// has says whether a library of that name is somewhere in the package.
func (p *Package) has(name string) bool {
	return slices.ContainsFunc(p.Files, func(f File) bool { return path.Base(f.Name) == name })
}

// script makes a script run by the package's own interpreter, if it has it.
func (p *Package) script(i int) {
	file := &p.Files[i]
	file.change = unchanged
	if !file.Program {
		return
	}
	file.change = func(data []byte) ([]byte, error) {
		run, args := loader.Interpreter(data)
		if run == "" {
			return data, nil
		}
		found, err := Find(run, p.path)
		if err != nil {
			return data, nil //nolint:nilerr // it is the target's, or nobody's
		}
		candidates := []string{placeOf(found)}
		if real, err := filepath.EvalSymlinks(found); err == nil {
			candidates = append(candidates, placeOf(filepath.Join(filepath.Dir(real), filepath.Base(found))), placeOf(real))
		}
		for _, place := range candidates {
			if _, ok := p.byName[place]; ok {
				return withInterpreter(data, taskRoot+place, args), nil
			}
		}
		return data, nil
	}
}
