// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// updateHost changes what a host runs. Its guest is started again if that is
// needed, by the same launch: id and addresses stay, and so does what the guest
// has written. If the new one cannot be started the old one is.
func (d *daemon) updateHost(ctx context.Context, slot string, spec HostSpec, incoming string) (Host, error) {
	h, err := d.holdHost(slot)
	if err != nil {
		return Host{}, err
	}
	defer func() {
		d.mu.Lock()
		h.changing = false
		d.mu.Unlock()
	}()
	old := h.node
	n := spec.Config
	n.Slot, n.Kind, n.LaunchToken = slot, config.KindVM, old.LaunchToken
	if n, err = d.completeVM(n); err != nil {
		return Host{}, badRequest{err}
	}
	n.UnderlayAddress = old.UnderlayAddress
	if spec.Restart || !spec.KeepSource || !sameNode(n, old) {
		if err := d.changeHost(ctx, h.box, old, n, spec.KeepSource, incoming); err != nil {
			return Host{}, fmt.Errorf("host %q: %w", slot, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h.node = n
	h.record.Config, h.record.CodeSHA256, h.record.Tags = shown(n), spec.CodeSHA256, spec.Tags
	return h.snapshot(), nil
}

// holdHost finds a running host and keeps others from changing it.
func (d *daemon) holdHost(slot string) (*host, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.hosts[slot]
	switch {
	case !ok:
		return nil, fmt.Errorf("host %q: %w on network %q", slot, ErrNotFound, d.info.Name)
	case d.info.seedNumber(slot) >= 0:
		return nil, badRequest{fmt.Errorf("host %q is a seed of the network: it runs nothing else", slot)}
	case h.box == nil || h.changing:
		return nil, fmt.Errorf("host %q is being created or changed: wait for that to end", slot)
	case !h.box.running():
		return nil, fmt.Errorf("host %q: %w on network %q: it ended: create it again", slot, ErrNotFound, d.info.Name)
	}
	h.changing = true
	return h, nil
}

// sameNode: both run the same in the same way.
func sameNode(a, b config.Node) bool {
	one, err1 := json.Marshal(a)
	other, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(one) == string(other)
}

func (d *daemon) changeHost(ctx context.Context, box *sandbox, old, n config.Node, keep bool, incoming string) error {
	spec, err := d.vmSpec(n)
	if err != nil {
		return err
	}
	previous, err := d.vmSpec(old)
	if err != nil {
		return err
	}
	// What can fail, fails before the guest is touched.
	held := func(p config.Publish) bool {
		return slices.ContainsFunc(old.Publish, func(o config.Publish) bool { return outside(o) == outside(p) })
	}
	listeners := make([]*os.File, len(n.Publish))
	defer func() { closeAll(slices.DeleteFunc(listeners, func(f *os.File) bool { return f == nil })) }()
	for i, p := range n.Publish {
		if held(p) {
			continue
		}
		if listeners[i], err = d.publishOne(ctx, n.Name, p); err != nil {
			return err
		}
	}
	if err := box.halt(); err != nil {
		return err
	}
	// From here on the host runs nothing: being interrupted is no reason to stop.
	ctx = context.WithoutCancel(ctx)
	for i, p := range n.Publish {
		if held(p) && err == nil {
			listeners[i], err = d.publishOne(ctx, n.Name, p)
		}
	}
	if err == nil && !keep {
		err = d.replaceSource(spec, incoming)
	}
	if err != nil {
		return errors.Join(err, d.goBack(ctx, box, previous, old))
	}
	return box.resume(spec, listeners)
}

// goBack starts what the host ran before.
func (d *daemon) goBack(ctx context.Context, box *sandbox, spec initSpec, n config.Node) error {
	listeners, err := d.publish(ctx, n)
	if err == nil {
		defer closeAll(listeners)
		err = box.resume(spec, listeners)
	}
	if err != nil {
		return fmt.Errorf("and the host cannot go on as it was: %w", err)
	}
	return nil
}

// replaceSource puts other contents into the directory that the host sees.
func (d *daemon) replaceSource(spec initSpec, incoming string) error {
	entries, err := os.ReadDir(spec.Source)
	for _, e := range entries {
		err = errors.Join(err, removeAll(filepath.Join(spec.Source, e.Name())))
	}
	if err != nil || incoming == "" {
		return stateError(d.dir.stateDir(), err)
	}
	if entries, err = os.ReadDir(incoming); err != nil {
		return stateError(d.dir.stateDir(), err)
	}
	for _, e := range entries {
		if err := moveTree(filepath.Join(incoming, e.Name()), filepath.Join(spec.Source, e.Name())); err != nil {
			return stateError(d.dir.stateDir(), err)
		}
	}
	if d.rooted {
		err = giveTo(spec.Source, spec.MapUID, spec.MapGID)
	}
	return stateError(d.dir.stateDir(), err)
}

// updateFunction changes what the next invocations of a function are; those
// under way go on as they began.
func (d *daemon) updateFunction(spec FunctionSpec, incoming, hash string) (Function, error) {
	if err := spec.complete(); err != nil {
		return Function{}, badRequest{err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.lookUpFunction(spec.Name)
	if err != nil {
		return Function{}, err
	}
	next := spec.record(f.record, hash)
	if !spec.KeepSource || !sameFunction(next, f.record) {
		next.Revision++
	}
	if !spec.KeepSource {
		next.SourceRevision = next.Revision
		if err := d.storeSource(next, incoming); err != nil {
			return Function{}, fmt.Errorf("function %q: %w", spec.Name, stateError(d.dir.stateDir(), err))
		}
	}
	if err := writeJSON(d.files.join("functions", spec.Name, "function.json"), next); err != nil {
		return Function{}, fmt.Errorf("function %q: %w", spec.Name, stateError(d.dir.stateDir(), err))
	}
	f.record = next
	d.pruneSources(f, nil)
	return f.snapshot(), nil
}

// sameFunction: an invocation of one is as good as one of the other.
func sameFunction(a, b Function) bool {
	a.Tags, b.Tags = nil, nil
	one, err1 := json.Marshal(a)
	other, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(one) == string(other)
}

// pruneSources removes the sources that no invocation uses any more, ended being
// one that is about to end. The caller holds d.mu.
func (d *daemon) pruneSources(f *function, ended *invocation) {
	used := map[string]bool{f.record.source(): true}
	for _, i := range f.invocations {
		if i != ended && i.running() {
			used[i.source] = true
		}
	}
	own := d.files.join("functions", f.record.Name)
	found, _ := filepath.Glob(own + "/source*")
	for _, path := range found {
		if !used[filepath.Base(path)] {
			_ = removeAll(path) // tried again with the next
		}
	}
}
