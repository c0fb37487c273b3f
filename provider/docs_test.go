// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// schemaJSON is what terraform tells of the provider, as far as documentation
// is made of it.
type schemaJSON struct {
	Resources  map[string]schemaBlock  `json:"resource_schemas"`
	Data       map[string]schemaBlock  `json:"data_source_schemas"`
	Ephemerals map[string]schemaBlock  `json:"ephemeral_resource_schemas"`
	Functions  map[string]functionJSON `json:"functions"`
}

type schemaBlock struct {
	Block struct {
		Description string                   `json:"description"`
		Attributes  map[string]attributeJSON `json:"attributes"`
	} `json:"block"`
}

type attributeJSON struct {
	Description string `json:"description"`
	Nested      struct {
		Attributes map[string]attributeJSON `json:"attributes"`
	} `json:"nested_type"`
}

type functionJSON struct {
	Summary     string `json:"summary"`
	Description string `json:"description"`
	Parameters  []struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	} `json:"parameters"`
}

func schemaOf(t *testing.T) schemaJSON {
	t.Helper()
	w := newWorkspace(t)
	w.configure("")
	var all struct {
		Providers map[string]schemaJSON `json:"provider_schemas"`
	}
	if err := json.Unmarshal([]byte(w.must("providers", "schema", "-json")), &all); err != nil {
		t.Fatal(err)
	}
	for _, found := range all.Providers {
		return found
	}
	t.Fatal("terraform tells of no provider")
	return schemaJSON{}
}

// Everything that has a page has a description and an example of its own.
func TestDocumented(t *testing.T) {
	found := schemaOf(t)
	if len(found.Resources) < 3 || len(found.Data) < 2 || len(found.Functions) < 3 {
		t.Fatalf("only %d resources, %d data sources, %d functions", len(found.Resources), len(found.Data), len(found.Functions))
	}
	for kind, blocks := range map[string]map[string]schemaBlock{
		"resources/%/resource.tf": found.Resources, "data-sources/%/data-source.tf": found.Data,
		"ephemeral-resources/%/ephemeral-resource.tf": found.Ephemerals,
	} {
		for name, block := range blocks {
			describes(t, name, block.Block.Description)
			attributesDescribed(t, name, block.Block.Attributes)
			hasExample(t, strings.Replace(kind, "%", name, 1), name)
		}
	}
	for name, f := range found.Functions {
		describes(t, name, f.Description)
		if f.Summary == "" {
			t.Errorf("%s has no summary", name)
		}
		for _, p := range f.Parameters {
			describes(t, name+"("+p.Name+")", p.Description)
		}
		hasExample(t, "functions/"+name+"/function.tf", "provider::boxer::"+name+"(")
	}
}

func attributesDescribed(t *testing.T, at string, attributes map[string]attributeJSON) {
	t.Helper()
	for name, attribute := range attributes {
		describes(t, at+"."+name, attribute.Description)
		attributesDescribed(t, at+"."+name, attribute.Nested.Attributes)
	}
}

func describes(t *testing.T, what, description string) {
	t.Helper()
	if !strings.HasSuffix(description, ".") {
		t.Errorf("%s: no description, or no full stop at its end: %q", what, description)
	}
}

func hasExample(t *testing.T, path, uses string) {
	t.Helper()
	if text, err := os.ReadFile(filepath.Join("examples", path)); err != nil || !strings.Contains(string(text), uses) {
		t.Errorf("examples/%s does not show %s (%v)", path, uses, err)
	}
}

// The examples are what users copy: terraform must find nothing wrong with them.
func TestExamplesAreValid(t *testing.T) {
	needEphemeral(t)
	paths, err := filepath.Glob("examples/*/*/*.tf")
	if err != nil || len(paths) < 9 {
		t.Fatalf("%d examples (%v)", len(paths), err)
	}
	paths = slices.Insert(paths, 0, "examples/provider/provider.tf")
	w := newWorkspace(t)
	for _, path := range paths {
		t.Run(strings.TrimPrefix(path, "examples/"), func(t *testing.T) {
			w.t = t
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			config := string(text)
			if strings.Contains(config, "boxer_network.shop.") && !strings.Contains(config, `resource "boxer_network"`) {
				config += shop
			}
			if !strings.Contains(config, "required_providers") {
				config = requiredProviders + config
			}
			w.write("main.tf", config)
			w.must("validate", "-no-color")
			w.write("main.tf", string(text))
			if out, status := w.run("fmt", "-check", "-diff", "main.tf"); status != 0 {
				t.Errorf("terraform fmt would change it:\n%s", out)
			}
		})
	}
}
