// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/provider/emulator"
)

// TestModules runs the modules' own tests on the local platform.
func TestModules(t *testing.T) {
	for _, module := range []string{"network", "elastic-service"} {
		t.Run(module, func(t *testing.T) {
			c := newCloud(t)
			w := newModule(t, module, c.layers())
			t.Setenv(envStateDir, c.dir)
			w.test("local")
			if networks, err := c.store().Networks(); err != nil || len(networks) > 0 {
				t.Errorf("left: %v, %v", networks, err)
			}
		})
	}
}

// TestModulesOnAWS runs those that plan for AWS.
func TestModulesOnAWS(t *testing.T) {
	a := emulator.Start(t)
	for _, module := range []string{"network", "elastic-service"} {
		t.Run(module, func(t *testing.T) {
			w := newModule(t, module, newCloud(t).layers())
			a.Setenv(t)
			w.test("aws")
		})
	}
	if made := a.Objects(); len(made) > 0 {
		t.Errorf("a plan has made %v", made)
	}
}

// newModule is a workspace in a copy of one of the modules, all of them beside it.
func newModule(t *testing.T, module string, options ...Option) *workspace {
	t.Helper()
	w := newWorkspace(t, options...)
	if err := os.CopyFS(w.dir, os.DirFS("../terraform")); err != nil {
		t.Fatal(err)
	}
	w.dir = filepath.Join(w.dir, module)
	return w
}

var passed = regexp.MustCompile(`(?m)^Success! [1-9]\d* passed, 0 failed\.$`)

// test runs one file of the module's tests.
func (w *workspace) test(name string) {
	w.t.Helper()
	w.must("init", "-no-color", "-input=false")
	out := w.must("test", "-no-color", "-filter=tests/"+name+".tftest.hcl")
	if !passed.MatchString(out) {
		w.t.Fatalf("not all of it ran:\n%s", out)
	}
}

// TestModulesAreDocumented: every variable and output is described, and in the README.
func TestModulesAreDocumented(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^(variable|output) "(\w+)" \{\n  description = "[^"]+\."`)
	blocks := regexp.MustCompile(`(?m)^(variable|output) "`)
	for _, module := range []string{"network", "elastic-service"} {
		readme := readText(t, "../terraform/"+module+"/README.md")
		for _, file := range []string{"variables.tf", "outputs.tf"} {
			text := readText(t, "../terraform/"+module+"/"+file)
			found := declared.FindAllStringSubmatch(text, -1)
			if all := blocks.FindAllString(text, -1); len(found) != len(all) || len(all) == 0 {
				t.Errorf("%s/%s: %d of %d blocks are described", module, file, len(found), len(all))
			}
			for _, match := range found {
				if !strings.Contains(readme, "`"+match[2]+"`") {
					t.Errorf("%s/README.md does not have the %s %s", module, match[1], match[2])
				}
			}
		}
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
