// SPDX-License-Identifier: Apache-2.0

// Package loader finds what a program needs to be loaded, as the dynamic loaders of
// glibc and musl would find it, without running anything.
package loader

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotELF says that a file is no ELF file.
var ErrNotELF = errors.New("not an ELF file")

// File is what its headers say of an ELF file.
type File struct {
	Path    string
	Machine elf.Machine
	Class   elf.Class
	Type    elf.Type
	// Interp is the loader that the program names, empty if it needs none.
	Interp                 string
	Soname                 string
	Needed, RPath, RunPath []string
	Imports                []string // symbols that others must define
	Glibc                  string   // newest version of glibc that a symbol asks for: 2.34
	Go                     bool
	Dynamic                bool // it has a dynamic section
}

// Open reads the headers of the file at path. What they say is not trusted: a
// damaged file is an error, never a panic.
func Open(path string) (*File, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, ErrNotELF) // a device or a pipe could wait for ever
	}
	var magic [4]byte
	if _, err := in.ReadAt(magic[:], 0); err != nil || string(magic[:]) != elf.ELFMAG {
		return nil, fmt.Errorf("%s: %w", path, ErrNotELF)
	}
	f, err := read(in)
	if err != nil {
		return nil, fmt.Errorf("%s: a damaged ELF file: %w", path, err)
	}
	f.Path = path
	return f, nil
}

type readerAt interface {
	ReadAt([]byte, int64) (int, error)
}

func read(in readerAt) (f *File, err error) {
	defer func() {
		if p := recover(); p != nil { // debug/elf is not made for hostile files
			f, err = nil, fmt.Errorf("unreadable: %v", p)
		}
	}()
	e, err := elf.NewFile(in)
	if err != nil {
		return nil, err
	}
	f = &File{Machine: e.Machine, Class: e.Class, Type: e.Type}
	if f.Interp, err = interp(e); err != nil {
		return nil, err
	}
	for _, s := range e.Sections {
		switch s.Name {
		case ".note.go.buildid", ".gopclntab", ".go.buildinfo":
			f.Go = true
		}
	}
	f.Dynamic = slices.ContainsFunc(e.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_DYNAMIC })
	if !f.Dynamic {
		return f, nil
	}
	if e.SectionByType(elf.SHT_DYNAMIC) == nil {
		return nil, errors.New("it has no section headers, which say what it needs: use a build that has them")
	}
	one := func(tag elf.DynTag) []string {
		list, stringErr := e.DynString(tag)
		if stringErr != nil && err == nil {
			err = stringErr
		}
		return list
	}
	f.Needed, f.Soname = one(elf.DT_NEEDED), strings.Join(one(elf.DT_SONAME), "")
	f.RPath, f.RunPath = paths(one(elf.DT_RPATH)), paths(one(elf.DT_RUNPATH))
	if err != nil {
		return nil, err
	}
	symbols, err := e.ImportedSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	for _, s := range symbols {
		f.Imports = append(f.Imports, s.Name)
		if v, ok := strings.CutPrefix(s.Version, "GLIBC_"); ok && Newer(v, f.Glibc) {
			f.Glibc = v
		}
	}
	slices.Sort(f.Imports)
	return f, nil
}

// maxInterp is more than a path can have.
const maxInterp = 4096

func interp(e *elf.File) (string, error) {
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		if p.Filesz == 0 || p.Filesz > maxInterp {
			return "", fmt.Errorf("a loader's name of %d bytes", p.Filesz)
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return "", err
		}
		text, _, _ := strings.Cut(string(name), "\x00")
		return text, nil
	}
	return "", nil
}

func paths(lists []string) []string {
	var all []string
	for _, list := range lists {
		for _, dir := range strings.Split(list, ":") {
			if dir != "" {
				all = append(all, dir)
			}
		}
	}
	return all
}

// Newer says whether version a (2.34) is newer than b. What is no version, such
// as PRIVATE, is none; an empty b is older than all.
func Newer(a, b string) bool {
	as, ok := numbers(a)
	if !ok {
		return false
	}
	bs, _ := numbers(b)
	return slices.Compare(as, bs) > 0
}

func numbers(version string) ([]int, bool) {
	var list []int
	for _, part := range strings.Split(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, false
		}
		list = append(list, n)
	}
	return list, true
}

// Static says whether the program is started without a loader.
func (f *File) Static() bool { return f.Interp == "" }

// Musl says whether the program was built for musl.
func (f *File) Musl() bool { return strings.HasPrefix(filepath.Base(f.Interp), "ld-musl-") }

// Arch is the machine's name as Go and Terraform attributes have it.
func (f *File) Arch() string {
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_AARCH64:
		return "arm64"
	}
	return strings.ToLower(strings.TrimPrefix(f.Machine.String(), "EM_"))
}

// Uses says which of the symbols the file imports.
func (f *File) Uses(symbols ...string) []string {
	var found []string
	for _, s := range symbols {
		if _, ok := slices.BinarySearch(f.Imports, s); ok {
			found = append(found, s)
		}
	}
	return found
}
