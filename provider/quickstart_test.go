// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAccQuickstart runs the example as it is written with the provider as it is
// built: self-contained, found where terraform is told that it is.
func TestAccQuickstart(t *testing.T) {
	c := newCloud(t)
	plugin := builtFile(t, "terraform-provider-boxer")
	w := &workspace{t: t, dir: t.TempDir(), program: terraformPath(t)}
	copyExample(t, w.dir)
	// Only the port differs from what is written: 8080 may be in use here.
	port := freePort(t)
	text, err := os.ReadFile(filepath.Join(w.dir, "main.tf"))
	if err != nil {
		t.Fatal(err)
	}
	w.write("main.tf", strings.Replace(string(text), "host_port = 8080", fmt.Sprintf("host_port = %d", port), 1))
	w.write("cli.tfrc", fmt.Sprintf("provider_installation {\n  dev_overrides { \"boxer-overlay/boxer\" = %q }\n  direct {}\n}\n", filepath.Dir(plugin)))
	if err := os.Mkdir(filepath.Join(w.dir, ".terraform"), 0o755); err != nil { // no init with an override
		t.Fatal(err)
	}
	w.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(w.dir, "cli.tfrc"), "CHECKPOINT_DISABLE=1",
		envPlatform+"=", envStateDir+"="+c.dir)

	t.Cleanup(func() { w.run("destroy", "-auto-approve") }) // if the test fails half-way
	w.apply()
	q := &quickstart{cloud: c, port: port}
	if counts := q.answers(50); len(counts) != 2 {
		t.Errorf("answers came from %v, want both replicas", counts)
	}
	w.emptyPlan()
	noted := c.processes()
	w.destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}
