// SPDX-License-Identifier: Apache-2.0

package boxer

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDepsCheck: what building needs and this machine lacks is named with its
// remedy, and nothing else is.
func TestDepsCheck(t *testing.T) {
	for name, c := range map[string]struct {
		purpose string
		without string   // a program that the PATH lacks
		env     []string // besides PATH and HOME
		goMod   string   // instead of the module's own
		want    []string // nothing: it succeeds and is silent
	}{
		"all there":     {purpose: "build"},
		"no C compiler": {purpose: "build", without: "gcc", want: []string{"gcc is missing: needed to build the process monitor", "run 'make deps', or as root: apt-get install --no-install-recommends gcc"}},
		"Go too old": {purpose: "build", env: []string{"GOTOOLCHAIN=local"}, goMod: "module m\n\ngo 99.0\n",
			want: []string{"(go1.", "cannot build Boxer, which needs Go 99.0 or newer", "https://go.dev/dl"}},
		"no network": {purpose: "build", env: []string{"GOMODCACHE=" + t.TempDir(), "GOPROXY=http://127.0.0.1:1", "GOFLAGS=-modcacherw"},
			want: []string{"connection refused", "could not be fetched: this needs the network, or a GOPROXY that this machine reaches"}},
		"programs in sbin": {purpose: "demo"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "tools/deps.sh", "--check", c.purpose)
			if c.goMod != "" {
				cmd.Dir = t.TempDir()
				copyScript(t, cmd.Dir)
				if err := os.WriteFile(filepath.Join(cmd.Dir, "go.mod"), []byte(c.goMod), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd.Env = slices.Concat(c.env, []string{"PATH=" + binWithout(t, c.without), "HOME=" + os.Getenv("HOME")})
			out, err := cmd.CombinedOutput()
			if (err == nil) != (len(c.want) == 0) || len(c.want) == 0 && len(out) > 0 {
				t.Errorf("%v: %s", err, out)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
			if strings.Count(string(out), "\n") > 5 {
				t.Errorf("too many words:\n%s", out)
			}
		})
	}
}

func copyScript(t *testing.T, dir string) {
	t.Helper()
	script, err := os.ReadFile("tools/deps.sh")
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "tools"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "tools", "deps.sh"), script, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// binWithout is an ordinary user's PATH, without the program of that name.
func binWithout(t *testing.T, name string) string {
	t.Helper()
	const ordinary = "/usr/local/bin:/usr/bin:/bin"
	if name == "" {
		return ordinary
	}
	dir := t.TempDir()
	for _, from := range filepath.SplitList(ordinary) {
		entries, err := os.ReadDir(from)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.Name() != name {
				_ = os.Symlink(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())) // the first one counts
			}
		}
	}
	return dir
}
