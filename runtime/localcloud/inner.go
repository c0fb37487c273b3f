// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// Between the end of the seed's host and the next; it doubles from the one to
// the other while none lives longer.
const (
	seedPause    = 2 * time.Second
	maxSeedPause = 30 * time.Second
)

// daemon is the inner half of the daemon: process 1 of the local cloud, router
// of its star, parent of every host's init. When it ends, everything does.
type daemon struct {
	dir      netDir
	files    netDir // below which hosts/ and functions/ are
	log      zerolog.Logger
	info     NetworkInfo
	secret   string
	rooted   bool
	rt       runtimeDir
	underlay underlay
	control  *controlConn

	asking  sync.Mutex         // one request to outer at a time
	answers chan controlAnswer // to the request under way
	stop    context.CancelFunc // ends the daemon
	stopped <-chan struct{}    // it was asked to end

	opening  sync.Mutex // the logs of one launch are made at a time
	limiting sync.Mutex // one control group is made at a time

	spawning sync.Mutex   // held while an init is started
	inits    map[int]bool // by pid

	logging sync.Mutex
	writers map[string][]*sandbox // the launches of a slot, in order: the first has the slot's logs
	waiting int                   // counts launches that had to wait for them

	mu        sync.Mutex
	hosts     map[string]*host
	functions map[string]*function
	invokers  map[string]bool // seeds that are served the Invoke API
}

// underlay is where hosts and functions get their place in the network.
type underlay interface {
	addHost() (*place, error)
	addSeed(number int) (*place, error)
	addSandbox(nat string, relaxed bool) (*place, error)
}

type controlAnswer struct {
	packet controlPacket
	file   *os.File
}

func innerMain(dir netDir) error {
	control, err := newControlConn(os.NewFile(3, "control"))
	if err != nil {
		return err
	}
	first, _, err := control.receive()
	if err != nil || first.Op != opStart || first.Info == nil {
		return fmt.Errorf("local cloud: no start: %w", err)
	}
	if !first.Info.plain() && os.Getpid() != 1 {
		return errors.New("local cloud: started by hand")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d := &daemon{
		dir: dir, info: *first.Info, rooted: first.Rooted, control: control,
		log:     daemonLogger().With().Str("part", "inner").Str("network", first.Info.Name).Logger(),
		answers: make(chan controlAnswer), stop: cancel, stopped: ctx.Done(),
		hosts: map[string]*host{}, functions: map[string]*function{}, invokers: map[string]bool{}, inits: map[int]bool{},
	}
	d.chooseFiles()
	d.rt = runtimeDir(dir.stateDir() + "/runtime/" + d.info.Runtime)
	server, setup, err := d.setUp()
	if err != nil {
		_ = control.send(controlPacket{Op: opReady, Error: err.Error(), Setup: setup}, nil)
		return err
	}
	go d.listenToOuter()
	for number := range d.info.SeedEndpoints {
		if err = d.startSeed(ctx, number); err != nil {
			break
		}
	}
	_ = control.send(controlPacket{Op: opReady, Error: errorText(err)}, nil)
	if err == nil {
		d.log.Info().Bool("rooted", d.rooted).Str("isolation", d.info.Isolation).Msg("up")
		go d.keepLogs(ctx)
		var keeping sync.WaitGroup
		for number := range d.info.SeedEndpoints {
			keeping.Go(func() { d.keepSeed(ctx, number) })
		}
		keeping.Wait()
	}
	d.shutDown()
	server.close()
	return err
}

// enterNamespaces makes the namespaces of this process a router.
func (d *daemon) enterNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	r, err := newRouter(len(d.info.SeedEndpoints), uint16(d.info.Port))
	d.underlay = r
	if err == nil && d.info.Elastic {
		err = r.ruleElastic()
	}
	return err
}

// goWithout takes the network's addresses and makes orphans come to this process,
// as they would to a process 1.
func (d *daemon) goWithout() error {
	l, err := newLoopback(d.info.Loopback, len(d.info.SeedEndpoints))
	if err != nil {
		return err
	}
	d.underlay = l
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the network's processes: %w", err)
	}
	return nil
}

// setUp makes the underlay and opens the API. setup says that the machine denied
// something that namespaces need.
func (d *daemon) setUp() (server *apiServer, setup bool, err error) {
	if d.plain() {
		err = d.goWithout()
	} else {
		err = d.enterNamespaces()
	}
	if err != nil {
		return nil, !d.plain(), err
	}
	secret, err := os.ReadFile(d.dir.join("secret"))
	if err != nil {
		return nil, false, err
	}
	d.secret = strings.TrimSpace(string(secret)) + "\n"
	if err := d.cleanUp(); err != nil {
		return nil, false, stateError(d.dir.stateDir(), err)
	}
	if err := d.loadFunctions(); err != nil {
		return nil, false, err
	}
	server, err = d.serve()
	return server, false, err
}

// cleanUp removes what an earlier daemon's hosts left; the seeds' state stays.
func (d *daemon) cleanUp() error {
	d.dir.removeCgroups()
	waiting, _ := filepath.Glob(d.dir.join("logs", "*"+waitingLog+"*"))
	for _, log := range waiting {
		_ = os.Remove(log)
	}
	if err := d.emptyDir("incoming", func(string) bool { return false }); err != nil {
		return err
	}
	return d.emptyDir("hosts", func(slot string) bool { return d.info.seedNumber(slot) >= 0 })
}

func (d *daemon) emptyDir(name string, keep func(string) bool) error {
	base := d.dir
	if name == "hosts" {
		base = d.files
	}
	entries, err := os.ReadDir(base.join(name))
	for _, e := range entries {
		if !keep(e.Name()) {
			err = errors.Join(err, removeAll(base.join(name, e.Name())))
		}
	}
	return err
}

// listenToOuter takes outer's words until it ends, and ends with it.
func (d *daemon) listenToOuter() {
	defer d.stop()
	for {
		p, file, err := d.control.receive()
		if err != nil {
			d.log.Error().Err(err).Msg("the outer half is gone")
			if d.plain() {
				clearAllChildren()
			}
			os.Exit(1) //nolint:gocritic // no draining: nobody is there to see it
		}
		switch p.Op {
		case opStop:
			d.stop()
		case opListen:
			select {
			case d.answers <- controlAnswer{p, file}:
			case <-time.After(time.Second):
				if file != nil {
					file.Close()
				}
			}
		}
	}
}

// listenOutside has outer open a listener on the machine.
func (d *daemon) listenOutside(ctx context.Context, address string) (*os.File, error) {
	d.asking.Lock()
	defer d.asking.Unlock()
	if err := d.control.send(controlPacket{Op: opListen, Address: address}, nil); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		select {
		case a := <-d.answers:
			switch {
			case a.packet.Address != address: // to a request that was given up
				if a.file != nil {
					a.file.Close()
				}
				continue
			case a.packet.InUse:
				return nil, errInUse
			case a.packet.Error != "" || a.file == nil:
				return nil, errors.New(a.packet.Error)
			}
			return a.file, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer from the daemon's outer half: %w", ctx.Err())
		}
	}
}

// startSeed starts one of the network's own seeds.
func (d *daemon) startSeed(ctx context.Context, number int) error {
	endpoint := d.info.SeedEndpoints[number]
	port := endpoint[strings.LastIndexByte(endpoint, ':')+1:]
	var hostPort int
	if _, err := fmt.Sscan(port, &hostPort); err != nil {
		return fmt.Errorf("seed endpoint %q: %w", endpoint, err)
	}
	_, err := d.createHost(ctx, HostSpec{Config: config.Node{
		Network: d.info.Name, Kind: config.KindSeed, Slot: cluster.SeedName(number), CIDR: d.info.CIDR,
		Publish: []config.Publish{{Port: d.info.Port, HostPort: hostPort}},
	}}, "")
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}

// keepSeed starts a seed's host again whenever it ends, until ctx does: without
// a seed the network takes no new members, and nobody else would replace it.
func (d *daemon) keepSeed(ctx context.Context, number int) {
	pause := seedPause
	for {
		d.mu.Lock()
		seed := d.hosts[cluster.SeedName(number)]
		d.mu.Unlock()
		if seed != nil && seed.box != nil {
			select {
			case <-ctx.Done():
				return
			case <-seed.box.gone:
			}
			d.log.Error().Str("why", seed.box.failure()).Msg("a seed's host ended; starting it again")
			if seed.box.ended.Sub(seed.record.Started) > maxSeedPause {
				pause = seedPause
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, maxSeedPause)
		}
		if err := d.startSeed(ctx, number); err != nil {
			d.log.Error().Err(err).Msg("start the seed again")
		}
	}
}

// shutDown ends everything, all at the same time.
func (d *daemon) shutDown() {
	d.mu.Lock()
	var all []*sandbox
	for _, h := range d.hosts {
		if h.box != nil {
			all = append(all, h.box)
		}
	}
	for _, f := range d.functions {
		for _, i := range f.invocations {
			if i.box != nil {
				all = append(all, i.box)
			}
		}
	}
	d.mu.Unlock()
	endAll(all)
}

// mapIDs are the ids of a guest as the daemon sees them.
func (d *daemon) mapIDs() (uid, gid int) {
	switch {
	case d.rooted && d.plain(): // nothing but the number keeps them from other networks' guests
		return guestHostUID + d.info.Loopback, guestHostUID + d.info.Loopback
	case d.rooted:
		return guestHostUID, guestHostUID
	case d.plain():
		return os.Geteuid(), os.Getegid()
	}
	return 0, 0
}

// seedAddresses are where nodes inside find the seeds.
func (n NetworkInfo) seedAddresses() []string {
	all := make([]string, len(n.SeedEndpoints))
	for i := range all {
		if n.plain() {
			all[i] = fmt.Sprintf("%s:%d", blockAddress(n.Loopback, seedIndex+i), n.Port)
			continue
		}
		at := addressAt(hostBase, seedIndex+i)
		if n.Elastic {
			at = publicOf(at)
		}
		all[i] = fmt.Sprintf("%s:%d", at, n.Port)
	}
	return all
}

// seedNumber tells which of the network's seeds has this slot; -1: none.
func (n NetworkInfo) seedNumber(slot string) int {
	for i := range n.SeedEndpoints {
		if slot == cluster.SeedName(i) {
			return i
		}
	}
	return -1
}
