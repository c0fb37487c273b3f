// SPDX-License-Identifier: Apache-2.0

// Package boxer holds only the tests of the tree's architecture: which package
// may import which, and that every package says in one doc comment what it is for.
package boxer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/boxer-overlay/boxer"

// allowed lists, for every package, the packages of this module it may import.
// The direction is one way (ARCHITECTURE.md, "Packages"): a leaf says nothing
// about its users, siblings of a layer do not know each other.
var allowed = map[string][]string{
	"": nil,
	// leaves
	"runtime/config":    nil,
	"runtime/consensus": nil,
	"runtime/table":     nil,
	"runtime/raw":       nil,
	"runtime/bound":     nil,
	"runtime/process":   nil,
	"runtime/capacity":  nil,
	"runtime/aws":       nil,
	"layer":             nil,
	// one idea each, over the leaves
	"runtime/cluster":    {"runtime/consensus"},
	"runtime/events":     {"runtime/raw"},
	"runtime/ipc":        {"runtime/events", "runtime/raw"},
	"runtime/socket":     {"runtime/ipc", "runtime/events", "runtime/raw"},
	"runtime/transport":  {"runtime/cluster", "runtime/events", "runtime/raw"},
	"runtime/localcloud": {"runtime/config", "runtime/cluster", "layer"},
	// what wires them
	"runtime/launch":     {"runtime/controller", "runtime/config", "runtime/cluster", "runtime/localcloud"},
	"runtime/node":       {"runtime/aws", "runtime/config", "runtime/cluster", "runtime/controller", "runtime/table", "runtime/ipc", "runtime/process", "runtime/socket", "runtime/transport"},
	"runtime/controller": {"runtime/aws", "runtime/config", "runtime/cluster"},
	"runtime/lambda":     {"runtime/aws", "runtime/config", "runtime/node"},
	"runtime/dashboard":  {"runtime/bound", "runtime/cluster", "runtime/config"},
	"runtime/hook":       {"runtime/bound", "runtime/cluster", "runtime/controller"},
	// programs and what they show
	"provider":                              {"runtime/capacity", "runtime/config", "runtime/cluster", "runtime/controller", "runtime/launch", "runtime/localcloud", "layer", "provider/cloud", "provider/layers"},
	"provider/cloud":                        {"layer"},
	"provider/emulator":                     {"layer", "runtime/config"},
	"provider/layers":                       nil,
	"runtime/loader":                        nil,
	"runtime/guestcheck":                    {"runtime/loader"},
	"runtime/pack":                          {"runtime/loader"},
	"provider/cmd/terraform-provider-boxer": {"provider"},
	"layer/cmd/layer":                       {"layer"},
	"release":                               nil,
	"runtime/capacity/sample":               {"runtime/capacity"},
	"runtime/cmd/boxer":                     {"provider/cloud", "runtime/aws", "runtime/guestcheck", "runtime/loader", "runtime/pack", "runtime/capacity", "runtime/config", "runtime/cluster", "runtime/controller", "runtime/dashboard", "runtime/hook", "runtime/launch", "runtime/localcloud", "runtime/node", "runtime/lambda"},
	// tests of the whole, and what drives them
	"layer/boot":             nil,
	"runtime/browser":        nil,
	"runtime/e2e":            {"runtime/config", "runtime/cluster", "runtime/launch", "runtime/localcloud"},
	"runtime/contract":       nil,
	"runtime/contract/calls": nil,
	"runtime/bench":          {"runtime/config", "runtime/cluster", "runtime/launch", "runtime/localcloud"},
	"runtime/conformance":    nil,
	"runtime/failover":       {"runtime/cluster", "runtime/launch", "runtime/localcloud"},
}

type listed struct {
	ImportPath   string
	Doc          string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-tags", "cli", "-json=ImportPath,Doc,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportDirection(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		may, known := allowed[name]
		if !known {
			t.Errorf("package %s is not in the import rules: add it to arch_test.go and to ARCHITECTURE.md", name)
			continue
		}
		for _, imported := range p.Imports {
			target := strings.TrimPrefix(imported, module+"/")
			if target == imported {
				continue
			}
			if !contains(may, target) {
				t.Errorf("%s imports %s: not allowed (ARCHITECTURE.md, \"Packages\")", name, target)
			}
		}
	}
}

func TestOneDocCommentPerPackage(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && p.ImportPath != module {
			t.Errorf("%s has no doc comment: say in one place what it is for", p.ImportPath)
		}
	}
}

// A drawer for odds and ends hides what depends on what.
func TestNoDrawers(t *testing.T) {
	for _, p := range packages(t) {
		switch base := path.Base(p.ImportPath); base {
		case "util", "utils", "common", "pkg", "helpers", "types", "misc":
			t.Errorf("%s: a package is named for its one purpose, not %q", p.ImportPath, base)
		}
	}
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}
