// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// errInUse: another program has the port.
var errInUse = errors.New("in use by another program")

// vmSite is the site of all VM hosts of a network: they reach each other on any
// port.
const vmSite = "local"

// host is a VM host as the daemon keeps it, also after it ended.
type host struct {
	record   Host
	node     config.Node // what it runs, with its launch token
	box      *sandbox    // nil while it is being made
	changing bool        // by updateHost
}

// snapshot is the record as it is now. The caller holds d.mu.
func (h *host) snapshot() Host {
	r := h.record
	if h.box != nil && !h.box.running() {
		r.State, r.PID, r.Error = HostExited, 0, h.box.failure()
	}
	return r
}

// createHost starts a VM host. incoming is the copy of its source directory
// ("": none), which is taken over.
func (d *daemon) createHost(ctx context.Context, spec HostSpec, incoming string) (Host, error) {
	node, err := d.completeVM(spec.Config)
	if err != nil {
		return Host{}, badRequest{err}
	}
	if err := d.reserve(node, spec); err != nil {
		return Host{}, err
	}
	h, err := d.buildHost(ctx, node, incoming)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		delete(d.hosts, node.Slot)
		if d.info.seedNumber(node.Slot) < 0 { // a seed's state stays
			_ = removeAll(d.files.join("hosts", node.Slot))
		}
		return Host{}, fmt.Errorf("host %q: %w", node.Slot, err)
	}
	d.hosts[node.Slot] = h
	return h.snapshot(), nil
}

// completeVM fills in what the platform knows.
func (d *daemon) completeVM(n config.Node) (config.Node, error) {
	if n.Kind == "" {
		n.Kind = config.KindVM
	}
	if n.Kind != config.KindVM && n.Kind != config.KindSeed {
		return n, fmt.Errorf("host: kind %q: want vm", n.Kind)
	}
	if n.Network != d.info.Name {
		return n, fmt.Errorf("host: network %q: this is network %q", n.Network, d.info.Name)
	}
	for _, p := range n.Publish {
		if p.HostPort == 0 {
			return n, fmt.Errorf("host %q: publish port %d: no host_port", n.Slot, p.Port)
		}
	}
	if n.LaunchToken == "" {
		n.LaunchToken = rand.Text()
	}
	n.SecretRef = "file:" + hostSecretFile
	n.SeedEndpoints = d.info.seedAddresses()
	if n.Kind == config.KindSeed && len(n.SeedEndpoints) == 1 {
		n.SeedEndpoints = nil // it knows itself
	}
	if !d.info.Elastic {
		n.Site, n.PublicAddress = vmSite, ""
	} else if n.Site == "" {
		n.Site = vmSite
	}
	n.Port, n.StateDir = d.info.Port, hostStateDir
	return config.New(n)
}

// reserve takes the slot. One whose host ended may be taken again.
func (d *daemon) reserve(n config.Node, spec HostSpec) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.hosts[n.Slot]; ok && (old.box == nil || old.box.running()) {
		return fmt.Errorf("host %q %w on network %q: choose another name or delete it first", n.Slot, ErrExists, d.info.Name)
	}
	// A slot has one holder, and one log; to a standby it comes back.
	for name, f := range d.functions {
		for _, i := range f.invocations {
			if i.record.Slot == n.Slot && i.running() && !i.standby {
				return fmt.Errorf("host %q: slot %q of function %q %w on network %q: choose another name or delete it first",
					n.Slot, n.Slot, name, ErrExists, d.info.Name)
			}
		}
	}
	d.hosts[n.Slot] = &host{record: Host{Slot: n.Slot, Kind: n.Kind, State: HostStarting,
		LaunchID: cluster.LaunchID(n.LaunchToken), Started: time.Now().UTC(),
		Config: shown(n), CodeSHA256: spec.CodeSHA256, Tags: spec.Tags}}
	return nil
}

// shown is a configuration as others may see it: a launch token is a secret.
func shown(n config.Node) config.Node {
	n.LaunchToken = ""
	return n
}

func (d *daemon) buildHost(ctx context.Context, n config.Node, incoming string) (*host, error) {
	listeners, err := d.publish(ctx, n)
	if err != nil {
		return nil, err
	}
	at, spec, err := d.prepareHost(&n, incoming)
	if err != nil {
		closeAll(listeners)
		return nil, err
	}
	d.mu.Lock()
	record := d.hosts[n.Slot].record
	d.mu.Unlock()
	box, err := d.startSandbox(spec, at, listeners, func(*sandbox) {})
	if err != nil {
		return nil, err
	}
	record.State, record.PID, record.UnderlayAddress = HostRunning, box.cmd.Process.Pid, n.UnderlayAddress
	return &host{record: record, node: n, box: box}, nil
}

// prepareHost makes all that a host needs but its processes.
func (d *daemon) prepareHost(n *config.Node, incoming string) (*place, initSpec, error) {
	add := d.underlay.addHost
	if r, ok := d.underlay.(*router); ok && d.info.Elastic {
		add = func() (*place, error) { return r.addHostIn(elasticBlock(*n)) }
	}
	if number := d.info.seedNumber(n.Slot); number >= 0 {
		add = func() (*place, error) { return d.underlay.addSeed(number) }
	}
	at, err := add()
	if err != nil {
		return nil, initSpec{}, err
	}
	n.UnderlayAddress = at.address.String()
	spec, err := d.vmSpec(*n)
	if err == nil {
		err = d.vmDirs(spec, incoming)
	}
	if err == nil && spec.State != "" {
		err = d.serveInvoke(spec)
	}
	if err != nil {
		at.release()
		return nil, initSpec{}, err
	}
	return at, spec, nil
}

// lastWords is the end of a slot's node log, to explain a failure.
func (d *daemon) lastWords(slot string) string {
	lines, err := tail(nodeLog(d.dir, slot), 3)
	if err != nil || len(lines) == 0 {
		return ""
	}
	return ": " + strings.Join(lines, " | ")
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// publish opens the published ports on the machine.
func (d *daemon) publish(ctx context.Context, n config.Node) ([]*os.File, error) {
	var files []*os.File
	for _, p := range n.Publish {
		f, err := d.publishOne(ctx, n.Name, p)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func (d *daemon) publishOne(ctx context.Context, name string, p config.Publish) (*os.File, error) {
	target := outside(p)
	f, err := d.listenOutside(ctx, target)
	if errors.Is(err, errInUse) {
		return nil, fmt.Errorf("publish port %d of %q: %s is %w: stop it or choose another host_port", p.Port, name, target, err)
	}
	if err != nil {
		return nil, fmt.Errorf("publish port %d of %q: %s cannot be opened: %w%s", p.Port, name, target, err, publishRemedy(err))
	}
	return f, nil
}

// publishRemedy is what to do where the kernel refuses a listener of the machine;
// of its error only the words have come here.
func publishRemedy(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, unix.EACCES.Error()):
		return ": choose a host_port from 1024 up, which needs no rights"
	case strings.Contains(text, unix.EADDRNOTAVAIL.Error()):
		return ": choose a host_address that this machine has (ip addr), or leave it out for 127.0.0.1"
	}
	return ""
}

// outside is where a port is published.
func outside(p config.Publish) string {
	address := p.HostAddress
	if address == "" {
		address = "127.0.0.1"
	}
	return net.JoinHostPort(address, strconv.Itoa(p.HostPort))
}

// vmSpec tells the init of a host what the node needs, and makes nothing yet.
func (d *daemon) vmSpec(n config.Node) (initSpec, error) {
	own := d.files.join("hosts", n.Slot)
	uid, gid := d.mapIDs()
	spec := initSpec{
		Kind: n.Kind, Slot: n.Slot, Address: n.UnderlayAddress, StateDir: d.dir.stateDir(), Staging: own + "/root",
		Secret: d.secret, LayerZip: d.rt.zip(), MapUID: uid, MapGID: gid, Listen: len(n.Publish), Files: n.Files,
		User: vmUser, Group: vmUser, UID: vmUID, GID: vmUID,
	}
	if n.Kind == config.KindSeed {
		spec.State = own + "/state"
	} else {
		spec.Source = own + "/source"
	}
	if n.User != "" {
		if err := spec.become(n.User); err != nil {
			return initSpec{}, badRequest{err}
		}
	}
	where := layer.VM{Layer: layer.Fetch{URL: "file://" + hostLayerZip}}
	if d.plain() {
		root := spec.Staging
		spec.Plain, spec.Network = true, string(d.dir)
		n = d.plainNode(n, root)
		if n.StateDir = root + hostStateDir; spec.State != "" {
			n.StateDir = spec.State
		}
		where = layer.VM{
			Layer: layer.Fetch{URL: "file://" + root + hostLayerZip}, Prefix: root + layer.DefaultPrefix, ConfigFile: root + layer.DefaultConfigFile, Alone: true,
		}
	}
	if d.info.Elastic {
		private, err := netip.ParseAddr(n.UnderlayAddress)
		if err != nil {
			return initSpec{}, err
		}
		makeElastic(&n, private)
	}
	if n.Kind == config.KindSeed {
		n.Invoke = "unix:" + n.StateDir + "/" + invokeSocket
	}
	var err error
	if spec.Script, err = d.vmScript(n, where); err != nil {
		return initSpec{}, badRequest{err}
	}
	return spec, nil
}

// vmDirs makes the host's own directories.
func (d *daemon) vmDirs(spec initSpec, incoming string) error {
	own := d.files.join("hosts", spec.Slot)
	if spec.State == "" {
		if err := removeAll(own); err != nil {
			return stateError(d.dir.stateDir(), err)
		}
	}
	err := os.MkdirAll(spec.Staging, 0o700)
	if err == nil {
		err = d.letThrough(own)
	}
	if err == nil && spec.State != "" {
		if err = os.MkdirAll(spec.State, 0o700); err == nil {
			err = giveTo(spec.State, spec.MapUID, spec.MapGID)
		}
	}
	if err == nil && spec.Source != "" {
		if incoming != "" {
			err = moveTree(incoming, spec.Source)
		} else {
			err = os.Mkdir(spec.Source, 0o755)
		}
		if err == nil && d.rooted {
			err = giveTo(spec.Source, spec.MapUID, spec.MapGID)
		}
	}
	return stateError(d.dir.stateDir(), err)
}

// vmScript is the same bootstrap script an EC2 VM gets as user data.
func (d *daemon) vmScript(n config.Node, where layer.VM) (string, error) {
	n.Files = nil // they are in place already
	doc, err := json.Marshal(n)
	if err != nil {
		return "", err
	}
	sum, err := d.layerSum()
	if err != nil {
		return "", err
	}
	where.Layer.SHA256, where.Node = sum, string(doc)
	return layer.VMScript(where)
}

// layerSum is what the layer's checksum was when the network was made.
func (d *daemon) layerSum() (string, error) {
	data, err := os.ReadFile(d.rt.sum())
	if err != nil {
		return "", fmt.Errorf("layer: %w: delete the network and create it again", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (d *daemon) getHost(slot string) (Host, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.hosts[slot]
	if !ok {
		return Host{}, fmt.Errorf("host %q: %w on network %q", slot, ErrNotFound, d.info.Name)
	}
	return h.snapshot(), nil
}

func (d *daemon) listHosts() []Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []Host{}
	for _, h := range d.hosts {
		list = append(list, h.snapshot())
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Slot < list[j].Slot })
	return list
}

// deleteHost ends a host and forgets it, with its logs or without.
func (d *daemon) deleteHost(slot string, logs bool) error {
	d.mu.Lock()
	h, ok := d.hosts[slot]
	d.mu.Unlock()
	if !ok {
		return nil
	}
	if d.info.seedNumber(slot) >= 0 {
		return badRequest{fmt.Errorf("host %q is the network's seed, which goes with the network: delete that with 'boxer network delete %s'", slot, d.info.Name)}
	}
	if h.box == nil {
		return fmt.Errorf("host %q is being created: wait for that to end", slot)
	}
	h.box.end(drainTime)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hosts[slot] != h { // somebody else deleted it, and it was made again
		return nil
	}
	if err := removeAll(d.files.join("hosts", slot)); err != nil {
		return stateError(d.dir.stateDir(), err)
	}
	if logs {
		if err := d.removeLogs(slot); err != nil {
			return stateError(d.dir.stateDir(), err)
		}
	}
	delete(d.hosts, slot)
	return nil
}
