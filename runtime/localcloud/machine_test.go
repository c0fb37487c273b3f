// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"os"
	"path/filepath"
	"testing"
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
