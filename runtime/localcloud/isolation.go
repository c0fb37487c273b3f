// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// IsolationEnv is the isolation of networks that do not say theirs.
const IsolationEnv = "BOXER_ISOLATION"

// What keeps the hosts of a network apart.
const (
	IsolationAuto       = "auto"       // namespaces if this machine lets us have them
	IsolationNamespaces = "namespaces" // or an error
	IsolationProcesses  = "processes"  // nothing: plain processes, each node on an address of its own
)

// probeTime bounds the attempt to have namespaces; a variable for the tests.
var probeTime = 10 * time.Second

// CheckIsolation reports why name is no isolation.
func CheckIsolation(name string) error {
	switch name {
	case IsolationAuto, IsolationNamespaces, IsolationProcesses:
		return nil
	}
	return fmt.Errorf("isolation %q: want auto, namespaces or processes", name)
}

// DefaultIsolation is BOXER_ISOLATION, else auto.
func DefaultIsolation() string {
	if name := os.Getenv(IsolationEnv); name != "" {
		return name
	}
	return IsolationAuto
}

// decideIsolation tells what a new network gets, and why it is not what a network
// usually has (notice).
func (s *Store) decideIsolation(ctx context.Context, spec NetworkSpec, rt runtimeDir) (isolation, notice string, err error) {
	if spec.Isolation == IsolationProcesses {
		return IsolationProcesses, "", nil
	}
	denied, err := s.probe(ctx, rt)
	if err != nil || denied == nil {
		return IsolationNamespaces, "", err
	}
	if remedy := exhausted(denied.Error()); remedy != "" {
		return "", "", fmt.Errorf("local cloud: whether this system allows user namespaces cannot be found out: %w: %s", denied, remedy)
	}
	what, remedy := whyDenied(isRealRoot())
	if spec.Isolation == IsolationNamespaces {
		return "", "", fmt.Errorf("local cloud: %s: %w: %s; or do without them: isolation = %q", what, denied, remedy, IsolationProcesses)
	}
	return IsolationProcesses, oneLine(fmt.Sprintf("%s (%v): the nodes of network %q are plain processes, and its functions are not behind NAT; "+
		"for a network with namespaces: %s", what, denied, spec.Name, remedy)), nil
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// probe does once all that a network does with namespaces, for some systems let
// the first step succeed and deny the rest. It returns what was denied; err says
// that it could not be found out.
func (s *Store) probe(ctx context.Context, rt runtimeDir) (denied, err error) {
	dir, err := os.MkdirTemp(s.dir, ".probe-")
	if err != nil {
		return nil, s.wrap(err)
	}
	defer func() { _ = removeAll(dir) }()
	d := netDir(filepath.Join(dir, "networks", "probe"))
	if err := os.MkdirAll(d.join("logs"), 0o700); err != nil {
		return nil, s.wrap(err)
	}
	limited, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(limited, rt.boxer(), "local-cloud", "probe", string(d))
	cmd.Env, cmd.Dir, cmd.Stdout = []string{"PATH=" + hostPath}, "/", &out
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = innerAttributes(isRealRoot())
	cmd.SysProcAttr.Pdeathsig = 0 // goes by thread; it ends by itself
	err = cmd.Run()
	switch text := strings.TrimSpace(out.String()); {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil:
		return nil, nil
	case limited.Err() != nil:
		return fmt.Errorf("making them takes longer than %s", probeTime), nil
	case text != "":
		return errors.New(text), nil
	}
	var path *fs.PathError
	if errors.As(err, &path) { // how a clone that failed comes back
		err = path.Err
	}
	return fmt.Errorf("start a process in its own: %w", err), nil
}

// probeMain is `boxer local-cloud probe`: process 1 of its own namespaces.
func probeMain(dir netDir) error {
	if os.Getpid() != 1 {
		return errors.New("the probe is not in a process namespace of its own")
	}
	time.AfterFunc(probeTime, func() { os.Exit(1) }) // whoever started it is gone
	unix.Umask(0o022)
	d := &daemon{dir: dir, files: dir, info: NetworkInfo{Name: "probe"}, rooted: isRealRoot(), log: daemonLogger()}
	if err := d.enterNamespaces(); err != nil {
		return err
	}
	nat, err := d.underlay.addSandbox(NATMasquerade, false)
	if err != nil {
		return err
	}
	nat.release()
	at, err := d.underlay.addHost()
	if err != nil {
		return err
	}
	uid, gid := d.mapIDs()
	spec := initSpec{
		Kind: config.KindVM, Slot: "probe", Address: at.address.String(), StateDir: dir.stateDir(), Staging: dir.join("root"),
		MapUID: uid, MapGID: gid, User: vmUser, Group: vmUser, UID: vmUID, GID: vmUID, Script: "exec sleep 60\n",
	}
	if err := os.Mkdir(spec.Staging, 0o700); err != nil {
		return err
	}
	box, err := d.startSandbox(spec, at, nil, func(*sandbox) {})
	if err != nil {
		return err
	}
	box.end(0)
	return nil
}
