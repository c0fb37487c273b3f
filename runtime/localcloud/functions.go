// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// Defaults and bounds of a function, as on Lambda.
const (
	defaultMemoryMB    = 1769
	defaultEphemeralMB = 512
	defaultTimeoutS    = 900
	maxEnvironment     = 4 << 10 // bytes, names and values in total
	keepInvocations    = 100     // ended ones, per function
)

// function is a function as the daemon keeps it. Its directory holds
// function.json and source/; it survives the daemon.
type function struct {
	record      Function
	making      bool // reserved, not complete yet
	deleting    bool // its invocations are being ended, and there are to be no others
	invocations []*invocation
}

func (f *function) snapshot() Function {
	r := f.record
	for _, i := range f.invocations {
		if i.running() {
			r.Running++
		}
	}
	return r
}

// loadFunctions takes up the functions of an earlier daemon, and removes those
// that were never complete.
func (d *daemon) loadFunctions() error {
	entries, err := os.ReadDir(d.files.join("functions"))
	if err != nil {
		return stateError(d.dir.stateDir(), err)
	}
	for _, e := range entries {
		var record Function
		err := readJSON(d.files.join("functions", e.Name(), "function.json"), &record)
		if errors.Is(err, os.ErrNotExist) {
			err = removeAll(d.files.join("functions", e.Name()))
			if err == nil {
				continue
			}
		}
		if err != nil {
			return stateError(d.dir.stateDir(), err)
		}
		d.functions[record.Name] = &function{record: record}
	}
	return nil
}

func (spec *FunctionSpec) complete() error {
	if spec.MemoryMB == 0 {
		spec.MemoryMB = defaultMemoryMB
	}
	if spec.EphemeralMB == 0 {
		spec.EphemeralMB = defaultEphemeralMB
	}
	if spec.TimeoutS == 0 {
		spec.TimeoutS = defaultTimeoutS
	}
	if err := config.CheckName(spec.Name); err != nil {
		return fmt.Errorf("function: %w", err)
	}
	if spec.MemoryMB < 128 || spec.MemoryMB > 10240 {
		return fmt.Errorf("function %q: memory of %d MB: want 128 to 10240", spec.Name, spec.MemoryMB)
	}
	if spec.EphemeralMB < 512 || spec.EphemeralMB > 10240 {
		return fmt.Errorf("function %q: ephemeral storage of %d MB: want 512 to 10240", spec.Name, spec.EphemeralMB)
	}
	if spec.TimeoutS < 1 || spec.TimeoutS > 900 {
		return fmt.Errorf("function %q: timeout of %d s: want 1 to 900", spec.Name, spec.TimeoutS)
	}
	if info, err := os.Stat(filepath.Join(spec.Root, "bin")); spec.Root != "" && (err != nil || !info.IsDir() || !filepath.IsAbs(spec.Root)) {
		return fmt.Errorf("function %q: root %q: want the absolute path of a directory with a system's /bin, /lib ... in it", spec.Name, spec.Root)
	}
	if spec.Entrypoint != "" && (spec.Root == "" || spec.SourceDir != "") {
		return fmt.Errorf("function %q: entrypoint %q: that is for an image, which has a root and no source directory", spec.Name, spec.Entrypoint)
	}
	if err := CheckNAT(spec.NAT); err != nil {
		return fmt.Errorf("function %q: %w", spec.Name, err)
	}
	return spec.checkEnvironment()
}

func (spec *FunctionSpec) checkEnvironment() error {
	size := 0
	for name, value := range spec.Environment {
		if size += len(name) + len(value); name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return fmt.Errorf("function %q: environment variable %q is not one", spec.Name, name)
		}
	}
	if size > maxEnvironment {
		return fmt.Errorf("function %q: its environment has %d bytes, the limit is %d in total: "+
			"put variables of the guest into the launch event, which has room for them", spec.Name, size, maxEnvironment)
	}
	return nil
}

func (d *daemon) createFunction(spec FunctionSpec, incoming, hash string) (Function, error) {
	if err := spec.complete(); err != nil {
		return Function{}, badRequest{err}
	}
	if spec.Root != "" && d.plain() {
		return Function{}, badRequest{fmt.Errorf("function %q: root %q: a network without namespaces has only this machine's programs", spec.Name, spec.Root)}
	}
	if spec.Reuse && d.plain() {
		return Function{}, badRequest{fmt.Errorf("function %q: a network without namespaces uses no sandbox again", spec.Name)}
	}
	if spec.NAT != "" && d.plain() {
		return Function{}, badRequest{fmt.Errorf("function %q: NAT %q: functions of a network without namespaces are not behind NAT", spec.Name, spec.NAT)}
	}
	d.mu.Lock()
	if _, ok := d.functions[spec.Name]; ok {
		d.mu.Unlock()
		return Function{}, fmt.Errorf("function %q %w on network %q: choose another name or delete it first", spec.Name, ErrExists, d.info.Name)
	}
	f := &function{making: true, record: spec.record(Function{
		Name: spec.Name, Created: time.Now().UTC(),
		ARN: "arn:aws:lambda:local:000000000000:function:" + d.info.Name + "-" + spec.Name,
	}, hash)}
	d.functions[spec.Name] = f
	d.mu.Unlock()
	err := d.storeFunction(f.record, incoming)
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.making = false; err != nil {
		delete(d.functions, spec.Name)
		_ = removeAll(d.files.join("functions", spec.Name))
		return Function{}, fmt.Errorf("function %q: %w", spec.Name, stateError(d.dir.stateDir(), err))
	}
	return f.snapshot(), nil
}

// record is what the function is, according to spec.
func (spec *FunctionSpec) record(r Function, hash string) Function {
	r.MemoryMB, r.EphemeralMB, r.TimeoutS = spec.MemoryMB, spec.EphemeralMB, spec.TimeoutS
	r.Environment, r.Relaxed, r.Tags = spec.Environment, spec.Relaxed, spec.Tags
	r.Root, r.Entrypoint, r.NAT, r.Reuse = spec.Root, spec.Entrypoint, spec.NAT, spec.Reuse
	if spec.Config != nil {
		n := shown(*spec.Config)
		r.Config = &n
	}
	if !spec.KeepSource {
		r.CodeSHA256 = hash
	}
	if spec.CodeSHA256 != "" {
		r.CodeSHA256 = spec.CodeSHA256
	}
	return r
}

// source is the name of the directory of the function's source.
func (r *Function) source() string {
	if r.SourceRevision == 0 {
		return "source"
	}
	return fmt.Sprintf("source-%d", r.SourceRevision)
}

func (d *daemon) storeFunction(record Function, incoming string) error {
	own := d.files.join("functions", record.Name)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	if err := d.letThrough(own); err != nil {
		return err
	}
	if err := d.storeSource(record, incoming); err != nil {
		return err
	}
	return writeJSON(own+"/function.json", record)
}

func (d *daemon) storeSource(record Function, incoming string) error {
	source := d.files.join("functions", record.Name, record.source())
	if incoming == "" {
		if err := os.Mkdir(source, 0o755); err != nil {
			return err
		}
	} else if err := moveTree(incoming, source); err != nil {
		return err
	}
	if !d.rooted {
		return nil
	}
	uid, gid := d.mapIDs()
	return giveTo(source, uid, gid)
}

// setDeclared notes what was declared of the replicas, as a tag would: nothing is
// launched by it.
func (d *daemon) setDeclared(name string, declared json.RawMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.lookUpFunction(name)
	if err != nil {
		return err
	}
	record := f.record
	if record.Declared = declared; string(declared) == "null" {
		record.Declared = nil
	}
	if err := writeJSON(d.files.join("functions", name, "function.json"), record); err != nil {
		return stateError(d.dir.stateDir(), err)
	}
	f.record = record
	return nil
}

// lookUpFunction finds a complete function. The caller holds d.mu.
func (d *daemon) lookUpFunction(name string) (*function, error) {
	f, ok := d.functions[name]
	if !ok || f.making {
		return nil, fmt.Errorf("function %q: %w on network %q", name, ErrNotFound, d.info.Name)
	}
	return f, nil
}

func (d *daemon) getFunction(name string) (Function, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.lookUpFunction(name)
	if err != nil {
		return Function{}, err
	}
	return f.snapshot(), nil
}

func (d *daemon) listFunctions() []Function {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []Function{}
	for _, f := range d.functions {
		if !f.making {
			list = append(list, f.snapshot())
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// deleteFunction ends a function's invocations and forgets it, with their logs or
// without.
func (d *daemon) deleteFunction(name string, logs bool) error {
	d.mu.Lock()
	if f := d.functions[name]; f != nil && !f.making {
		f.deleting = true
	}
	d.mu.Unlock()
	if err := d.stopInvocations(name, ""); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.lookUpFunction(name)
	if err != nil {
		return nil
	}
	for _, i := range f.invocations {
		if _, ok := d.hosts[i.record.Slot]; ok || !logs {
			continue // made since: the log is its own
		}
		_ = d.removeLogs(i.record.Slot)
	}
	if err := removeAll(d.files.join("functions", name)); err != nil {
		f.deleting = false
		return stateError(d.dir.stateDir(), err)
	}
	delete(d.functions, name)
	return nil
}
