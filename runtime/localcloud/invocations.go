// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

type invocation struct {
	record Invocation
	source string   // its directory below the function's
	nat    *nat     // that it is behind
	box    *sandbox // nil while it is being made, and when that failed
	failed string   // why it could not be made

	standby bool // of a host's slot

	answer *initReport // how it ended, if its sandbox lives on
	frozen bool        // that waits for another event
}

func (i *invocation) running() bool {
	return i.failed == "" && i.answer == nil && (i.box == nil || i.box.running())
}

// holds: there is a sandbox of it, or will be.
func (i *invocation) holds() bool {
	return i.running() || i.frozen && i.box.running()
}

// snapshot is the record as it is now. The caller holds d.mu.
func (i *invocation) snapshot() Invocation {
	r := i.record
	if i.running() {
		return r
	}
	r.PID = 0
	if r.Error = i.failed; i.answer != nil {
		r.Error = i.answer.Error
	} else if i.box != nil {
		r.Error = i.box.failure()
		r.Ended = i.box.ended
		if r.Error == "" && !i.box.done() {
			r.Error = "stopped"
		}
	}
	r.State = InvocationSucceeded
	if r.Error != "" {
		r.State = InvocationFailed
	}
	return r
}

// invoke takes one event: it is accepted at once and runs in a sandbox of its
// own, as an asynchronous invocation on Lambda does.
func (d *daemon) invoke(name string, payload []byte) (Invocation, error) {
	var head struct {
		Slot        string `json:"slot"`
		LaunchToken string `json:"launch_token"`
		Standby     bool   `json:"standby"`

		Files map[string]string `json:"files"`
	}
	if err := json.Unmarshal(payload, &head); err != nil {
		return Invocation{}, badRequest{fmt.Errorf("invoke %q: the payload is not JSON: %w", name, err)}
	}
	if err := config.CheckName(head.Slot); err != nil {
		return Invocation{}, badRequest{fmt.Errorf("invoke %q: slot: %w", name, err)}
	}
	for path := range head.Files {
		if err := config.CheckFile(path); err != nil {
			return Invocation{}, badRequest{fmt.Errorf("invoke %q: files: %w", name, err)}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.lookUpFunction(name)
	if err == nil && f.deleting {
		err = fmt.Errorf("function %q: %w on network %q: it is being deleted", name, ErrNotFound, d.info.Name)
	}
	if err != nil {
		return Invocation{}, err
	}
	// A slot has one holder, and one log, but for a standby: the seed decides about it.
	if h, ok := d.hosts[head.Slot]; ok && (h.box == nil || h.box.running()) && !head.Standby {
		return Invocation{}, fmt.Errorf("invoke %q: host %q %w on network %q: choose another name, or delete that one first",
			name, head.Slot, ErrExists, d.info.Name)
	}
	i := &invocation{source: f.record.source(), standby: head.Standby, record: Invocation{
		RequestID: newRequestID(), Function: name, Revision: f.record.Revision, Slot: head.Slot, LaunchID: cluster.LaunchID(head.LaunchToken),
		State: InvocationRunning, Started: time.Now().UTC(),
	}}
	warm := f.takeFrozen(head.Slot)
	f.invocations = append(forgetOld(f.invocations), i)
	go d.runInvocation(f.record, i, warm, payload, head.Files)
	return i.snapshot(), nil
}

// forgetOld drops the oldest ended invocations beyond keepInvocations.
func forgetOld(list []*invocation) []*invocation {
	ended := 0
	for _, i := range list {
		if !i.holds() {
			ended++
		}
	}
	var kept []*invocation
	for _, i := range list {
		if !i.holds() && ended >= keepInvocations {
			ended--
			continue
		}
		kept = append(kept, i)
	}
	return kept
}

// newRequestID looks like Lambda's (a random UUID).
func newRequestID() string {
	b := make([]byte, 16)
	rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// takeFrozen is the invocation of a slot whose sandbox waits for another event, nil
// if there is none. It is the caller's then. The caller holds d.mu.
func (f *function) takeFrozen(slot string) *invocation {
	for _, i := range f.invocations {
		if i.frozen && i.box.running() && i.record.Slot == slot {
			i.frozen = false
			return i
		}
	}
	return nil
}

// runInvocation brings an event to a sandbox: to one that is warm, or to a new one.
func (d *daemon) runInvocation(f Function, i, warm *invocation, payload []byte, files map[string]string) {
	var box *sandbox
	at := &place{}
	var err error
	if warm == nil {
		box, at, err = d.startInvocation(f, i, payload, files)
	} else {
		box = warm.box
		at.nat, at.address = warm.nat, warm.nat.address()
		err = box.thaw(newEvent(f, i, payload))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		i.failed = err.Error()
		i.record.Ended = time.Now().UTC()
		d.log.Error().Err(err).Str("function", f.Name).Str("slot", i.record.Slot).Msg("no sandbox for an invocation")
		return
	}
	i.box, i.nat, i.record.PID, i.record.NATAddress = box, at.nat, box.cmd.Process.Pid, at.address.String()
	select {
	case <-d.stopped: // too late: shutDown may have looked before it was there
		go box.end(0)
	default:
	}
	if f.Reuse {
		go d.awaitFrozen(i)
	}
}

// awaitFrozen notes the end of an event whose sandbox lives on.
func (d *daemon) awaitFrozen(i *invocation) {
	select {
	case r := <-i.box.frozen:
		d.mu.Lock()
		defer d.mu.Unlock()
		i.answer, i.frozen, i.record.Ended = &r, true, time.Now().UTC()
	case <-i.box.gone:
	}
}

func newEvent(f Function, i *invocation, payload []byte) *event {
	timeout := time.Duration(f.TimeoutS) * time.Second
	return &event{
		RequestID: i.record.RequestID, Function: f.Name, ARN: f.ARN, Slot: i.record.Slot, MemoryMB: f.MemoryMB,
		Timeout: timeout, Deadline: time.Now().Add(timeout), Payload: payload, Environment: f.Environment, API: runtimeAPIAddress,
	}
}

func (d *daemon) startInvocation(f Function, i *invocation, payload []byte, files map[string]string) (*sandbox, *place, error) {
	// Lambda unpacks what it verified; here it was verified when it was unpacked.
	if _, err := os.Stat(d.rt.layer() + "/" + layer.BootstrapPath); err != nil {
		return nil, nil, fmt.Errorf("layer: %w: delete the network and create it again", err)
	}
	at, err := d.underlay.addSandbox(f.NAT, f.Relaxed)
	if err != nil {
		return nil, nil, err
	}
	staging, err := os.MkdirTemp(d.files.join("functions", f.Name), "sandbox-")
	if err != nil {
		at.release()
		return nil, nil, stateError(d.dir.stateDir(), err)
	}
	uid, gid := d.mapIDs()
	spec := initSpec{
		Kind: config.KindFunction, Slot: i.record.Slot, Address: at.inside.String(),
		StateDir: d.dir.stateDir(), Staging: staging, Secret: d.secret,
		Source: d.files.join("functions", f.Name, i.source), LayerDir: d.rt.layer(), Files: files,
		User: functionUser, Group: functionUser, UID: functionUID, GID: functionGID, MapUID: uid, MapGID: gid,
		TmpMB: max(f.EphemeralMB, defaultEphemeralMB), Relaxed: f.Relaxed, Root: f.Root,
		Reuse: f.Reuse, Event: newEvent(f, i, payload),
	}
	if f.Entrypoint != "" {
		spec.Entrypoint, spec.LayerDir, spec.Source = f.Entrypoint, filepath.Join(f.Root, "opt"), filepath.Join(f.Root, "var/task")
	}
	if d.plain() {
		spec.Plain, spec.Network, spec.Address = true, string(d.dir), at.address.String()
		spec.Event.API = plainRuntimeAPI(spec.Address)
		if spec.Event.Payload, err = d.plainEvent(payload, &spec); err != nil {
			at.release()
			_ = removeAll(staging)
			return nil, nil, err
		}
	}
	group, entries := &cgroup{}, []*os.File(nil)
	if !f.Relaxed && !d.plain() {
		group, entries = d.limit(&spec)
	}
	box, err := d.startSandbox(spec, at, entries, func(b *sandbox) {
		if group.outOfMemory() {
			b.explain(fmt.Sprintf("%s: memory_size = %d MB", OutOfMemory, f.MemoryMB))
		}
		group.remove()
		_ = removeAll(staging)
		d.mu.Lock()
		defer d.mu.Unlock()
		if f, err := d.lookUpFunction(f.Name); err == nil {
			d.pruneSources(f, i)
		}
	})
	return box, at, err
}

// limit makes the control groups of a sandbox, and notes in spec what cannot be
// limited, which is no reason not to run.
func (d *daemon) limit(spec *initSpec) (*cgroup, []*os.File) {
	d.limiting.Lock()
	defer d.limiting.Unlock()
	group, err := d.dir.newCgroup(spec.Event.RequestID, spec.Event.MemoryMB)
	entries, openErr := group.open()
	if err = errors.Join(err, openErr); err != nil {
		spec.Unlimited = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	spec.Groups = len(entries)
	return group, entries
}

// disturbNAT lets something happen to the NAT of a running invocation.
func (d *daemon) disturbNAT(name, slot, what string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.lookUpFunction(name)
	if err != nil {
		return err
	}
	for _, i := range f.invocations {
		if i.nat != nil && i.running() && i.record.Slot == slot {
			err := i.nat.disturb(what)
			i.record.NATAddress = i.nat.address().String()
			return err
		}
	}
	return fmt.Errorf("function %q: a NAT of slot %q %w", name, slot, ErrNotFound)
}

func (d *daemon) listInvocations(name string) ([]Invocation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.lookUpFunction(name)
	if err != nil {
		return nil, err
	}
	list := []Invocation{}
	for _, i := range f.invocations {
		list = append(list, i.snapshot())
	}
	return list, nil
}

// stopInvocations ends the running invocations of a slot ("": of all), and
// returns when their sandboxes are gone.
func (d *daemon) stopInvocations(name, slot string) error {
	for {
		d.mu.Lock()
		f, err := d.lookUpFunction(name)
		if err != nil {
			d.mu.Unlock()
			return nil
		}
		var boxes []*sandbox
		making := false
		for _, i := range f.invocations {
			if i.holds() && (slot == "" || i.record.Slot == slot) {
				making = making || i.box == nil
				if i.box != nil {
					boxes = append(boxes, i.box)
				}
			}
		}
		d.mu.Unlock()
		endAll(boxes)
		if !making {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // its sandbox is being made, within setUpTime
	}
}
