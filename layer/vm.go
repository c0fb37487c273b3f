// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"text/template"
)

// MaxUserData is what EC2 takes as user data, in bytes before base64.
const MaxUserData = 16 << 10

// Defaults of VM.
const (
	DefaultPrefix     = "/opt/boxer"
	DefaultConfigFile = "/etc/boxer/node.json"
)

//go:embed vm.sh.tmpl
var vmSource string

var vmTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("vm.sh").Funcs(template.FuncMap{"quote": quote}).Parse(vmSource))
})

// VM says what the bootstrap script of a VM installs and runs.
type VM struct {
	LayerURL   string // https://..., or file:///... on the local platform
	SHA256     string // of the layer zip, hexadecimal
	Prefix     string // where it goes, default DefaultPrefix
	ConfigFile string // where Node goes, default DefaultConfigFile
	Node       string // the node document, JSON
	Alone      bool   // the script is the service manager, whatever else the machine has
}

// VMScript is the bootstrap script: user data on EC2, run as it is locally.
func VMScript(vm VM) (string, error) {
	if vm.Prefix == "" {
		vm.Prefix = DefaultPrefix
	}
	if vm.ConfigFile == "" {
		vm.ConfigFile = DefaultConfigFile
	}
	if err := vm.check(); err != nil {
		return "", fmt.Errorf("vm bootstrap script: %w", err)
	}
	var out bytes.Buffer
	if err := vmTemplate().Execute(&out, vm); err != nil {
		return "", fmt.Errorf("vm bootstrap script: %w", err)
	}
	if out.Len() > MaxUserData {
		return "", fmt.Errorf("vm bootstrap script: %d bytes are more than the %d a VM takes as user data: "+
			"the node's configuration has %d; shorten command and environment, or move them into source_dir",
			out.Len(), MaxUserData, len(vm.Node))
	}
	return out.String(), nil
}

func (vm VM) check() error {
	if len(vm.SHA256) != 64 || strings.Trim(vm.SHA256, "0123456789abcdef") != "" {
		return fmt.Errorf("SHA-256 %q: want 64 hexadecimal digits", vm.SHA256)
	}
	if !strings.HasPrefix(vm.LayerURL, "file:///") && !strings.HasPrefix(vm.LayerURL, "https://") {
		return fmt.Errorf("layer %q: want an https:// or file:/// URL", vm.LayerURL)
	}
	for _, p := range []string{vm.Prefix, vm.ConfigFile} {
		// systemd reads these too: what its unit syntax would expand or split is refused.
		if !filepath.IsAbs(p) || strings.ContainsAny(p, "\"\\%$`\n") {
			return fmt.Errorf("path %q: want an absolute path without quotes, %%, $ and backslashes", p)
		}
	}
	if strings.ContainsRune(vm.Node+vm.LayerURL, 0) {
		return errors.New("a NUL byte cannot be passed in a script")
	}
	return nil
}

// quote makes s one word of sh, whatever it holds.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
