// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"time"
)

// Defaults of VM.
const (
	DefaultPrefix     = "/opt/boxer"
	DefaultConfigFile = "/etc/boxer/node.json"
	DefaultPatience   = 5 * time.Minute
)

// GuestUser is who guests of a real VM are, unless their node says otherwise: the
// bootstrap script makes the account.
const GuestUser = "boxer"

// UpgradeTag is the tag of an instance whose value (see Fetch.Tag) names the layer that
// its supervisor should run from, once that is another one than it began with. The
// instance sees it in its metadata if instance tags are allowed there.
const UpgradeTag = "boxer:layer"

//go:embed vm.sh.tmpl
var vmSource string

var vmTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("vm.sh").Funcs(template.FuncMap{"quote": quote}).Parse(vmSource))
})

// Fetch is a zip that a machine brings in, and its checksum.
type Fetch struct {
	// URL is where from: https://..., file:///... (the local platform), s3://BUCKET/KEY, or
	// the ARN of a layer version. The last two are fetched with the credentials of the
	// instance's role, which must allow s3:GetObject or lambda:GetLayerVersion.
	URL    string
	SHA256 string // hexadecimal
}

// Tag is the value of UpgradeTag that asks for this layer.
func (f Fetch) Tag() string { return f.URL + " " + f.SHA256 }

// VM says what the bootstrap script of a VM installs and runs.
type VM struct {
	Layer      Fetch
	Task       Fetch             // contents of /var/task; no URL: none
	Region     string            // of what is fetched from AWS
	Prefix     string            // where the layer goes, default DefaultPrefix
	ConfigFile string            // where Node goes, default DefaultConfigFile
	Node       string            // the node document, JSON
	Variables  map[string]string // of the script and the supervisor: AWS_ENDPOINT_URL and such, for tests
	Patience   time.Duration     // how long it tries before it says why not and goes on in the background, default DefaultPatience
	Alone      bool              // the script is the service manager, whatever else the machine has
}

func (vm *VM) fillDefaults() {
	if vm.Prefix == "" {
		vm.Prefix = DefaultPrefix
	}
	if vm.ConfigFile == "" {
		vm.ConfigFile = DefaultConfigFile
	}
	if vm.Patience == 0 {
		vm.Patience = DefaultPatience
	}
}

// VMScript is the bootstrap script: part of the user data on EC2 (UserData), run as it is
// locally.
func VMScript(vm VM) (string, error) {
	vm.fillDefaults()
	if err := vm.check(); err != nil {
		return "", fmt.Errorf("vm bootstrap script: %w", err)
	}
	var variables []string
	for _, name := range slices.Sorted(maps.Keys(vm.Variables)) {
		variables = append(variables, name+"="+vm.Variables[name])
	}
	var out bytes.Buffer
	if err := vmTemplate().Execute(&out, struct {
		VM
		Seconds, Variables string
	}{vm, strconv.Itoa(int(vm.Patience.Seconds())), strings.Join(variables, " ")}); err != nil {
		return "", fmt.Errorf("vm bootstrap script: %w", err)
	}
	return out.String(), nil
}

func (vm *VM) check() error {
	if err := vm.Layer.check(vm.Region); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	if vm.Task.URL != "" {
		if err := vm.Task.check(vm.Region); err != nil {
			return fmt.Errorf("package: %w", err)
		}
	}
	for _, p := range []string{vm.Prefix, vm.ConfigFile} {
		// systemd reads these too: what its unit syntax would expand or split is refused.
		if !filepath.IsAbs(p) || strings.ContainsAny(p, "\"\\%$`\n") {
			return fmt.Errorf("path %q: want an absolute path without quotes, %%, $ and backslashes", p)
		}
	}
	if strings.Trim(vm.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("region %q: want one such as us-east-1", vm.Region)
	}
	for name, value := range vm.Variables {
		if !isVariable(name) || strings.ContainsAny(value, " \t\n\"'\\%$`*?[") {
			return fmt.Errorf("variable %s=%q: want AWS_... in capitals, and no blanks or quotes in it", name, value)
		}
	}
	if len(vm.Node) > MaxUserData {
		return fmt.Errorf("the node's configuration has %d bytes, more than the %d that a VM takes as user data: "+
			"shorten command and environment, or move them into source_dir", len(vm.Node), MaxUserData)
	}
	if strings.ContainsRune(vm.Node+vm.Layer.URL+vm.Task.URL, 0) {
		return errors.New("a NUL byte cannot be passed in a script")
	}
	return nil
}

func isVariable(name string) bool {
	return strings.HasPrefix(name, "AWS_") && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

func (f Fetch) check(region string) error {
	if len(f.SHA256) != 64 || strings.Trim(f.SHA256, "0123456789abcdef") != "" {
		return fmt.Errorf("SHA-256 %q: want 64 hexadecimal digits", f.SHA256)
	}
	if strings.ContainsAny(f.URL, "\"\\\n") {
		return fmt.Errorf("%q: want no quotes, backslashes and line ends", f.URL)
	}
	switch {
	case strings.HasPrefix(f.URL, "file:///"), strings.HasPrefix(f.URL, "https://"):
		return nil
	case isLayerVersion(f.URL), strings.HasPrefix(f.URL, "s3://"):
		if region == "" {
			return fmt.Errorf("%q: its region is not given", f.URL)
		}
		return nil
	}
	return fmt.Errorf("%q: want the ARN of a layer version, or an s3://, https:// or file:/// URL", f.URL)
}

// isLayerVersion: arn:aws:lambda:REGION:ACCOUNT:layer:NAME:VERSION.
func isLayerVersion(arn string) bool {
	parts := strings.Split(arn, ":")
	return len(parts) == 8 && parts[0] == "arn" && parts[2] == "lambda" && parts[5] == "layer" &&
		parts[6] != "" && parts[7] != "" && strings.Trim(parts[7], "0123456789") == ""
}

// quote makes s one word of sh, whatever it holds.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
