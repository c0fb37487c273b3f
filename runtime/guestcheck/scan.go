// SPDX-License-Identifier: Apache-2.0

package guestcheck

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/loader"
)

// maxScan bounds what is read of a file to look into its contents.
const maxScan = 256 << 20

// How a program shows that it uses io_uring.
const (
	ringLibrary = "uses liburing"
	ringCall    = "has the number of io_uring's system call in its code, so it may use it"
)

func usesRing(f *loader.File) (string, error) {
	for _, name := range f.Needed {
		if strings.HasPrefix(name, "liburing") {
			return ringLibrary, nil
		}
	}
	for _, symbol := range f.Imports {
		if strings.HasPrefix(symbol, "io_uring_") {
			return ringLibrary, nil
		}
	}
	data, err := contents(f.Path)
	if err != nil {
		return "", err
	}
	for _, text := range code(data) {
		if setsUpRing(text, f.Machine, len(f.Uses("syscall")) > 0) {
			return ringCall, nil
		}
	}
	return "", nil
}

func contents(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxScan))
}

// code is what of an ELF file is executed.
func code(data []byte) (parts [][]byte) {
	defer func() { _ = recover() }() // debug/elf is not made for hostile files
	e, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && p.Off < uint64(len(data)) {
			parts = append(parts, data[p.Off:min(p.Off+min(p.Filesz, maxScan), uint64(len(data)))])
		}
	}
	return parts
}

// io_uring_setup is 425 everywhere.
var (
	movEAX = []byte{0xb8, 0xa9, 0x01, 0, 0}
	movEDI = []byte{0xbf, 0xa9, 0x01, 0, 0} // as an argument of syscall()
)

// callNear is how far after its number a system call is.
const callNear = 48

// setsUpRing looks for code that makes the system call io_uring_setup.
func setsUpRing(text []byte, machine elf.Machine, viaLibc bool) bool {
	switch machine {
	case elf.EM_X86_64:
		for at := 0; ; at++ {
			next := bytes.Index(text[at:], movEAX)
			if next < 0 {
				break
			}
			at += next
			if bytes.Contains(text[at:min(at+callNear, len(text))], []byte{0x0f, 0x05}) {
				return true
			}
		}
		return viaLibc && bytes.Contains(text, movEDI)
	case elf.EM_AARCH64:
		for at := 0; at+4 <= len(text); at += 4 {
			word := binary.LittleEndian.Uint32(text[at:])
			if word&0x7fffffff == 0x52803528 && bytes.Contains(text[at:min(at+callNear, len(text))], []byte{0x01, 0, 0, 0xd4}) {
				return true // mov x8, #425 ... svc #0
			}
			if viaLibc && word&0x7fffffff == 0x52803520 { // mov x0, #425
				return true
			}
		}
	}
	return false
}

var placeToWrite = regexp.MustCompile(`\x00(/(?:var/(?:log|lib|run|cache|spool)|run)/[A-Za-z0-9._/-]{2,80})\x00`)

// maxPlaces bounds what is told of them.
const maxPlaces = 4

// writes are paths in the program that are not files of libc's and that programs
// usually write to.
func writes(path string) (found []string) {
	data, err := contents(path)
	if err != nil {
		return nil
	}
	for len(found) < maxPlaces {
		m := placeToWrite.FindSubmatchIndex(data)
		if m == nil {
			break
		}
		if place := string(data[m[2]:m[3]]); !slices.Contains(found, place) {
			found = append(found, place)
		}
		data = data[m[3]:]
	}
	return found
}
