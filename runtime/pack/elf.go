// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"strings"
)

// Where the loader and the libraries lie in a package. Both names fit, one after the
// other, into the place that the name of the usual loader has in a program, so that
// nothing else of it need be moved. /var/task/lib would not do: Lambda has it in
// LD_LIBRARY_PATH, also of programs that are not packed.
const (
	taskRoot   = "/var/task/"
	loaderName = "ld"
	libraryDir = "l"
)

const dynEntry = 16 // of ELF64: a tag, a value

// image is an ELF64 little endian file to change in place.
type image struct {
	data                  []byte
	interp, dynamic       *elf.Prog
	strtab                uint64 // address
	rpaths, nulls, spares []int  // offsets of entries of the dynamic section
}

func openImage(data []byte) (i *image, err error) {
	defer func() {
		if p := recover(); p != nil { // debug/elf is not made for hostile files
			i, err = nil, fmt.Errorf("a damaged ELF file: %v", p)
		}
	}()
	e, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if e.Class != elf.ELFCLASS64 || e.Data != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("%v, %v: functions run on 64 bit little endian machines only", e.Class, e.Data)
	}
	i = &image{data: data}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP && p.Type != elf.PT_DYNAMIC {
			continue
		}
		if p.Off > uint64(len(data)) || p.Filesz > uint64(len(data))-p.Off {
			return nil, fmt.Errorf("a damaged ELF file: its %v lies beyond its end", p.Type)
		}
		if p.Type == elf.PT_INTERP {
			i.interp = p
		} else {
			i.dynamic = p
		}
	}
	i.scan()
	return i, nil
}

// scan notes the entries of the dynamic section that matter here.
func (i *image) scan() {
	if i.dynamic == nil {
		return
	}
	for n := uint64(0); n+dynEntry <= i.dynamic.Filesz; n += dynEntry {
		at := int(i.dynamic.Off + n)
		tag, value := i.entry(at)
		switch {
		case tag == elf.DT_NULL:
			i.nulls = append(i.nulls, at)
		case len(i.nulls) > 0: // after the end
			i.nulls = i.nulls[:1]
			return
		case tag == elf.DT_STRTAB:
			i.strtab = value
		case tag == elf.DT_RPATH || tag == elf.DT_RUNPATH:
			i.rpaths = append(i.rpaths, at)
		case tag == elf.DT_DEBUG || tag == elf.DT_RELACOUNT: // programs run without
			i.spares = append(i.spares, at)
		}
	}
}

func (i *image) entry(at int) (elf.DynTag, uint64) {
	return elf.DynTag(binary.LittleEndian.Uint64(i.data[at:])), binary.LittleEndian.Uint64(i.data[at+8:])
}

func (i *image) set(at int, value uint64) {
	binary.LittleEndian.PutUint64(i.data[at:], uint64(elf.DT_RPATH))
	binary.LittleEndian.PutUint64(i.data[at+8:], value)
}

// movePrograms makes a program start with the package's loader and take its
// libraries from there, whatever LD_LIBRARY_PATH says: RPATH comes before it, and
// counts for all that the program loads. Its children are started as ever.
func moveProgram(data []byte) error {
	i, err := openImage(data)
	if err != nil {
		return err
	}
	if i.interp == nil || i.dynamic == nil {
		return fmt.Errorf("it is static: it has no loader to change")
	}
	names := taskRoot + loaderName + "\x00" + taskRoot + libraryDir + "\x00"
	if uint64(len(names)) > i.interp.Filesz {
		return fmt.Errorf("the name of its loader has %d bytes, too few to hold another one", i.interp.Filesz)
	}
	place := i.data[i.interp.Off : i.interp.Off+i.interp.Filesz]
	clear(place)
	copy(place, names)
	// An offset to the table of strings, before which the loader's name lies: it wraps around.
	offset := i.interp.Vaddr + uint64(len(taskRoot+loaderName)+1) - i.strtab
	switch {
	case len(i.rpaths) > 0:
		for _, at := range i.rpaths {
			i.set(at, offset)
		}
	case len(i.nulls) > 1: // linkers leave some room; the last one stays the end
		i.set(i.nulls[0], offset)
	case len(i.spares) > 0:
		i.set(i.spares[0], offset)
	default:
		return fmt.Errorf("its dynamic section has no room for the path of the libraries")
	}
	return nil
}

// moveLibrary makes a library look where the program looks: one with a RUNPATH would
// not. A RUNPATH relative to the library itself stays, before that.
func moveLibrary(data []byte, runPath []string) error {
	i, err := openImage(data)
	if err != nil {
		return err
	}
	for _, at := range i.rpaths {
		_, value := i.entry(at)
		if !strings.Contains(strings.Join(runPath, ":"), "ORIGIN") {
			value = 0 // the empty string, of every table
		}
		i.set(at, value)
	}
	return nil
}
