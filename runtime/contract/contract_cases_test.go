// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// seen is what both ends of a case noted: pairs of what and its value.
type seen struct {
	Client, Server [][2]any
}

// cases are the classes of testdata/cases.py, in their order there.
func cases(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("testdata/cases.py")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^class ([a-z]\w*)`).FindAllSubmatch(source, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// read takes apart what agent.py prints.
func read(t *testing.T, out string) map[string]seen {
	t.Helper()
	all := map[string]seen{}
	for line := range strings.Lines(out) {
		var one struct {
			Case    string
			Seconds float64
			Seen    seen
		}
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if one.Seconds > 3 {
			t.Logf("%s took %.1f s", one.Case, one.Seconds)
		}
		all[one.Case] = one.Seen
	}
	return all
}

// TestDocumented: docs/contract.md names every test and every case.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	names := cases(t)
	files := []string{"contract_cases_test.go", "figure6_test.go", "gone_test.go", "traps_test.go"}
	for _, path := range files {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllSubmatch(source, -1) {
			names = append(names, string(m[1]))
		}
	}
	for _, name := range names {
		if name != "TestDocumented" && !regexp.MustCompile(`\b`+name+`\b`).Match(text) {
			t.Errorf("docs/contract.md does not name %s", name)
		}
	}
}

// differs tells why a case may differ on a route, if it may.
func differs(name string, r route) string {
	if name == "accept_order" && r.transport == "relay" {
		return "the guest goes on when its own half is there; the far halves arrive as they may"
	}
	return ""
}

// TestContract plays every case of testdata/cases.py on loopback without Boxer
// and over each transport. Both ends must see the same. BOXER_CONTRACT=all adds
// more ways between nodes, and connections of a node with itself.
func TestContract(t *testing.T) {
	w, names := theWorld(t), cases(t)
	out, err := w.program(quick, "python3", append([]string{filepath.Join(w.task, "agent.py"), "self"}, names...)...)
	if err != nil {
		t.Fatal(err)
	}
	bare := read(t, out)
	for _, r := range routes {
		t.Run(r.transport, func(t *testing.T) {
			t.Parallel()
			w.contract(t, r, bare, names, "run", r.host, "7000")
		})
	}
	if os.Getenv("BOXER_CONTRACT") == "" {
		return
	}
	// The same between nodes that could do better, and of a node with itself.
	for _, transport := range []string{"native", "direct", "punch", "relay"} {
		t.Run("only "+transport, func(t *testing.T) {
			t.Parallel()
			w.contract(t, route{transport, "vm", "alpha"}, bare, names, "run", "alpha", "7000")
		})
		for _, kind := range []string{"vm", "function"} {
			t.Run("self over "+transport+" on a "+kind, func(t *testing.T) {
				t.Parallel()
				w.contract(t, route{transport, kind, ""}, bare, names, "self")
			})
		}
	}
}

// contract plays the cases on a route; mode is the agent's.
func (w *world) contract(t *testing.T, r route, bare map[string]seen, names []string, mode ...string) {
	t.Helper()
	out, err := w.guest(2*time.Minute, r, append(append([]string{"python3", "/var/task/agent.py"}, mode...), names...)...)
	if err != nil {
		t.Error(err)
	}
	over := read(t, out)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if why := differs(name, r); why != "" {
				t.Skip(why)
			}
			compare(t, bare[name], over[name])
		})
	}
}

func compare(t *testing.T, bare, over seen) {
	t.Helper()
	for _, end := range []struct {
		name       string
		bare, over [][2]any
	}{{"client", bare.Client, over.Client}, {"server", bare.Server, over.Server}} {
		if reflect.DeepEqual(end.bare, end.over) {
			continue
		}
		for i := range max(len(end.bare), len(end.over)) {
			var a, b any
			if i < len(end.bare) {
				a = end.bare[i]
			}
			if i < len(end.over) {
				b = end.over[i]
			}
			if !reflect.DeepEqual(a, b) {
				t.Errorf("%s: %v, without Boxer: %v", end.name, b, a)
			}
		}
	}
}
