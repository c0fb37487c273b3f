// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packed packs a program with boxer pack, as from a directory, and unpacks the zip.
// It returns /var/task and the command that was printed.
func (w *world) packed(t *testing.T, from string, args ...string) (string, []string) {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), quick)
	defer cancel()
	cmd := w.command(ctx, append([]string{"pack", "--json", "-o", filepath.Join(dir, "app.zip")}, args...)...)
	cmd.Dir = from
	r := finish(t, ctx, cmd, args)
	var said struct{ Command []string }
	if err := json.Unmarshal([]byte(r.stdout), &said); r.code != 0 || err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	task, err := os.MkdirTemp(filepath.Dir(w.state), "packed")
	if err == nil {
		err = os.Chmod(task, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("unzip", "-q", filepath.Join(dir, "app.zip"), "-d", task).CombinedOutput(); err != nil {
		t.Fatalf("unzip: %v: %s", err, out)
	}
	return task, said.Command
}

// TestPackedPrograms: nginx, redis-server and python3 of this machine serve from the
// strict sandbox with roots that have none of them, an older glibc and musl.
func TestPackedPrograms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.network(t, "packed")
	type program struct {
		task    string
		command []string
	}
	programs := map[string]program{}
	for name, args := range map[string][]string{
		"nginx":  {"--include", "www", "--", "nginx", "-p", "/var/task", "-c", "nginx.conf"},
		"redis":  {"--", "redis-server", "--protected-mode", "no", "--save", "", "--dir", "/tmp"},
		"python": {"--", "./app.py", "8000"},
	} {
		task, command := w.packed(t, "testdata/packed", args...)
		programs[name] = program{task, command}
	}
	var targets []string
	for _, root := range []string{"glibc", "musl"} {
		dir := systemRoot(t, root+"-amd64")
		for _, lacks := range []string{"usr/sbin/nginx", "usr/bin/redis-server", "usr/lib/x86_64-linux-gnu/libssl.so.3"} {
			if found, _ := filepath.Glob(filepath.Join(dir, lacks)); len(found) > 0 {
				t.Errorf("%v are there: it shows nothing", found)
			}
		}
		for name, p := range programs {
			w.function(t, root+"-"+name, append([]string{"--root", dir, "--source-dir", p.task, "--"}, p.command...)...)
			targets = append(targets, root+"-"+name)
		}
	}
	libc, err := exec.Command("getconf", "GNU_LIBC_VERSION").Output()
	if err != nil {
		t.Fatal(err)
	}
	own := strings.TrimSpace(string(libc))
	asks := map[string]string{"nginx": "curl -si http://$0:8080/", "redis": "redis-cli -h $0 eval 'return redis.sha1hex(ARGV[1])' 0 boxer", "python": "curl -sf http://$0:8000/"}
	for _, target := range targets {
		_, name, _ := strings.Cut(target, "-")
		var got string
		eventually(t, quick, target+" answers", func() (bool, string) {
			r := w.run(t, "run", "--", "sh", "-c", asks[name], target)
			got = r.stdout
			return r.code == 0, r.String()
		})
		for _, want := range map[string][]string{
			"nginx":  {"200 OK", "Content-Type: text/html", "served by a packed nginx"},
			"redis":  {"3f21c5d3802dbcb9ddd39d9cca35627e7f582906"},
			"python": {`"libc": "` + own + `"`, `"child": "` + own + `"`, `"system": "42"`, `"exe": "/var/task/usr/bin/python3`, `"peer": "100.80.`, `"ssl": "OpenSSL"`},
		}[name] {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not say %q:\n%s", target, want, got)
			}
		}
	}
}
