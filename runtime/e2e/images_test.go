// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// recipe is what a Dockerfile says, but for what it runs.
type recipe struct {
	copies     [][2]string // from the context, to the image
	env        map[string]string
	workdir    string
	entrypoint []string
}

var baseImage = regexp.MustCompile(`^[a-z0-9]+:[0-9][a-z0-9.-]*$`)

// readRecipe reads a Dockerfile, and knows only what the recipes here may use.
func readRecipe(text string) (r recipe, err error) {
	r.env = map[string]string{}
	bases := 0
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case bases == 0 && word != "FROM":
			return r, fmt.Errorf("%q before FROM", line)
		case word == "FROM":
			if bases++; bases > 1 || !baseImage.MatchString(rest) {
				return r, fmt.Errorf("%q: want one base, with a version", line)
			}
		case word == "RUN":
			if strings.Contains(rest, "install") && !strings.Contains(rest, "&&") {
				return r, fmt.Errorf("%q: leaves its cache in the image", line)
			}
		case word == "COPY":
			fields := strings.Fields(rest)
			if len(fields) != 2 || strings.HasPrefix(rest, "--") {
				return r, fmt.Errorf("%q: want COPY FROM TO", line)
			}
			r.copies = append(r.copies, [2]string{fields[0], fields[1]})
		case word == "ENV":
			name, value, ok := strings.Cut(rest, "=")
			if !ok || strings.Contains(value, " ") {
				return r, fmt.Errorf("%q: want ENV NAME=VALUE", line)
			}
			r.env[name] = value
		case word == "WORKDIR":
			r.workdir = rest
		case word == "ENTRYPOINT":
			if err := json.Unmarshal([]byte(rest), &r.entrypoint); err != nil {
				return r, fmt.Errorf("%q: want a list, or a shell is in between: %w", line, err)
			}
		default:
			return r, fmt.Errorf("%q: not known here", line)
		}
	}
	return r, nil
}

// TestImages does what the recipes of base images say to roots of the same libc, and
// runs those as functions.
func TestImages(t *testing.T) {
	t.Parallel()
	l := newLambdas(t, "images")
	l.vm(t, "vm", "--", "python3", "-c", `import socket
s = socket.create_server(('', 9000))
while True:
    c, a = s.accept()
    c.sendall(b'the vm\n')
    c.close()`)
	vm := l.nodes(t)["vm"].Overlay
	context := filepath.Join(filepath.Dir(l.state), "context")
	unzip(t, filepath.Join(l.bin, "boxer-layer-amd64.zip"), filepath.Join(context, "opt"))
	recipes, err := filepath.Glob("../../layer/images/*.Dockerfile")
	if err != nil || len(recipes) != 3 {
		t.Fatal(recipes, err)
	}
	for _, path := range recipes {
		name := strings.TrimSuffix(filepath.Base(path), ".Dockerfile")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := readRecipe(string(text))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if len(r.entrypoint) != 1 || r.workdir != "/var/task" {
			t.Fatalf("%s: %+v", path, r)
		}
		system, peer := "glibc-amd64", []string{"python3", "-c", `import socket
c = socket.create_connection(('vm', 9000), 10)
print(c.getpeername()[0], 'says:', c.makefile().read(), end='')`}
		if name == "alpine" {
			system, peer = "musl-amd64", []string{"./peer", "get", "vm", "9000"}
		}
		root := filepath.Join(filepath.Dir(l.state), name)
		if out, err := exec.Command("cp", "-al", systemRoot(t, system), root).CombinedOutput(); err != nil {
			// Another file system: no hard links.
			if more, err := exec.Command("cp", "-a", systemRoot(t, system)+"/.", root).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s%s", err, out, more)
			}
		}
		for _, c := range r.copies {
			if err := copyTree(filepath.Join(context, c[0]), filepath.Join(root, c[1])); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		if err := os.MkdirAll(filepath.Join(root, r.workdir), 0o755); err != nil {
			t.Fatal(err)
		}
		if name == "alpine" { // the image of a node: its program on top
			if err := copyTree(compilePeer(t, "musl-gcc"), filepath.Join(root, r.workdir)); err != nil {
				t.Fatal(err)
			}
		}
		l.create(t, localcloud.FunctionSpec{Name: name, Root: root, Entrypoint: r.entrypoint[0], Environment: r.env})
		l.event(t, name, 0, peer...)
		if i := l.ended(t, name, 1); i.State != localcloud.InvocationSucceeded {
			t.Errorf("%s: %+v", name, i)
		}
		if got, want := l.must(t, "logs", name+"-0"), vm+" says: the vm\n"; got != want {
			t.Errorf("%s: its guest prints %q, want %q", name, got, want)
		}
	}
}

// TestRecipesAreChecked: readRecipe refuses what would not work, or not always.
func TestRecipesAreChecked(t *testing.T) {
	for _, wrong := range []string{
		"RUN true", "FROM debian", "FROM debian:latest", "FROM debian:12\nFROM alpine:3", "FROM debian:12\nENTRYPOINT /opt/bootstrap",
		"FROM debian:12\nADD opt /opt", "FROM debian:12\nCOPY a b c", "FROM debian:12\nRUN apt-get install nginx",
	} {
		if r, err := readRecipe(wrong); err == nil {
			t.Errorf("%q gives %+v", wrong, r)
		}
	}
}

func unzip(t *testing.T, zip, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("unzip", "-q", zip, "-d", dir).CombinedOutput(); err != nil {
		t.Fatalf("unzip: %v: %s", err, out)
	}
}

// copyTree is COPY: what is in from lands in to.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, info.Mode().Perm())
	})
}
