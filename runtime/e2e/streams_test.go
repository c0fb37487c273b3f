// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"testing"
)

var streamLine = regexp.MustCompile(`^processes: ([0-9]+) failures: 0 \[\]\n$`)

// TestStreams: many connections at once and large ones, closed one half after
// the other, to servers whose processes share a listener or have one each.
func TestStreams(t *testing.T) {
	w := newWorld(t)
	task := w.task(t)
	w.network(t, "streams")
	for _, mode := range []string{"shared", "reuseport"} {
		w.vm(t, "vm-"+mode, "--source-dir", task, "--", "python3", "/var/task/stream_server.py", "9000", mode)
		w.function(t, "fn-"+mode, "--source-dir", task, "--", "python3", "/var/task/stream_server.py", "9000", mode)
	}
	for _, kind := range []string{"vm", "function", "client"} {
		for _, server := range []string{"vm-shared", "fn-shared", "vm-reuseport", "fn-reuseport"} {
			t.Run(kind+" to "+server, func(t *testing.T) {
				w.stream(t, task, kind, server, 300, 20_000, 100)
				w.stream(t, task, kind, server, 2, 20_000_000, 2)
			})
		}
	}
}

func (w *world) stream(t *testing.T, task, kind, server string, connections, size, atOnce int) {
	t.Helper()
	args := []string{"run", "--kind", kind, "--source-dir", task}
	if kind == "function" && server == "fn-reuseport" {
		args = append(args, "--transports", "punch") // and no relay that helps
	}
	args = append(args, "--", "python3", "/var/task/stream_client.py")
	if kind == "client" {
		args = []string{"run", "--", "python3", filepath.Join(task, "stream_client.py")}
	}
	r := w.run(t, append(args, server, "9000", fmt.Sprint(connections), fmt.Sprint(size), fmt.Sprint(atOnce))...)
	m := streamLine.FindStringSubmatch(r.stdout)
	if r.code != 0 || m == nil {
		t.Errorf("%d connections of %d bytes: %s", connections, size, r)
		return
	}
	if connections > 100 && m[1] != "4" {
		t.Errorf("only %s of the server's four processes were given connections", m[1])
	}
	t.Logf("%d x %d bytes: %v", connections, size, r.took.Round(1e6))
}
