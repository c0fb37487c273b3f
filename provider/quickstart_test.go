// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestAccQuickstart runs the example as it is written with the provider as it is
// built: self-contained, found where terraform is told that it is.
func TestAccQuickstart(t *testing.T) {
	for _, isolation := range []string{localcloud.IsolationNamespaces, localcloud.IsolationProcesses} {
		t.Run(isolation, func(t *testing.T) { runQuickstart(t, isolation) })
	}
}

// privateTmp gives the proxy a directory of its own where /tmp is everybody's.
func privateTmp(t *testing.T, conf string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "boxer-acc-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	text, err := os.ReadFile(conf)
	if err == nil {
		err = os.WriteFile(conf, []byte(strings.ReplaceAll(string(text), "/tmp/", dir+"/")), 0o644)
	}
	if err == nil {
		err = os.Chmod(dir, 0o777) // the guest is another user
	}
	if err != nil {
		t.Fatal(err)
	}
}

func runQuickstart(t *testing.T, isolation string) {
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
	config := strings.Replace(string(text), "host_port = 8080", fmt.Sprintf("host_port = %d", port), 1)
	if isolation == localcloud.IsolationProcesses {
		privateTmp(t, filepath.Join(w.dir, "front", "nginx.conf"))
		config = strings.Replace(config, `platform = "local" }`, `local = { isolation = "processes" } }`, 1)
	}
	w.write("main.tf", config)
	w.write("cli.tfrc", fmt.Sprintf("provider_installation {\n  dev_overrides { \"boxer-overlay/boxer\" = %q }\n  direct {}\n}\n", filepath.Dir(plugin)))
	if err := os.Mkdir(filepath.Join(w.dir, ".terraform"), 0o755); err != nil { // no init with an override
		t.Fatal(err)
	}
	w.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(w.dir, "cli.tfrc"), "CHECKPOINT_DISABLE=1",
		envPlatform+"=", envStateDir+"="+c.dir, localcloud.IsolationEnv+"=")

	t.Cleanup(func() { w.run("destroy", "-auto-approve") }) // if the test fails half-way
	w.apply()
	q := &quickstart{localCloud: c, port: port}
	if counts := q.answers(50); len(counts) != 2 {
		t.Errorf("answers came from %v, want both replicas", counts)
	}
	if info, err := c.store().Network("shop"); err != nil || info.Isolation != isolation {
		t.Errorf("isolation %q, want %q: %v", info.Isolation, isolation, err)
	}
	w.emptyPlan()
	noted := c.processes()
	w.destroy()
	if err := c.nothingLeft(noted); err != nil {
		t.Error(err)
	}
}
