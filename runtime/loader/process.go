// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Library is one that a program loads.
type Library struct {
	Name  string // as it is asked for
	Path  string // where it is found here; empty: nowhere
	By    string // path of what asks for it first
	Own   bool   // found relative to what asks for it ($ORIGIN)
	*File        // nil if it is not found
}

// Process is a program with the libraries it loads.
type Process struct {
	Libraries []Library

	main   *object
	cached map[string]string
	env    []string
	known  map[string]bool
}

// object is something loaded, and what it was loaded for.
type object struct {
	*File
	by *object
}

// Load finds what program needs. libraryPath is the LD_LIBRARY_PATH it would have.
func Load(program *File, libraryPath string) *Process {
	p := &Process{main: &object{File: program}, known: map[string]bool{}, env: paths([]string{libraryPath})}
	if !program.Musl() {
		if data, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
			p.cached, _ = parseCache(data, program.Arch())
		}
	}
	p.needs(p.main)
	return p
}

// Add finds what a plugin needs that the program loads as it runs.
func (p *Process) Add(plugin *File) {
	p.needs(&object{File: plugin, by: p.main})
}

// AddName finds a library that the program asks for as it runs. It says whether there is one.
func (p *Process) AddName(name string) bool {
	before := len(p.Libraries)
	p.need(p.main, name)
	if len(p.Libraries) > before && p.Libraries[before].File == nil {
		p.Libraries = p.Libraries[:before]
		return false
	}
	return true
}

// Missing are the names of libraries that were not found.
func (p *Process) Missing() []string {
	var names []string
	for _, l := range p.Libraries {
		if l.File == nil {
			names = append(names, l.Name)
		}
	}
	return names
}

func (p *Process) needs(first *object) {
	for queue := []*object{first}; len(queue) > 0; queue = queue[1:] {
		for _, name := range queue[0].Needed {
			if o := p.need(queue[0], name); o != nil {
				queue = append(queue, o)
			}
		}
	}
}

// need finds a library once, and returns it then.
func (p *Process) need(by *object, name string) *object {
	if p.known[name] || p.isLoader(name) {
		return nil
	}
	p.known[name] = true
	path, own, f := p.find(by, name)
	p.Libraries = append(p.Libraries, Library{name, path, by.Path, own, f})
	if f == nil {
		return nil
	}
	if f.Soname != "" {
		p.known[f.Soname] = true
	}
	return &object{f, by}
}

// isLoader: the loader is there already; musl's is its whole libc.
func (p *Process) isLoader(name string) bool {
	if p.main.Musl() {
		for _, part := range []string{"c", "pthread", "rt", "m", "dl", "util", "xnet"} {
			if strings.HasPrefix(name, "lib"+part+".") {
				return true
			}
		}
	}
	return name == filepath.Base(p.main.Interp)
}

// find looks where the loader looks, in its order.
func (p *Process) find(by *object, name string) (path string, own bool, f *File) {
	if strings.Contains(name, "/") {
		f = p.suits(name)
		return name, false, f
	}
	try := func(dirs []string, of *object) bool {
		for _, dir := range dirs {
			candidate := filepath.Join(expand(dir, of.File), name)
			if found := p.suits(candidate); found != nil {
				path, own, f = candidate, strings.HasPrefix(dir, "$ORIGIN") || strings.HasPrefix(dir, "${ORIGIN}"), found
				return true
			}
		}
		return false
	}
	rpaths := func() bool {
		if !p.main.Musl() && len(by.RunPath) > 0 {
			return false
		}
		for o := by; o != nil; o = o.by {
			if try(o.RPath, o) || p.main.Musl() && try(o.RunPath, o) {
				return true
			}
		}
		return false
	}
	if p.main.Musl() {
		_ = try(p.env, p.main) || rpaths() || try(muslDirs(p.main.Interp), p.main)
		return path, own, f
	}
	if rpaths() || try(p.env, p.main) || try(by.RunPath, by) {
		return path, own, f
	}
	if cached := p.cached[name]; cached != "" {
		if f = p.suits(cached); f != nil {
			return cached, false, f
		}
	}
	try(glibcDirs(p.main.File), p.main)
	return path, own, f
}

// suits opens a library if it is one for the program's machine.
func (p *Process) suits(path string) *File {
	f, err := Open(path)
	if err != nil || f.Machine != p.main.Machine || f.Class != p.main.Class || f.Type.String() != "ET_DYN" {
		return nil
	}
	return f
}

// multiarch is the machine's name in Debian's paths.
func multiarch(f *File) string {
	return map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[f.Arch()]
}

func glibcDirs(f *File) []string {
	return []string{"/lib/" + multiarch(f), "/usr/lib/" + multiarch(f), "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
}

// muslDirs are in a file beside the loader (/lib/ld-musl-x86_64.so.1: /etc/ld-musl-x86_64.path).
func muslDirs(interp string) []string {
	name := strings.TrimSuffix(filepath.Base(interp), ".so.1") + ".path"
	data, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(interp)), "etc", name))
	if errors.Is(err, os.ErrNotExist) {
		return []string{"/lib", "/usr/local/lib", "/usr/lib"}
	}
	return slices.DeleteFunc(strings.FieldsFunc(string(data), func(r rune) bool { return r == ':' || r == '\n' }),
		func(dir string) bool { return !filepath.IsAbs(dir) })
}

// expand replaces what a path of f may have in place of directories.
func expand(dir string, f *File) string {
	real, err := filepath.EvalSymlinks(f.Path)
	if err != nil {
		real = f.Path
	}
	for name, value := range map[string]string{"ORIGIN": filepath.Dir(real), "LIB": "lib/" + multiarch(f), "PLATFORM": ""} {
		dir = strings.ReplaceAll(strings.ReplaceAll(dir, "${"+name+"}", value), "$"+name, value)
	}
	return dir
}

// OfGlibc says whether a library is a part of glibc.
func OfGlibc(name string) bool {
	for _, part := range []string{"c", "m", "dl", "pthread", "rt", "util", "resolv"} {
		if strings.HasPrefix(name, "lib"+part+".so.") {
			return true
		}
	}
	return strings.HasPrefix(name, "ld-linux")
}
