// SPDX-License-Identifier: Apache-2.0

// Package guestcheck says whether a program can be a guest, and run on a function, and
// what to do about what is in the way.
package guestcheck

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/boxer-overlay/boxer/runtime/loader"
)

// Weight is how much a finding means for a kind of node.
type Weight string

// Weights, the least first. The empty one: nothing.
const (
	Note   Weight = "note"   // worth knowing, or perhaps in the way
	Change Weight = "change" // something has to be done
	Cannot Weight = "cannot" // nothing helps
)

var weights = []Weight{"", Note, Change, Cannot}

// Finding is one thing that matters.
type Finding struct {
	Name     string `json:"name"`
	VM       Weight `json:"vm,omitempty"`
	Function Weight `json:"function,omitempty"`
	Reason   string `json:"reason"`
	Remedy   string `json:"remedy"`
}

// Report is what is known of a program.
type Report struct {
	Program      string    `json:"program"`
	Interpreter  string    `json:"interpreter,omitempty"` // of a script
	Architecture string    `json:"architecture"`
	Libc         string    `json:"libc"`               // glibc, musl or none
	Glibc        string    `json:"glibc,omitempty"`    // the oldest that will do
	Libraries    []string  `json:"libraries"`          // paths
	Size         int64     `json:"size"`               // of program, loader and libraries
	VM           Weight    `json:"vm"`                 // the heaviest of the findings
	Function     Weight    `json:"function"`           // likewise
	Command      []string  `json:"command"`            // with what is known to be needed
	Measured     *Measured `json:"measured,omitempty"` // how it ran
	Findings     []Finding `json:"findings"`
}

// Options says what to check.
type Options struct {
	Program string // where it is
	// Interpreter of a script, where it is.
	Interpreter string
	Args        []string
	Measured    *Measured
}

// What Lambda has and allows.
const (
	lambdaGlibc = "2.34"
	limit       = 250 << 20
	layerShare  = 20 << 20
)

// Check looks at a program and its arguments. It runs nothing.
func Check(o Options) (*Report, error) {
	binary := o.Program
	if o.Interpreter != "" {
		binary = o.Interpreter
	}
	f, err := loader.Open(binary)
	if err != nil {
		return nil, err
	}
	r := &Report{
		Program: o.Program, Interpreter: o.Interpreter, Architecture: f.Arch(), Libc: "none", Measured: o.Measured,
		Command: append([]string{o.Program}, o.Args...), Libraries: []string{}, Findings: []Finding{},
	}
	objects := r.libraries(f)
	for _, err := range []error{r.privileges(o.Program, binary), r.own(f, objects)} {
		if err != nil {
			return nil, err
		}
	}
	r.arguments(filepath.Base(binary), o.Args)
	if o.Measured != nil {
		r.measured(*o.Measured)
	}
	r.judge()
	return r, nil
}

func (r *Report) find(name string, vm, function Weight, reason, remedy string) {
	r.Findings = append(r.Findings, Finding{name, vm, function, reason, remedy})
}

// judge puts the heaviest findings first and says what they come to.
func (r *Report) judge() {
	weight := func(w Weight) int { return slices.Index(weights, w) }
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return max(weight(b.VM), weight(b.Function)) - max(weight(a.VM), weight(a.Function))
	})
	for _, f := range r.Findings {
		if weight(f.VM) > weight(r.VM) {
			r.VM = f.VM
		}
		if weight(f.Function) > weight(r.Function) {
			r.Function = f.Function
		}
	}
}

// libraries notes what is loaded, and returns all that is not libc's own.
func (r *Report) libraries(f *loader.File) []*loader.File {
	objects := []*loader.File{f}
	r.add(f.Path)
	if f.Static() {
		return objects
	}
	r.Libc = "glibc"
	if f.Musl() {
		r.Libc = "musl"
	}
	r.add(f.Interp)
	process := loader.Load(f, os.Getenv("LD_LIBRARY_PATH"))
	r.Glibc = f.Glibc
	for _, l := range process.Libraries {
		if l.File == nil {
			r.find("library", Cannot, Cannot, fmt.Sprintf("%s needs %s, which is not on this machine.", l.By, l.Name),
				"Install it, or set LD_LIBRARY_PATH as for the program.")
			continue
		}
		r.Libraries = append(r.Libraries, l.Path)
		r.add(l.Path)
		if loader.OfGlibc(l.Name) {
			continue
		}
		objects = append(objects, l.File)
		if loader.Newer(l.Glibc, r.Glibc) {
			r.Glibc = l.Glibc
		}
	}
	return objects
}

func (r *Report) add(path string) {
	if info, err := os.Stat(path); err == nil {
		r.Size += info.Size()
	}
}

// Interpreter is the program that runs a script, empty if path is none.
func Interpreter(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var head [loader.MaxFirstLine]byte
	n, err := f.Read(head[:])
	if err != nil && n == 0 {
		return "", errors.Join(loader.ErrNotELF, err)
	}
	program, _ := loader.Interpreter(head[:n])
	return program, nil
}
