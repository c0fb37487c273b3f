// SPDX-License-Identifier: Apache-2.0

package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/ipc"
	"github.com/boxer-overlay/boxer/runtime/process"
)

const runFileName = "run.json"

// runFile is what a supervisor that was killed leaves to the next one: how to
// find the guest, and how the guest's monitors find the supervisor.
type runFile struct {
	Boot        string     `json:"boot"`
	Slot        string     `json:"slot"`
	LaunchToken string     `json:"launch_token"`
	IPC         string     `json:"ipc"`
	Tokens      ipc.Tokens `json:"tokens"`
	Guest       string     `json:"guest,omitempty"` // digest of what it runs
	Phase       string     `json:"phase"`           // of the guest; empty: never started
	PID         int        `json:"pid,omitempty"`
	StartTime   uint64     `json:"start_time,omitempty"`
	ExitCode    *int       `json:"exit_code,omitempty"`
	Restarts    int        `json:"restarts"`
	Failure     string     `json:"failure,omitempty"`

	process   *process.Process // the adopted guest
	stale     *process.Process // a guest of another document or launch, to be ended
	temporary bool             // the directory goes with the node
}

// loadRun takes up the guest of the supervisor before, if it belongs to the
// same launch of the same slot since the same boot, or has it ended.
func loadRun(cfg config.Node, dir string) (runFile, error) {
	fresh := runFile{
		Boot: bootID(), Slot: cfg.Slot, LaunchToken: cfg.LaunchToken,
		IPC: "boxer-" + randomHex(8), Tokens: ipc.NewTokens(), temporary: cfg.StateDir == "",
	}
	if fresh.LaunchToken == "" {
		fresh.LaunchToken = randomHex(16)
	}
	data, err := os.ReadFile(filepath.Join(dir, runFileName))
	if errors.Is(err, os.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, fmt.Errorf("read the run file: %w", err)
	}
	var old runFile
	if json.Unmarshal(data, &old) != nil || old.Boot != fresh.Boot || old.IPC == "" {
		return fresh, nil // of another life
	}
	old.adopt()
	if old.Slot != fresh.Slot || cfg.LaunchToken != "" && cluster.LaunchID(cfg.LaunchToken) != cluster.LaunchID(old.LaunchToken) {
		fresh.stale = old.process
		return fresh, nil // of another launch
	}
	old.temporary = fresh.temporary
	if digest := guestDigest(cfg); old.Guest == "" {
		old.Guest = digest // of a release that did not note it
	} else if old.Guest != digest { // killed on the way to another document
		old.stale, old.process = old.process, nil
		old.PID, old.StartTime, old.Phase, old.ExitCode, old.Restarts, old.Failure = 0, 0, "", nil, 0, ""
	}
	return old, nil
}

// adopt takes up the guest, if it still runs.
func (r *runFile) adopt() {
	if r.Phase == process.PhaseStarting { // killed before it could note more
		r.PID, r.StartTime, _ = process.Find(ipcVariable + "=" + r.Tokens.Environment(r.IPC))
	}
	if r.PID == 0 {
		return
	}
	var err error
	if r.process, err = process.Adopt(r.PID, r.StartTime); err != nil {
		r.PID, r.StartTime, r.Phase = 0, 0, "" // it died too: start it again
	}
}

// ipcVariable leads a guest's monitors to the supervisor.
const ipcVariable = "BOXER_IPC"

// guestDigest tells one guest from another.
func guestDigest(cfg config.Node) string {
	data, err := json.Marshal([]any{cfg.Argv, cfg.Env, cfg.WorkingDir, cfg.User, cfg.Files, cfg.Remap})
	if err != nil {
		return "" // plain data: cannot fail
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// alive: there is a guest to adopt.
func (r *runFile) alive() bool { return r.process != nil }

func (r *runFile) tokens() ipc.Tokens { return r.Tokens }

// save keeps it, for the owner alone: it holds tokens.
func (r *runFile) save(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := replaceFile(dir, runFileName, data, 0o600); err != nil {
		return fmt.Errorf("write the run file: %w", err)
	}
	return nil
}

// clean removes what must not outlive an orderly end.
func (r *runFile) clean(dir string) {
	if dir == "" {
		return
	}
	if r.temporary {
		_ = os.RemoveAll(dir)
		return
	}
	for _, name := range []string{runFileName, "members.sock", "hosts", "members.txt", "members.json"} {
		_ = os.Remove(filepath.Join(dir, name))
	}
}

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
