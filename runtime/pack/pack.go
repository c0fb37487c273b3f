// SPDX-License-Identifier: Apache-2.0

// Package pack makes a function package of an installed program: the program, what
// it needs to be loaded, down to the loader and libc, and the files it reads, so that
// it runs from /var/task on systems that have none of it, an older libc or another.
package pack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/loader"
)

// Limit is what Lambda allows a function to have unpacked, layers included, and
// LayerShare what Boxer's layer may take of it.
const (
	Limit      = 250 << 20
	LayerShare = 20 << 20
)

// ManifestName is the file of a package that says what is in it.
const ManifestName = "boxer-pack.json"

// What is wrong with the name of a program.
var (
	ErrNotFound   = errors.New("not found")
	ErrNotProgram = errors.New("not a program")
)

// Options says what to pack.
type Options struct {
	Argv    []string // the program and its arguments
	Include []string // PATH or PATH:PLACE, more files and directories
	NoData  bool     // without the files of the program's own package
	Path    string   // where programs are looked for
}

// File is one of a package.
type File struct {
	Name    string // below /var/task
	From    string // on this machine
	Program bool   // it may be executed
	Size    int64

	library *loader.File // to be made one of the package's
	change  func([]byte) ([]byte, error)
}

// Package is what goes into the zip, and how it is used.
type Package struct {
	Command      []string          // the command of a node
	Environment  map[string]string // that it needs
	Architecture string
	Musl         bool
	Libraries    []Library
	Data         string   // the system's package that files were taken of
	Notes        []string // what the user should know
	Files        []File   // in order

	path   string // where programs are looked for
	main   *loader.File
	memory *loader.Process
	byName map[string]int
	walked map[string]bool // real directories that a walk is in
}

// Library is a packed one.
type Library struct {
	Name string `json:"name"`
	From string `json:"from"`
}

// Collect finds everything that belongs to the package.
func Collect(o Options) (*Package, error) {
	if len(o.Argv) == 0 {
		return nil, errors.New("name the program to pack")
	}
	p := &Package{path: o.Path, Environment: map[string]string{}, byName: map[string]int{}, walked: map[string]bool{}}
	found, err := Find(o.Argv[0], o.Path)
	if err != nil {
		return nil, err
	}
	command, err := p.program(found, o)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", found, err)
	}
	if err := p.include(o.Include); err != nil {
		return nil, err
	}
	for _, arg := range o.Argv[1:] {
		moved, err := p.argument(arg)
		if err != nil {
			return nil, err
		}
		command = append(command, moved)
	}
	p.Command = command
	if err := p.resolve(); err != nil {
		return nil, fmt.Errorf("pack %s: %w", found, err)
	}
	slices.SortFunc(p.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

// Find is where a program is, as a shell finds it, and in the places of daemons too.
func Find(name, searched string) (string, error) {
	if name == "" {
		return "", errors.New("the program's name is empty")
	}
	if strings.Contains(name, "/") {
		if info, err := os.Stat(name); err != nil {
			return "", fmt.Errorf("%s: %w: give the path of a program", name, ErrNotFound)
		} else if info.IsDir() || info.Mode().Perm()&0o111 == 0 {
			return "", fmt.Errorf("%s: %w: chmod +x makes a file one", name, ErrNotProgram)
		}
		return name, nil
	}
	for _, dir := range append(filepath.SplitList(searched), "/usr/local/sbin", "/usr/sbin", "/sbin") {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("%s: %w: install it, or give its path", name, ErrNotFound)
}

// program packs the program itself, or a script with its interpreter, and returns the
// first word of the command.
func (p *Package) program(found string, o Options) ([]string, error) {
	var head [loader.MaxFirstLine]byte
	f, err := os.Open(found)
	if err != nil {
		return nil, err
	}
	n, _ := f.Read(head[:])
	f.Close()
	if run, _ := loader.Interpreter(head[:n]); run != "" {
		other, err := Find(run, o.Path)
		if err != nil {
			return nil, fmt.Errorf("its first line: %w", err)
		}
		if isScript(other) {
			return nil, fmt.Errorf("its interpreter %s is a script itself: pack what that runs, with --include %s", other, found)
		}
		if _, err := p.binary(other, o.NoData); err != nil {
			return nil, err
		}
		place := placeOf(found)
		p.note("%s is a script, run by %s: what it runs or opens besides is packed with --include only", found, other)
		return []string{taskRoot + place}, p.add(place, found)
	}
	place, err := p.binary(found, o.NoData)
	return []string{taskRoot + place}, err
}

func isScript(name string) bool {
	data, err := os.ReadFile(name)
	run, _ := loader.Interpreter(data)
	return err == nil && run != ""
}

// binary packs an ELF program with what is known to belong to it.
func (p *Package) binary(found string, noData bool) (string, error) {
	f, err := loader.Open(found)
	if err != nil {
		return "", err
	}
	if f.Arch() != "amd64" && f.Arch() != "arm64" {
		return "", fmt.Errorf("it is for %s: functions run amd64 and arm64 programs only", f.Arch())
	}
	p.main, p.Architecture, p.Musl = f, f.Arch(), f.Musl()
	real, err := filepath.EvalSymlinks(found)
	if err != nil {
		return "", err
	}
	// Where it really lies counts for what it finds from there, and the name it was called by
	// for programs with many names.
	place := placeOf(found)
	if filepath.IsAbs(found) {
		place = placeOf(filepath.Join(filepath.Dir(real), filepath.Base(found)))
	}
	if err := p.add(place, found); err != nil {
		return "", err
	}
	if f.Static() {
		p.note("%s is static: it needs no libraries, and the process monitor cannot be loaded into it, so it is no guest (boxer check %s)", found, found)
		return place, nil
	}
	if _, err := os.Stat(f.Interp); err != nil {
		return "", fmt.Errorf("its loader %s is not on this machine: pack it on one that it runs on", f.Interp)
	}
	if err := p.put(File{Name: loaderName, From: f.Interp, Program: true, change: unchanged}); err != nil {
		return "", err
	}
	if noData {
		return place, nil
	}
	if library := pythonLibrary(real); library != "" {
		if _, err := os.Stat(filepath.Join(filepath.Dir(filepath.Dir(found)), "pyvenv.cfg")); err == nil {
			p.note("%s is of a virtual environment: --include its site-packages:site-packages, and set PYTHONPATH to /var/task/site-packages", found)
		}
		return place, p.walk(library, placeOf(library), pythonLeaves)
	}
	name, files := dpkgOf.data(real)
	p.Data = name
	itself, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	for _, file := range files { // but for its other names
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && !os.SameFile(info, itself) {
			if err := p.add(placeOf(file), file); err != nil && !errors.Is(err, fs.ErrPermission) {
				return "", err
			}
		}
	}
	return place, nil
}

func unchanged(data []byte) ([]byte, error) { return data, nil }

func (p *Package) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(p.Notes, text) {
		p.Notes = append(p.Notes, text)
	}
}

// placeOf is the place in a package of a file of this machine: an absolute path keeps its
// directories, so that what programs find from their own place is found.
func placeOf(name string) string {
	name = filepath.Clean(name)
	if !filepath.IsAbs(name) {
		for strings.HasPrefix(name, "../") {
			name = name[len("../"):]
		}
		return name
	}
	parts := strings.SplitN(name, "/", 3)
	if real, err := filepath.EvalSymlinks("/" + parts[1]); err == nil && len(parts) == 3 {
		name = filepath.Join(real, parts[2]) // /bin is /usr/bin
	}
	return strings.TrimPrefix(name, "/")
}

// place of an include: PATH or PATH:PLACE.
func (p *Package) include(list []string) error {
	for _, entry := range list {
		from, place, given := strings.Cut(entry, ":")
		if !given {
			place = placeOf(from)
		}
		place = path.Clean(strings.TrimPrefix(strings.TrimPrefix(place, taskRoot), "/"))
		info, err := os.Stat(from)
		switch {
		case from == "" || place == "" || !fs.ValidPath(place):
			return fmt.Errorf("include %q: want PATH or PATH:PLACE, the place being below %s", entry, taskRoot)
		case err != nil:
			return fmt.Errorf("include %q: %w: name a file or directory of this machine", entry, err)
		case info.IsDir():
			err = p.walk(from, place, nil)
		default:
			err = p.add(place, from)
		}
		if err != nil {
			return fmt.Errorf("include %q: %w", entry, err)
		}
	}
	return nil
}

// argument packs the file that an argument names, and returns the argument for the
// package. It may come after an option: --config=FILE, -cFILE.
func (p *Package) argument(arg string) (string, error) {
	option, name := "", arg
	if strings.HasPrefix(arg, "-") {
		if before, after, ok := strings.Cut(arg, "="); ok {
			option, name = before+"=", after
		} else if len(arg) > 3 && arg[2] == '/' && arg[1] != '-' {
			option, name = arg[:2], arg[2:]
		}
	}
	info, err := os.Stat(name)
	if err != nil || theirs(name) {
		return arg, nil
	}
	place := placeOf(name)
	switch {
	case info.Mode().IsRegular():
		if err := p.add(place, name); err != nil {
			return "", fmt.Errorf("argument %q: %w", arg, err)
		}
	case !info.IsDir() || name == "/" || !strings.Contains(name, "/") && !p.holds(place):
		return arg, nil
	case place == ".":
		return option + strings.TrimSuffix(taskRoot, "/"), nil
	case !p.holds(place):
		p.note("%s is a directory, of which nothing was packed: --include %s packs it", name, name)
		return arg, nil
	}
	return option + taskRoot + place, nil
}

// theirs: what is there on the target too, and not the same.
func theirs(name string) bool {
	for _, top := range []string{"/dev", "/proc", "/run", "/sys", "/tmp", "/var/run", "/var/task", "/var/tmp"} {
		if name == top || strings.HasPrefix(name, top+"/") {
			return true
		}
	}
	return name == ""
}

// holds says whether the package has a file or directory at place.
func (p *Package) holds(place string) bool {
	if _, ok := p.byName[place]; ok {
		return true
	}
	for name := range p.byName {
		if strings.HasPrefix(name, place+"/") {
			return true
		}
	}
	return false
}
