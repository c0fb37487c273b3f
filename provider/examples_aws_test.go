// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"archive/zip"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/provider/emulator"
)

// onlyOnAWS may differ from the example on the local platform, and where programs come from.
var onlyOnAWS = []string{"image_id", "instance_type", "user_data", "image_uri", "source_dir", "package", "code_sha256"}

// TestExamplesOnAWS plans each example on both platforms: what is declared is the same,
// but for what only AWS has.
func TestExamplesOnAWS(t *testing.T) {
	a := emulator.Start(t)
	for example, variables := range map[string]map[string]string{
		"quickstart": nil,
		"burst":      {"logic_image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/logic:1"},
		"failover":   {"zookeeper_image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/zookeeper:1"},
	} {
		t.Run(example, func(t *testing.T) {
			c := newCloud(t)
			w := c.workspace()
			a.Setenv(t)
			t.Setenv(envStateDir, c.dir)
			if err := os.CopyFS(w.dir, os.DirFS("../examples/"+example)); err != nil {
				t.Fatal(err)
			}
			w.placed()
			local := w.declared()
			w.dir = filepath.Join(w.dir, "aws")
			w.placed()
			pythonPackage(t, filepath.Join(w.dir, "logic.zip"))
			options := []string{"-var=debian_image=ami-0123456789abcdef0"}
			for name, value := range variables {
				options = append(options, "-var="+name+"="+value)
			}
			if out, status := w.run("fmt", "-check", "-diff"); status != 0 {
				t.Errorf("terraform fmt would change it:\n%s", out)
			}
			aws := w.declared(options...)
			for address, values := range local {
				if values["command"] == nil && values["cidr"] == nil {
					t.Fatalf("%s is not declared as expected: %v", address, values)
				}
				for name, value := range values {
					switch {
					case slices.Contains(onlyOnAWS, name), name == "command" && aws[address]["package"] != nil:
					case name == "publish" && value != nil: // there it says who may connect
						for _, published := range aws[address]["publish"].([]any) {
							if published.(map[string]any)["host_port"] != value.([]any)[0].(map[string]any)["host_port"] {
								t.Errorf("%s publishes %v, on AWS %v", address, value, published)
							}
						}
					case name != "seed" && value != nil && !reflect.DeepEqual(value, aws[address][name]):
						t.Errorf("%s: %s is %v, on AWS %v", address, name, value, aws[address][name])
					}
				}
			}
			if len(local) != len(aws) || len(local) == 0 {
				t.Errorf("%d resources, on AWS %d", len(local), len(aws))
			}
		})
	}
	for _, call := range a.Calls() {
		if !strings.HasPrefix(call.Action, "Get") && !strings.HasPrefix(call.Action, "Describe") && !strings.HasPrefix(call.Action, "List") {
			t.Errorf("a plan asks for %s", call)
		}
	}
}

// placed names the places of main.tf so that they are found from here: the provider
// does not run where terraform does.
func (w *workspace) placed() {
	w.t.Helper()
	text := readText(w.t, filepath.Join(w.dir, "main.tf"))
	text = strings.ReplaceAll(text, "${path.module}", w.dir)
	w.write("main.tf", strings.ReplaceAll(text, `= "logic.zip"`, `= "`+w.dir+`/logic.zip"`))
}

// pythonPackage is as boxer pack names what it packs.
func pythonPackage(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z := zip.NewWriter(file)
	for _, name := range []string{"usr/bin/python3", "app/app.py"} {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte("#!/bin/sh\n"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
}

// declared are the values that a plan gives each resource.
func (w *workspace) declared(options ...string) map[string]map[string]any {
	w.t.Helper()
	w.must("init", "-no-color", "-input=false")
	w.must(append([]string{"plan", "-out=plan.bin", "-no-color", "-input=false"}, options...)...)
	var plan struct {
		Planned struct {
			Root struct {
				Resources []struct {
					Address string
					Values  map[string]any
				}
			} `json:"root_module"`
		} `json:"planned_values"`
	}
	if err := json.Unmarshal([]byte(w.must("show", "-json", "plan.bin")), &plan); err != nil {
		w.t.Fatal(err)
	}
	found := map[string]map[string]any{}
	for _, r := range plan.Planned.Root.Resources {
		found[r.Address] = r.Values
	}
	return found
}
