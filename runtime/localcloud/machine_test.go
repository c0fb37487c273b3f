// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A machine without a machine id is still one machine, and nothing is written for
// it that a deleted network would leave behind.
func TestMachineWithoutAnID(t *testing.T) {
	file := machineIDFile
	defer func() { machineIDFile = file }()
	dir := t.TempDir()
	var ids []string
	for _, machineIDFile = range []string{filepath.Join(dir, "absent"), os.DevNull, os.DevNull} {
		id, err := machineID(dir)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if ids[0] == "" || ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("the same machine has the ids %q", ids)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
}

// The first thread of a process may be a zombie long before the last one has ended.
func TestAProcessLivesUntilItsLastThread(t *testing.T) {
	const script = `import ctypes, threading, time, platform
threading.Thread(target=time.sleep, args=(30,)).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)`
	cmd := exec.Command("python3", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	var stat []byte
	for end := time.Now().Add(10 * time.Second); !strings.Contains(string(stat), ") Z "); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("its first thread does not end: %s", stat)
		}
		stat, _ = os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	}
	if _, err := identify(cmd.Process.Pid); err != nil {
		t.Errorf("while a thread runs: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := identify(cmd.Process.Pid); errors.Is(err, os.ErrProcessDone) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the zombie of a killed process counts as alive")
		}
	}
}
