// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"github.com/google/renameio/v2"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// StateDirEnv overrides the state directory.
const StateDirEnv = "BOXER_STATE_DIR"

// Store is a state directory:
//
//	networks/<name>/   one network (see netDir)
//	runtime/<sha256>/  boxer, layer.zip and the unpacked layer, shared by the networks made with it
type Store struct {
	dir string // absolute, symlinks resolved
	rt  Runtime
}

// DefaultStateDir is BOXER_STATE_DIR, else $XDG_STATE_HOME/boxer, else
// ~/.local/state/boxer.
func DefaultStateDir() (string, error) {
	if dir := os.Getenv(StateDirEnv); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "boxer"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("state directory: %w: set %s", err, StateDirEnv)
	}
	return filepath.Join(home, ".local", "state", "boxer"), nil
}

// Open opens, or makes, a state directory.
func Open(stateDir string, rt Runtime) (*Store, error) {
	dir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, fmt.Errorf("state directory %s: %w", stateDir, err)
	}
	s := &Store{dir: dir, rt: rt}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, s.wrap(err)
	}
	// Hosts hide the directory by its real name.
	if s.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, s.wrap(err)
	}
	return s, s.checkWritable()
}

func (s *Store) checkWritable() error {
	info, err := os.Stat(s.dir)
	if err != nil {
		return s.wrap(err)
	}
	if !info.IsDir() {
		return s.wrap(syscall.ENOTDIR)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return fmt.Errorf("state directory %s: it belongs to uid %d, not to you (uid %d): set %s to a directory of your own",
			s.dir, owner, os.Geteuid(), StateDirEnv)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(s.dir, 0o700); err != nil { // secrets live below
			return s.wrap(err)
		}
	}
	probe, err := os.CreateTemp(s.dir, ".probe-")
	if err != nil {
		return s.wrap(s.forgiveFull(err))
	}
	_, err = probe.Write(make([]byte, 4096)) // a full disk may still give out names
	if closeErr := probe.Close(); err == nil {
		err = closeErr
	}
	if removeErr := os.Remove(probe.Name()); err == nil {
		err = removeErr
	}
	return s.wrap(s.forgiveFull(err))
}

// forgiveFull drops the error of a full disk when there are networks: they can be
// looked at and deleted, which frees space. What needs space fails by itself.
func (s *Store) forgiveFull(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	if entries, listErr := os.ReadDir(filepath.Join(s.dir, "networks")); listErr != nil || len(entries) == 0 {
		return err
	}
	return nil
}

// wrap names the state directory and what to do in errors of its file system.
func (s *Store) wrap(err error) error { return stateError(s.dir, err) }

func stateError(dir string, err error) error {
	remedy := ""
	var path *fs.PathError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		remedy = "free space or set " + StateDirEnv
	case errors.Is(err, fs.ErrNotExist):
		remedy = "set " + StateDirEnv + " to another directory"
	case errors.Is(err, syscall.EFBIG):
		remedy = "raise the limit of the size of files (ulimit -f)"
	case errors.As(err, &path) && path.Op == "fork/exec" && errors.Is(err, fs.ErrPermission):
		remedy = "its file system may be mounted noexec: set " + StateDirEnv + " to a directory from which programs may be run"
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		remedy = "make it writable or set " + StateDirEnv
	case errors.Is(err, syscall.ENOTDIR):
		remedy = "remove the file in its place or set " + StateDirEnv
	default:
		return fmt.Errorf("state directory %s: %w", dir, err)
	}
	return fmt.Errorf("state directory %s: %w: %s", dir, err, remedy)
}

// Dir is the state directory.
func (s *Store) Dir() string { return s.dir }

// MachineID identifies this machine, without giving away /etc/machine-id.
func (s *Store) MachineID() (string, error) { return machineID(s.dir) }

// Network describes a network, ErrNotFound if there is none.
func (s *Store) Network(name string) (NetworkInfo, error) {
	if err := config.CheckName(name); err != nil {
		return NetworkInfo{}, fmt.Errorf("network %w", err)
	}
	return s.netDir(name).info()
}

// Networks lists the networks by name; half-made ones are left out.
func (s *Store) Networks() ([]NetworkInfo, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "networks"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, s.wrap(err)
	}
	infos := []NetworkInfo{}
	for _, e := range entries {
		info, err := s.netDir(e.Name()).info()
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Name < infos[j].Name })
	return infos, nil
}

// netDir is the directory of a network:
//
//	network.json  written last when the network is made; without it the network is half-made
//	daemon.json   the daemon's processes
//	secret, cloud.sock, cloud.log, logs/, hosts/<slot>/, functions/<name>/, incoming/
type netDir string

func (s *Store) netDir(name string) netDir {
	return netDir(filepath.Join(s.dir, "networks", name))
}

func (d netDir) join(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d netDir) name() string     { return filepath.Base(string(d)) }
func (d netDir) stateDir() string { return filepath.Dir(filepath.Dir(string(d))) }

func (d netDir) info() (NetworkInfo, error) {
	var info NetworkInfo
	err := readJSON(d.join("network.json"), &info)
	if errors.Is(err, fs.ErrNotExist) {
		return NetworkInfo{}, fmt.Errorf("network %q: %w in %s", d.name(), ErrNotFound, d.stateDir())
	}
	if err != nil {
		return NetworkInfo{}, fmt.Errorf("network %q: %w", d.name(), err)
	}
	info.Directory = string(d)
	if len(info.SeedEndpoints) == 0 {
		info.SeedEndpoints = []string{info.SeedEndpoint}
	}
	info.Alive, info.PID = false, 0
	if p, err := d.daemon(); err == nil && p.Outer.alive() {
		info.Alive, info.PID = true, p.Outer.PID
	}
	return info, nil
}

// daemonFile is daemon.json.
type daemonFile struct {
	Outer processID `json:"outer"`
	Inner processID `json:"inner"`
}

// daemon reads daemon.json; without one it is all zero.
func (d netDir) daemon() (daemonFile, error) {
	var f daemonFile
	err := readJSON(d.join("daemon.json"), &f)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return f, err
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s is damaged (%s): put a good copy back, or delete the network", path, jsonProblem(err, len(data)))
	}
	return nil
}

// jsonProblem is what users may know of a document that is none.
func jsonProblem(err error, size int) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && syntax.Offset >= int64(size) {
		return fmt.Sprintf("it ends after %d bytes", size)
	}
	return err.Error()
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, append(data, '\n'), 0o600)
}
