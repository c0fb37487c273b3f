// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// networkVariable tells, in the environment of a plain host's processes, whose
// they are; a guest shows it by BOXER_DIR.
const networkVariable = "BOXER_LOCAL_NETWORK"

// outsideBase holds the hosts of networks of real root without namespaces: their
// guests are another user, who sees nothing of a state directory.
var outsideBase = "/var/lib/boxer-local"

func (info *NetworkInfo) plain() bool { return info.Isolation == IsolationProcesses }

func (d *daemon) plain() bool { return d.info.plain() }

// outside is the directory of a plain network's hosts when guests are of a user
// of their own.
func (d netDir) outside() netDir {
	sum := sha256.Sum256([]byte(d))
	return netDir(filepath.Join(outsideBase, hex.EncodeToString(sum[:8])))
}

// checkPlainPath: guests load the process monitor from below the directory, by a
// variable that is a list of paths, and scripts name what is there.
func checkPlainPath(d netDir) error {
	if mayBecomeGuest() || !strings.ContainsAny(string(d), " \t\n:;'\"\\%$`&|<>()*?") {
		return nil
	}
	return fmt.Errorf("state directory %s: nodes that are plain processes (isolation = %q) need a path without blanks, colons and quotes: set %s",
		d.stateDir(), IsolationProcesses, StateDirEnv)
}

// removeOutside removes it, and the empty directory around.
func (d netDir) removeOutside() error {
	if os.Geteuid() != 0 {
		return nil
	}
	err := removeAll(string(d.outside()))
	_ = os.Remove(outsideBase) // fails while something is in it, as it should
	return err
}

// chooseFiles decides where the hosts' directories are. If that cannot be made
// outside, guests are root as well.
func (d *daemon) chooseFiles() {
	d.files = d.dir
	if !d.plain() {
		return
	}
	if d.rooted = mayBecomeGuest(); !d.rooted {
		return
	}
	outside := d.dir.outside()
	for _, dir := range []string{outsideBase, string(outside), outside.join("hosts"), outside.join("functions")} {
		err := os.MkdirAll(dir, 0o711)
		if err == nil {
			err = os.Chmod(dir, 0o711)
		}
		if err != nil {
			d.rooted = false
			d.log.Warn().Err(err).Msg("guests run as root: no directory that another user can look into")
			return
		}
	}
	d.files = outside
}

// letThrough lets guests of another user go through a directory.
func (d *daemon) letThrough(dir string) error {
	if !d.plain() || !d.rooted {
		return nil
	}
	return os.Chmod(dir, 0o711)
}

// plainNode is a node's configuration on a host that is a directory.
func (d *daemon) plainNode(n config.Node, root string) config.Node {
	n.SecretRef = "file:" + root + hostSecretFile
	n.Shared, n.Root, n.Places = true, root, []string{"/var/task", "/opt"}
	for name := range n.Files {
		n.Places = append(n.Places, name)
	}
	return n
}

// plainEvent puts what the platform knows of a plain host into a launch event.
func (d *daemon) plainEvent(payload []byte, spec *initSpec) ([]byte, error) {
	n := d.plainNode(config.Node{Files: spec.Files}, spec.Staging)
	event := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	if err := decoder.Decode(&event); err != nil {
		return nil, err
	}
	event["secret_ref"], event["seed_endpoints"] = n.SecretRef, d.info.seedAddresses()
	event["shared"], event["root"], event["places"] = n.Shared, n.Root, n.Places
	event["underlay_address"] = spec.Address
	return json.Marshal(event)
}

// startInit starts the init of a host, where it is to live.
func (d *daemon) startInit(cmd *exec.Cmd, at *place, spec initSpec) error {
	if !d.plain() {
		return inNamespace(at.ns, cmd.Start)
	}
	cmd.Args = append([]string{cmd.Args[0], cmd.Args[1], plainWord}, cmd.Args[2:]...)
	cmd.Env = append(cmd.Env, spec.plainEnvironment()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	d.spawning.Lock()
	defer d.spawning.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	d.inits[cmd.Process.Pid] = true
	return nil
}

func (d *daemon) forgetInit(pid int) {
	d.spawning.Lock()
	defer d.spawning.Unlock()
	delete(d.inits, pid)
}

// clearStrays ends what a host that was killed has left: its processes came to
// the daemon when their init died, for inits keep theirs. Inits are left alone.
func (d *daemon) clearStrays() {
	for end := time.Now().Add(clearTime); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		d.spawning.Lock() // no init is being started, so all of them are known
		left := clearChildren(func(pid int) bool { return d.inits[pid] })
		d.spawning.Unlock()
		if left == 0 {
			return
		}
	}
}

// clearChildren kills this process's children, those that keep says excepted,
// with all below them, and takes note of their end. It returns how many it saw.
func clearChildren(keep func(pid int) bool) int {
	seen := 0
	for _, pid := range children(os.Getpid()) {
		if keep(pid) {
			continue
		}
		seen++
		killBelow(pid)
		if p, err := identify(pid); err == nil {
			p.kill(unix.SIGKILL)
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
	return seen
}

// clearAllChildren ends everything below this process, which is about to end.
func clearAllChildren() {
	for end := time.Now().Add(clearTime); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if clearChildren(func(int) bool { return false }) == 0 {
			return
		}
	}
}

func children(parent int) []int {
	var found []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && statusField(pid, "PPid:")[0] == parent {
			found = append(found, pid)
		}
	}
	return found
}

// clearPlain ends what is left of a plain network whose daemon and inits were all
// killed: what says in its environment whose it is, and what has loaded the
// process monitor of one of the hosts.
func (d netDir) clearPlain() {
	for end := time.Now().Add(clearTime); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		left := d.leftovers()
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			p.kill(unix.SIGKILL)
		}
	}
}

func (d netDir) leftovers() []processID {
	var found []processID
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := identify(pid)
		if err == nil && (d.inEnvironment(pid) || d.inMaps(pid)) && p.alive() {
			found = append(found, p)
		}
	}
	return found
}

func (d netDir) inEnvironment(pid int) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for variable := range bytes.SplitSeq(data, []byte{0}) {
		text := string(variable)
		if text == networkVariable+"="+string(d) {
			return true
		}
		for _, dir := range d.hostDirs() {
			if strings.HasPrefix(text, "BOXER_DIR="+dir) {
				return true
			}
		}
	}
	return false
}

func (d netDir) inMaps(pid int) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	for _, dir := range d.hostDirs() {
		if bytes.Contains(data, []byte(" "+dir)) {
			return true
		}
	}
	return false
}

// hostDirs are the directories below which its hosts may be.
func (d netDir) hostDirs() []string {
	var dirs []string
	for _, base := range []netDir{d, d.outside()} {
		dirs = append(dirs, base.join("hosts")+"/", base.join("functions")+"/")
	}
	return dirs
}

// isPlain: the network was made without namespaces, or was being made so.
func (d netDir) isPlain() bool {
	for _, file := range []string{"network.json", "pending.json"} {
		var info NetworkInfo
		if readJSON(d.join(file), &info) == nil {
			return info.plain()
		}
	}
	return false
}

// runtimeAPI is where a function on a plain host finds its Runtime API.
func plainRuntimeAPI(address string) string {
	_, port, _ := net.SplitHostPort(runtimeAPIAddress)
	return net.JoinHostPort(address, port)
}
