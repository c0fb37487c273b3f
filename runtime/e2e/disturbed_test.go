// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestNATDisturbed: when a NAT forgets, or another one takes its place, new
// connections are made again.
func TestNATDisturbed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := filepath.Join(filepath.Dir(w.state), "task")
	if err := os.CopyFS(task, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	w.network(t, "disturbed")
	w.function(t, "to", "--nat", "restricted", "--source-dir", task, "--", "python3", "/var/task/matrix.py", "serve")
	w.function(t, "from", "--nat", "restricted", "--source-dir", task, "--", "python3", "/var/task/matrix.py", "follow", "to-0")
	said := func() []string { return strings.Split(strings.TrimSpace(w.must(t, "logs", "from-0")), "\n") }
	served := func(after, more int) {
		t.Helper()
		eventually(t, 20*time.Second, "connections are made", func() (bool, string) {
			lines := said()
			ok := 0
			for _, line := range lines[min(after, len(lines)):] {
				if strings.HasSuffix(line, ": ok") {
					ok++
				}
			}
			return ok >= more, strings.Join(lines[max(0, len(lines)-5):], "; ")
		})
	}
	served(0, 10)
	client := w.natClient(t)
	for _, node := range []string{"to", "from"} {
		for _, what := range []string{localcloud.NATFlush, localcloud.NATReplace} {
			before := len(said())
			began := time.Now()
			if err := client.DisturbNAT(t.Context(), node, node+"-0", what); err != nil {
				t.Fatal(err)
			}
			served(before+1, 10)
			var slow []string
			for _, line := range said()[before:] {
				var ms int
				// What is lost is found by the peer's dialling, long before TCP gives up.
				if fmt.Sscanf(line, "%d ms", &ms); ms > 8000 {
					t.Errorf("%s of %s: a connection took %s", what, node, line)
				}
				if _, err := fmt.Sscanf(line, "%d ms", &ms); err != nil || ms > 100 || !strings.HasSuffix(line, ": ok") {
					slow = append(slow, line)
				}
			}
			t.Logf("%s of %s: ten connections after %v; slow ones: %q", what, node, time.Since(began).Round(10*time.Millisecond), slow)
		}
	}
}
