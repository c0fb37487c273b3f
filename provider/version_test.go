// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// atLeast is the first release of Terraform or OpenTofu that can do something.
type atLeast struct{ major, minor int }

func isTofu(t *testing.T) bool {
	t.Helper()
	return strings.Contains(filepath.Base(terraformPath(t)), "tofu")
}

// needVersion skips the test where the program is too old for a feature.
func needVersion(t *testing.T, want atLeast, feature string) {
	t.Helper()
	program := terraformPath(t)
	cmd := exec.Command(program, "version", "-json")
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+os.DevNull, "CHECKPOINT_DISABLE=1")
	out, err := cmd.Output()
	var version struct {
		Text string `json:"terraform_version"` // OpenTofu's too
	}
	if err == nil {
		err = json.Unmarshal(out, &version)
	}
	var got atLeast
	if err == nil {
		_, err = fmt.Sscanf(version.Text, "%d.%d", &got.major, &got.minor)
	}
	if err != nil {
		t.Fatalf("%s version -json: %v, %s", program, err, out)
	}
	if got.major < want.major || got.major == want.major && got.minor < want.minor {
		t.Skipf("%s %s has no %s: they came with %d.%d", filepath.Base(program), version.Text, feature, want.major, want.minor)
	}
}
