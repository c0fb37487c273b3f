// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// undoTime bounds cleaning up after a failure, also when the caller gave up.
const undoTime = 30 * time.Second

// CreateNetwork makes a network, starts its daemon and its seed and waits until
// the seed admits members. ErrExists if there is one of that name. A failure
// leaves nothing behind.
func (s *Store) CreateNetwork(ctx context.Context, spec NetworkSpec) (NetworkInfo, error) {
	err := spec.complete()
	if err == nil {
		err = checkFiles()
	}
	if err != nil {
		return NetworkInfo{}, fmt.Errorf("create network %q: %w", spec.Name, err)
	}
	lock, debris, err := s.claim(ctx, spec.Name)
	if err != nil {
		return NetworkInfo{}, err
	}
	defer lock.unlock()
	d := s.netDir(spec.Name)
	if debris {
		if err := d.wipe(ctx); err != nil {
			return NetworkInfo{}, fmt.Errorf("create network %q: clean up what an earlier attempt left: %w", spec.Name, err)
		}
	}
	info, err := s.build(ctx, d, spec)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		err = fmt.Errorf("create network %q: %w", spec.Name, s.explain(err))
		return NetworkInfo{}, errors.Join(err, s.remove(undo, d))
	}
	return info, nil
}

// explain adds the remedy to errors of the state directory's file system that
// do not name it yet.
func (s *Store) explain(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) && !strings.Contains(err.Error(), "state directory "+s.dir) && strings.HasPrefix(pathErr.Path, s.dir) {
		return s.wrap(err)
	}
	return err
}

func (spec *NetworkSpec) complete() error {
	if spec.CIDR == "" {
		spec.CIDR = config.DefaultCIDR
	}
	if spec.Port == 0 {
		spec.Port = config.DefaultPort
	}
	if spec.Seeds == 0 {
		spec.Seeds = 1
	}
	if err := config.CheckName(spec.Name); err != nil {
		return err
	}
	if err := config.CheckSeedCount(spec.Seeds); err != nil {
		return err
	}
	if spec.Port < 1 || spec.Port > 65535 {
		return fmt.Errorf("port %d: want 1 to 65535", spec.Port)
	}
	if spec.Isolation == "" {
		spec.Isolation = DefaultIsolation()
	}
	if err := CheckIsolation(spec.Isolation); err != nil {
		return err
	}
	if spec.Secret == nil {
		random := make([]byte, 32)
		cryptorand.Read(random)
		spec.Secret = []byte(hex.EncodeToString(random))
	}
	if len(strings.TrimSpace(string(spec.Secret))) < 16 {
		return fmt.Errorf("secret: %d bytes are too few; want 16 or more", len(spec.Secret))
	}
	return checkCIDR(spec.CIDR)
}

func (s *Store) build(ctx context.Context, d netDir, spec NetworkSpec) (NetworkInfo, error) {
	info, err := s.prepare(ctx, d, spec)
	if err != nil {
		return NetworkInfo{}, err
	}
	started, err := s.startDaemon(ctx, d, info)
	if err != nil {
		return NetworkInfo{}, err
	}
	defer started.release()
	if err := s.waitSeed(ctx, info); err != nil {
		return NetworkInfo{}, err
	}
	if err := os.Rename(d.join("pending.json"), d.join("network.json")); err != nil {
		return NetworkInfo{}, err
	}
	if err := started.commit(); err != nil {
		return NetworkInfo{}, err
	}
	return d.info()
}

// prepare writes everything the daemon needs, network.json under a name that
// does not count yet.
func (s *Store) prepare(ctx context.Context, d netDir, spec NetworkSpec) (NetworkInfo, error) {
	machine, err := s.MachineID()
	if err != nil {
		return NetworkInfo{}, err
	}
	endpoints, err := freeEndpoints(spec.Seeds)
	if err != nil {
		return NetworkInfo{}, err
	}
	info := NetworkInfo{
		Name: spec.Name, CIDR: spec.CIDR, Port: spec.Port, MachineID: machine, Created: time.Now().UTC().Truncate(time.Second),
		Elastic: spec.Elastic, Version: spec.Version, SecretVersion: spec.SecretVersion, Tags: spec.Tags,
		SeedEndpoint: endpoints[0], SeedEndpoints: endpoints, SecretFile: d.join("secret"), Directory: string(d),
	}
	err = s.underLock(ctx, func() error {
		if info.Runtime, err = s.installRuntime(); err != nil {
			return err
		}
		return writeJSON(d.join("pending.json"), info) // its runtime is in use from now on
	})
	if err != nil {
		return NetworkInfo{}, err
	}
	if err := s.isolate(ctx, d, spec, &info); err != nil {
		return NetworkInfo{}, err
	}
	for _, dir := range []string{"logs", "hosts", "functions", "incoming"} {
		if err := os.MkdirAll(d.join(dir), 0o700); err != nil {
			return NetworkInfo{}, err
		}
	}
	secret := strings.TrimSpace(string(spec.Secret)) + "\n"
	return info, renameio.WriteFile(info.SecretFile, []byte(secret), 0o600)
}

// freeEndpoints finds a place on this machine for each seed.
func freeEndpoints(count int) ([]string, error) {
	var all []string
	for len(all) < count {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		if endpoint := fmt.Sprintf("127.0.0.1:%d", port); !slices.Contains(all, endpoint) {
			all = append(all, endpoint)
		}
	}
	return all, nil
}

// isolate settles how the hosts of a new network are kept apart.
func (s *Store) isolate(ctx context.Context, d netDir, spec NetworkSpec, info *NetworkInfo) (err error) {
	if info.Isolation, info.Notice, err = s.decideIsolation(ctx, spec, s.runtimeDir(info.Runtime)); err != nil {
		return err
	}
	if info.plain() && spec.Elastic {
		return errors.New("public addresses that are translated need namespaces")
	}
	if info.plain() {
		if err := checkPlainPath(d); err != nil {
			return err
		}
		if spec.Port < 1024 {
			return fmt.Errorf("port %d: without namespaces nodes cannot listen below 1024: choose another", spec.Port)
		}
		if info.Loopback, err = freeBlock(d); err != nil {
			return err
		}
	}
	return writeJSON(d.join("pending.json"), info)
}

// freePort finds a port for a seed, which is kept for the network's life. It
// looks below the ports the kernel gives to outgoing connections, one of which
// could hold the port when the daemon is started again.
func freePort() (int, error) {
	for range 100 {
		port := 20000 + rand.N(10000)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find a free port on 127.0.0.1: %w", err)
		}
		return port, l.Close()
	}
	return 0, errors.New("find a free port on 127.0.0.1: 100 tries found none from 20000 to 29999: end a program that listens there")
}

// DeleteNetwork stops everything of a network and removes it. It is idempotent
// and also removes networks that are half-made or whose daemon died.
func (s *Store) DeleteNetwork(ctx context.Context, name string) error {
	if err := config.CheckName(name); err != nil {
		return fmt.Errorf("delete network: %w", err)
	}
	d := s.netDir(name)
	lock, err := waitLock(ctx, string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return s.underLock(ctx, s.pruneRuntimes)
	}
	if err != nil {
		return fmt.Errorf("delete network %q: %w", name, s.wrap(err))
	}
	defer lock.unlock()
	if err := s.remove(ctx, d); err != nil {
		return fmt.Errorf("delete network %q: %w", name, err)
	}
	return nil
}

// remove stops a network's daemon and removes its directory. The caller holds
// its lock.
func (s *Store) remove(ctx context.Context, d netDir) error {
	if err := d.stopDaemon(ctx); err != nil {
		return err
	}
	return s.underLock(ctx, func() error {
		if err := errors.Join(d.removeOutside(), removeAll(string(d))); err != nil {
			return s.wrap(err)
		}
		return s.pruneRuntimes()
	})
}

// wipe empties the directory of a half-made network but keeps it, as its lock
// is held.
func (d netDir) wipe(ctx context.Context) error {
	if err := d.stopDaemon(ctx); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		err = errors.Join(err, removeAll(filepath.Join(string(d), e.Name())))
	}
	return err
}

// Connect returns a client of the network's daemon. A daemon that died is
// started again with its seed, which keeps ids and addresses; the hosts that
// died with it stay gone.
func (s *Store) Connect(ctx context.Context, name string) (*Client, error) {
	info, err := s.Network(name)
	if err != nil {
		return nil, err
	}
	machine, err := s.MachineID()
	if err != nil {
		return nil, err
	}
	if info.MachineID != machine {
		return nil, fmt.Errorf("network %q in %s was %w: use it there, or delete it", name, s.dir, ErrOtherMachine)
	}
	if info, err = s.ensure(ctx, name); err != nil {
		return nil, fmt.Errorf("network %q: %w", name, err)
	}
	return newClient(info), nil
}

// reachTime bounds looking for a daemon that runs.
const reachTime = 5 * time.Second

// Reach returns a client of the network's daemon without starting anything; nil
// if none runs. One that runs and does not answer is left alone: ErrUnreachable.
func (s *Store) Reach(ctx context.Context, name string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	for {
		info, err := s.Network(name)
		if err != nil || !info.Alive {
			return nil, err
		}
		if answers(ctx, info) {
			return newClient(info), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("network %q: %w: see %s", name, ErrUnreachable, netDir(info.Directory).join("cloud.log"))
		case <-time.After(50 * time.Millisecond): // it is starting, or ending
		}
	}
}

// UpdateNetwork changes what the state directory notes about a network.
func (s *Store) UpdateNetwork(ctx context.Context, name string, change func(*NetworkInfo)) (NetworkInfo, error) {
	d := s.netDir(name)
	lock, err := waitLock(ctx, string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return NetworkInfo{}, fmt.Errorf("network %q: %w: it was deleted", name, ErrNotFound)
	}
	if err != nil {
		return NetworkInfo{}, fmt.Errorf("update network %q: %w", name, s.wrap(err))
	}
	defer lock.unlock()
	info, err := d.info()
	if err != nil {
		return NetworkInfo{}, err
	}
	change(&info)
	if err := writeJSON(d.join("network.json"), info); err != nil {
		return NetworkInfo{}, fmt.Errorf("update network %q: %w", name, s.wrap(err))
	}
	return d.info()
}

// ensure starts the daemon of a network if it does not answer. It waits for
// others who create, start or delete it.
func (s *Store) ensure(ctx context.Context, name string) (NetworkInfo, error) {
	d := s.netDir(name)
	lock, err := waitLock(ctx, string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return NetworkInfo{}, fmt.Errorf("%w: it was deleted", ErrNotFound)
	}
	if err != nil {
		return NetworkInfo{}, s.wrap(err)
	}
	defer lock.unlock()
	info, err := d.info()
	if err != nil || info.Alive && answers(ctx, info) {
		return info, err
	}
	if err := ctx.Err(); err != nil {
		return NetworkInfo{}, err // it was us who did not wait for the answer
	}
	if info, err = s.restart(ctx, d, info); err != nil {
		return NetworkInfo{}, fmt.Errorf("start its daemon again: %w", err)
	}
	return info, nil
}

// answers: the daemon's API takes connections.
func answers(ctx context.Context, info NetworkInfo) bool {
	conn, err := newClient(info).dial(ctx, "", "")
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (s *Store) restart(ctx context.Context, d netDir, info NetworkInfo) (NetworkInfo, error) {
	if err := d.stopDaemon(ctx); err != nil { // the rest of one that died
		return NetworkInfo{}, err
	}
	started, err := s.startDaemon(ctx, d, info)
	if err != nil {
		return NetworkInfo{}, err
	}
	defer started.release()
	if err := s.waitSeed(ctx, info); err != nil {
		return NetworkInfo{}, err
	}
	if err := started.commit(); err != nil {
		return NetworkInfo{}, err
	}
	return d.info()
}
