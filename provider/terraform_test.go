// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
)

var update = flag.Bool("update", false, "rewrite testdata/golden")

// terraformPath finds the real terraform, else tofu.
func terraformPath(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("TF_ACC_TERRAFORM_PATH"); path != "" {
		return path
	}
	for _, name := range []string{"terraform", "tofu", "../tools/bin/tofu"} {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("neither terraform nor tofu is installed, and CI requires these tests: run make deps")
	}
	t.Skip("neither terraform nor tofu is installed: run make deps, or set TF_ACC_TERRAFORM_PATH")
	return ""
}

// workspace is a directory with a configuration and a terraform that talks to
// the provider inside this test.
type workspace struct {
	t       *testing.T
	dir     string
	program string
	env     []string
}

// newWorkspace serves a provider and prepares an empty directory.
func newWorkspace(t *testing.T, options ...Option) *workspace {
	t.Helper()
	w := &workspace{t: t, dir: t.TempDir(), program: terraformPath(t)}
	t.Setenv(envPlatform, "") // the provider runs in this process
	t.Setenv(envStateDir, "")
	home := t.TempDir() // neither the user's settings nor plug-in caches
	w.env = append(os.Environ(), "TF_REATTACH_PROVIDERS="+serve(t, options...), "HOME="+home,
		"CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_CLI_CONFIG_FILE=/dev/null")
	return w
}

// serve runs the provider in this process until the test ends, and returns what
// TF_REATTACH_PROVIDERS needs to find it.
func serve(t *testing.T, options ...Option) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	configs, closed := make(chan *plugin.ReattachConfig, 1), make(chan struct{})
	const address = "registry.terraform.io/boxer-overlay/boxer"
	failed := make(chan error, 1)
	go func() {
		failed <- tf6server.Serve(address, providerserver.NewProtocol6(New("test", options...)()),
			tf6server.WithDebug(ctx, configs, closed), tf6server.WithGoPluginLogger(hclog.NewNullLogger()),
			tf6server.WithoutLogStderrOverride(), tf6server.WithLoggingSink(t))
	}()
	t.Cleanup(func() {
		stop()
		<-closed
	})
	select {
	case config := <-configs:
		entry := map[string]any{
			"Protocol": string(config.Protocol), "ProtocolVersion": config.ProtocolVersion, "Pid": os.Getpid(), "Test": true,
			"Addr": map[string]string{"Network": config.Addr.Network(), "String": config.Addr.String()},
		}
		text, err := json.Marshal(map[string]any{address: entry, strings.Replace(address, "terraform.io", "opentofu.org", 1): entry})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	case err := <-failed:
		t.Fatalf("serve the provider: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the provider's server did not start")
	}
	return ""
}

const requiredProviders = `terraform {
  required_providers {
    boxer = { source = "boxer-overlay/boxer" }
  }
}
`

// configure writes the configuration, with required_providers before it.
func (w *workspace) configure(config string) {
	w.t.Helper()
	w.write("main.tf", requiredProviders+config)
}

func (w *workspace) write(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workspace) command(args ...string) *exec.Cmd {
	cmd := exec.Command(w.program, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	return cmd
}

// run returns terraform's output on both streams and its exit status.
func (w *workspace) run(args ...string) (string, int) {
	w.t.Helper()
	if _, err := os.Stat(filepath.Join(w.dir, ".terraform")); err != nil && args[0] != "init" {
		if out, status := w.run("init", "-no-color", "-input=false"); status != 0 {
			w.t.Fatalf("terraform init: %s", out)
		}
		_ = os.Mkdir(filepath.Join(w.dir, ".terraform"), 0o755) // init makes none when all providers are reattached
	}
	out, err := w.command(args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("terraform %s: %v", args[0], err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// must runs terraform and fails the test if terraform fails.
func (w *workspace) must(args ...string) string {
	w.t.Helper()
	out, status := w.run(args...)
	if status != 0 {
		w.t.Fatalf("terraform %s ended with status %d:\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

func (w *workspace) apply() {
	w.t.Helper()
	w.must("apply", "-auto-approve", "-no-color", "-input=false")
}

func (w *workspace) destroy() {
	w.t.Helper()
	w.must("destroy", "-auto-approve", "-no-color", "-input=false")
}

// emptyPlan fails the test if a plan proposes anything.
func (w *workspace) emptyPlan() {
	w.t.Helper()
	if out, status := w.run("plan", "-detailed-exitcode", "-no-color", "-input=false"); status != 0 {
		w.t.Fatalf("the plan is not empty (status %d):\n%s", status, out)
	}
}

// planned returns the actions of a plan by address, such as "delete,create".
func (w *workspace) planned(args ...string) map[string]string {
	w.t.Helper()
	w.must(append([]string{"plan", "-out=plan.bin", "-no-color", "-input=false"}, args...)...)
	return w.actions()
}

// actions of the plan in plan.bin.
func (w *workspace) actions() map[string]string {
	w.t.Helper()
	var plan struct {
		ResourceChanges []struct {
			Address string
			Change  struct{ Actions []string }
		} `json:"resource_changes"`
	}
	if err := json.Unmarshal([]byte(w.must("show", "-json", "plan.bin")), &plan); err != nil {
		w.t.Fatal(err)
	}
	actions := map[string]string{}
	for _, change := range plan.ResourceChanges {
		actions[change.Address] = strings.Join(change.Change.Actions, ",")
	}
	return actions
}

// values returns the attributes of a resource in the state; nil if it is not there.
func (w *workspace) values(address string) map[string]any {
	w.t.Helper()
	return w.state()[address]
}

// state returns the attributes of all resources in the state, by address.
func (w *workspace) state() map[string]map[string]any {
	w.t.Helper()
	var state struct {
		Values struct {
			Root struct {
				Resources []struct {
					Address string
					Values  map[string]any
				}
			} `json:"root_module"`
		}
	}
	if err := json.Unmarshal([]byte(w.must("show", "-json")), &state); err != nil {
		w.t.Fatal(err)
	}
	found := map[string]map[string]any{}
	for _, r := range state.Values.Root.Resources {
		found[r.Address] = r.Values
	}
	return found
}

type diagnostic struct {
	Severity, Summary, Detail, Address string
	Snippet                            *struct {
		Context, Code string
	}
}

func (d diagnostic) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", d.Severity, d.Summary)
	if d.Address != "" {
		fmt.Fprintf(&b, "with %s\n", d.Address)
	}
	if d.Snippet != nil {
		fmt.Fprintf(&b, "at: %s\n", strings.TrimSpace(d.Snippet.Code))
	}
	return b.String() + "\n" + d.Detail + "\n"
}

// errors runs terraform with -json and returns its diagnostics, unwrapped.
func (w *workspace) errors(args ...string) []diagnostic {
	w.t.Helper()
	out, status := w.run(append(args, "-json")...)
	if status == 0 {
		w.t.Fatalf("terraform %s succeeded:\n%s", args[0], out)
	}
	return diagnosticsIn(out)
}

// block is the beginning of what a configuration declares, with its label.
var block = regexp.MustCompile(`((?:resource|data|ephemeral) "\w+"|output) "(\w+)"`)

// refuses plans configurations of one block each, all at once, and compares what
// is said of each with its golden. What terraform refuses already as it validates
// keeps it from planning the others, so these come next.
func (w *workspace) refuses(golden string, cases map[string]string) {
	w.t.Helper()
	names := slices.Sorted(maps.Keys(cases))
	pending := map[string]bool{}
	for _, name := range names {
		pending[name] = true
	}
	for found := map[string][]diagnostic{}; len(pending) > 0; {
		var config strings.Builder
		for i, name := range names {
			if pending[name] {
				config.WriteString(block.ReplaceAllString(cases[name], fmt.Sprintf(`${1} "case%d"`, i)) + "\n")
			}
		}
		// The provider runs in this process, not where terraform does.
		w.configure(strings.ReplaceAll(config.String(), "\"./", "\""+w.dir+"/"))
		out, _ := w.run("plan", "-input=false", "-json")
		clear(found)
		for _, d := range diagnosticsIn(out) {
			if i, ok := d.relabel(names, cases); ok {
				found[names[i]] = append(found[names[i]], d)
			} else {
				w.t.Fatalf("this is said of none of the cases:\n%s", d)
			}
		}
		if len(found) == 0 {
			w.t.Fatalf("not refused: %v\n%s", slices.Sorted(maps.Keys(pending)), out)
		}
		for name, said := range found {
			delete(pending, name)
			slices.SortFunc(said, func(a, b diagnostic) int { return strings.Compare(a.String(), b.String()) })
			w.golden(golden+"/"+name, said, nil)
		}
	}
}

var labelled = regexp.MustCompile(`\bcase(\d+)\b`)

// relabel gives a diagnostic of refuses the label that the case has, and says
// which one that is.
func (d *diagnostic) relabel(names []string, cases map[string]string) (number int, ok bool) {
	texts := []*string{&d.Address}
	if d.Snippet != nil {
		texts = append(texts, &d.Snippet.Context, &d.Snippet.Code)
	}
	for _, text := range texts {
		if match := labelled.FindStringSubmatch(*text); match != nil {
			number, _ = strconv.Atoi(match[1])
			*text = strings.ReplaceAll(*text, match[0], block.FindStringSubmatch(cases[names[number]])[2])
			ok = true
		}
	}
	return number, ok
}

func diagnosticsIn(out string) []diagnostic {
	var found []diagnostic
	var whole struct{ Diagnostics []diagnostic } // validate prints one document
	if json.Unmarshal([]byte(out), &whole) == nil && len(whole.Diagnostics) > 0 {
		return whole.Diagnostics
	}
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		var line struct{ Diagnostic *diagnostic }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Diagnostic != nil {
			found = append(found, *line.Diagnostic)
		}
	}
	return found
}

// Parts of messages that differ from run to run.
var variable = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`), "TIME"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "SHA256"},
	{regexp.MustCompile(`\.(new|probe)-\d+`), ".$1-N"},
	{regexp.MustCompile(`\bpid \d+`), "pid N"},
	{regexp.MustCompile(`\bnode \d+ \(`), "node N ("},
	{regexp.MustCompile(`not running after \d+s`), "not running after TIME"},
	{regexp.MustCompile(`(amd64|arm64)`), "ARCH"},
	{regexp.MustCompile(`registry\.(terraform\.io|opentofu\.org)`), "REGISTRY"},
}

// golden compares diagnostics with testdata/golden/<name>.txt. The places in
// replace (path -> word) are made the same everywhere.
func (w *workspace) golden(name string, found []diagnostic, replace map[string]string) {
	w.t.Helper()
	// Terraform works on several resources at once.
	slices.SortStableFunc(found, func(a, b diagnostic) int { return strings.Compare(a.Address, b.Address) })
	var text bytes.Buffer
	for i, d := range found {
		if i > 0 {
			text.WriteString("---\n")
		}
		text.WriteString(d.String())
	}
	got := strings.ReplaceAll(text.String(), w.dir, "DIR")
	for place, word := range replace {
		got = strings.ReplaceAll(got, place, word)
	}
	for _, v := range variable {
		got = v.pattern.ReplaceAllString(got, v.name)
	}
	path := filepath.Join("testdata", "golden", strings.ReplaceAll(name, " ", "-")+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatalf("%v: run the test with -update; got\n%s", err, got)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		w.t.Errorf("%s: message differs (-want +got), -update rewrites it:\n%s", path, diff)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
