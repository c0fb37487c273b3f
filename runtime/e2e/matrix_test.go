// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// The matrix of docs/nat.md: how a node in a row's place reaches one in a
// column's.
const matrixPage = "../../docs/nat.md"

var places = []string{"vm", "cone", "masquerade", "restricted", "restricted-rst", "symmetric", "symmetric-rst", "forgetful", "shared", "shared-hairpin"}

var matrix = map[string][]string{
	"vm":             {"native", "punch", "punch", "punch", "punch", "punch", "punch", "punch", "punch", "punch"},
	"cone":           {"direct", "punch", "punch", "punch", "punch", "punch", "punch", "punch", "punch", "punch"},
	"masquerade":     {"direct", "punch", "punch", "punch", "punch", "relay", "relay", "punch", "punch", "punch"},
	"restricted":     {"direct", "punch", "punch", "punch", "punch", "relay", "relay", "punch", "punch", "punch"},
	"restricted-rst": {"direct", "punch", "punch", "punch", "relay", "relay", "relay", "punch", "punch", "punch"},
	"symmetric":      {"direct", "punch", "relay", "relay", "relay", "relay", "relay", "relay", "relay", "relay"},
	"symmetric-rst":  {"direct", "punch", "relay", "relay", "relay", "relay", "relay", "relay", "relay", "relay"},
	"forgetful":      {"direct", "punch", "punch", "punch", "punch", "relay", "relay", "punch", "punch", "punch"},
	"shared":         {"direct", "punch", "punch", "punch", "punch", "relay", "relay", "punch", "relay", "punch"},
	"shared-hairpin": {"direct", "punch", "punch", "punch", "punch", "relay", "relay", "punch", "punch", "punch"},
}

// slowest is what a connection may take, also the first one of a pair.
const slowest = 2 * time.Second

// TestNATMatrix: nodes behind NATs of every kind reach each other, over the
// transport that the page promises.
func TestNATMatrix(t *testing.T) {
	t.Parallel()
	checkMatrixPage(t)
	w := newWorld(t)
	task := w.task(t)
	w.network(t, "matrix")
	run := func(place, role string) []string {
		args := []string{"run", "--name", role + "-" + place, "--source-dir", task}
		if place == "vm" {
			return append(args, "--kind", "vm")
		}
		return append(args, "--kind", "function", "--nat", place)
	}
	slot := func(place, role string) string {
		if place == "vm" {
			return role + "-vm"
		}
		return role + "-" + place + "-0"
	}
	var all sync.WaitGroup
	var targets []string
	var ids sync.Map // of the rows' nodes
	for _, place := range places {
		targets = append(targets, slot(place, "to"))
		all.Go(func() {
			w.must(t, append(run(place, "to"), "--detach", "--", "python3", "/var/task/matrix.py", "serve")...)
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for _, place := range places {
		all.Go(func() {
			args := append(run(place, "from"), "--", "python3", "/var/task/matrix.py", "dial")
			checkRow(t, place, targets, w.run(t, append(args, targets...)...), &ids)
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	eventually(t, 15*time.Second, "all connections are counted", func() (bool, string) {
		missing := w.cells(t, &ids, slot)
		return len(missing) == 0, strings.Join(missing, "; ")
	})
}

// cells compares what was used in each cell with what is promised, and names those
// that are not counted yet.
func (w *world) cells(t *testing.T, ids *sync.Map, slot func(place, role string) string) (missing []string) {
	used := map[[2]string][]path{}
	for _, p := range w.paths(t) {
		used[[2]string{p.From, p.To}] = append(used[[2]string{p.From, p.To}], p)
	}
	for _, from := range places {
		id, _ := ids.Load(from)
		for i, to := range places {
			cell, want := used[[2]string{fmt.Sprintf("node-%d", id), slot(to, "to")}], matrix[from][i]
			switch {
			case len(cell) == 0 || cell[0].Transport == want && cell[0].Connections < 3:
				missing = append(missing, from+" to "+to)
			case len(cell) > 1 || cell[0].Transport != want:
				t.Fatalf("%s to %s over %+v, want %s only", from, to, cell, want)
			}
		}
	}
	return missing
}

func checkRow(t *testing.T, place string, targets []string, r result, ids *sync.Map) {
	if r.code != 0 || strings.Count(r.stdout, "\n") != len(targets) {
		t.Error(r)
		return
	}
	for line := range strings.Lines(r.stdout) {
		var cell struct {
			ID         uint32
			To, Error  string
			Cold, Warm float64
		}
		if err := json.Unmarshal([]byte(line), &cell); err != nil {
			t.Errorf("%s: %v: %s", place, err, line)
			continue
		}
		ids.Store(place, cell.ID)
		t.Logf("%-14s %-20s cold %6.1f ms, warm %6.1f ms", place, cell.To, cell.Cold*1e3, cell.Warm*1e3)
		if cell.Error != "" || max(cell.Cold, cell.Warm) > slowest.Seconds() {
			t.Errorf("%s to %s: %q, %.3f and %.3f s", place, cell.To, cell.Error, cell.Cold, cell.Warm)
		}
	}
}

// checkMatrixPage compares the page's table with the one that is tested; with
// -update it writes it.
func checkMatrixPage(t *testing.T) {
	t.Helper()
	var b strings.Builder
	b.WriteString("| from \\ to | " + strings.Join(places, " | ") + " |\n|---|" + strings.Repeat("---|", len(places)) + "\n")
	for _, from := range places {
		fmt.Fprintf(&b, "| **%s** | %s |\n", from, strings.Join(matrix[from], " | "))
	}
	page, err := os.ReadFile(matrixPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- matrix: TestNATMatrix -->\n", "<!-- end of matrix -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", matrixPage)
	}
	if table == b.String() {
		return
	}
	if !*update {
		t.Fatalf("%s has another table than what is tested (-update writes it)", matrixPage)
	}
	if err := os.WriteFile(matrixPage, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
