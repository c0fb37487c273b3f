// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
)

// arches that Boxer runs on, and Lambda too. The system is always Linux: what a
// provider runs a local network with are Linux programs and namespaces.
var arches = []string{"amd64", "arm64"}

// Names that the Terraform registry looks for: <product>_<version>_...
const (
	providerProduct = "terraform-provider-boxer"
	cliProduct      = "boxer"
	manifestSource  = "terraform-registry-manifest.json"
)

var versionRule = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

type release struct {
	version string // without a v
	bin     string
	root    string
	out     string
}

// product is a set of files with checksums of its own. The registry wants those
// of the provider, and nothing beside.
type product struct {
	name  string
	files map[string][]byte
}

func (r release) pack() error {
	if !versionRule.MatchString(r.version) {
		return fmt.Errorf("version %q: want one such as 0.1.0 or 0.2.0-rc1, without a v", r.version)
	}
	provider, err := r.provider()
	if err != nil {
		return err
	}
	cli, err := r.cli()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	return errors.Join(provider.write(r), cli.write(r))
}

// provider makes one zip for each architecture, and the registry's manifest.
func (r release) provider() (product, error) {
	p := product{providerProduct, map[string][]byte{}}
	manifest, err := os.ReadFile(filepath.Join(r.root, manifestSource))
	if err != nil {
		return p, err
	}
	p.files[r.name(providerProduct, "manifest.json")] = manifest
	for _, arch := range arches {
		binary, err := r.built("stage-"+arch, providerProduct)
		if err != nil {
			return p, err
		}
		license, err := r.texts("LICENSE")
		if err != nil {
			return p, err
		}
		archive, err := zipped(append(license, entry{providerProduct + "_v" + r.version, binary, true}))
		if err != nil {
			return p, err
		}
		p.files[r.name(providerProduct, "linux_"+arch+".zip")] = archive
	}
	return p, nil
}

// cli makes one archive for each architecture, with all that `boxer` looks for
// beside itself, and the layers once more by themselves.
func (r release) cli() (product, error) {
	p := product{cliProduct, map[string][]byte{}}
	for _, arch := range arches {
		entries, err := r.texts("CHANGELOG.md", "LICENSE", "README.md")
		if err != nil {
			return p, err
		}
		layerName := "boxer-layer-" + arch + ".zip"
		for _, file := range []struct {
			dir, built, name string
			executable       bool
		}{{"stage-" + arch, "boxer-cli", "boxer", true}, {"", layerName, layerName, false}, {"stage-" + arch, "libboxer.so", "libboxer.so", true}} {
			data, err := r.built(file.dir, file.built)
			if err != nil {
				return p, err
			}
			entries = append(entries, entry{file.name, data, file.executable})
			if file.name == layerName {
				p.files[r.name("boxer-layer", arch+".zip")] = data
			}
		}
		manual, err := r.manual()
		if err != nil {
			return p, err
		}
		entries = append(entries, manual...)
		folder := r.name(cliProduct, "linux_"+arch)
		for i := range entries {
			entries[i].name = path.Join(folder, entries[i].name)
		}
		if p.files[folder+".tar.gz"], err = tarred(entries); err != nil {
			return p, err
		}
	}
	return p, nil
}

// manual returns the manual pages.
func (r release) manual() ([]entry, error) {
	found, err := fs.Glob(os.DirFS(r.bin), "man/*.1")
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no manual pages in %s: run make release, which writes them", filepath.Join(r.bin, "man"))
	}
	slices.Sort(found)
	var entries []entry
	for _, name := range found {
		data, err := os.ReadFile(filepath.Join(r.bin, name))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name, data, false})
	}
	return entries, nil
}

func (r release) built(dir, name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(r.bin, dir, name))
	if err != nil {
		return nil, fmt.Errorf("%w: run make release, which builds it", err)
	}
	return data, nil
}

func (r release) texts(names ...string) ([]entry, error) {
	var entries []entry
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(r.root, name))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name, data, false})
	}
	return entries, nil
}

func (r release) name(product, rest string) string { return product + "_" + r.version + "_" + rest }

// write puts the files and their checksums into the release.
func (p product) write(r release) error {
	var names []string
	for name := range p.files {
		names = append(names, name)
	}
	slices.Sort(names)
	var sums bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(p.files[name]), name)
		if err := os.WriteFile(filepath.Join(r.out, name), p.files[name], 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(r.out, r.name(p.name, "SHA256SUMS")), sums.Bytes(), 0o644)
}
