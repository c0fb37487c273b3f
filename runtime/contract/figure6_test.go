// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"
	"time"
)

// connections of TestFigure6: BOXER_FIGURE6=10000 makes it the full number.
func connections(t *testing.T) int {
	t.Helper()
	text := os.Getenv("BOXER_FIGURE6")
	if text == "" {
		return 2000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 8 {
		t.Fatalf("BOXER_FIGURE6=%q: want a number of connections, 8 or more", text)
	}
	return n
}

// TestFigure6 is the configuration of the paper's Figure 6: one listener that
// two blocking processes share, another one on the same address that a third
// process uses through epoll. Each connection is delivered once, none hangs.
func TestFigure6(t *testing.T) {
	w, total := theWorld(t), connections(t)
	servers := map[string]string{"alpha": "figure6", "lambda-0": "figure6f-0"}
	server := []string{"--detach", "--source-dir", w.task, "--", "python3", "/var/task/figure6_server.py", "9006"}
	w.must(t, append([]string{"run", "--kind", "vm", "--name", "figure6"}, server...)...)
	w.must(t, append([]string{"run", "--kind", "function", "--name", "figure6f"}, server...)...)
	t.Cleanup(func() {
		w.must(t, "stop", "figure6")
		w.must(t, "stop", "figure6f")
	})
	for _, r := range routes {
		r.host = servers[r.host]
		t.Run(r.transport, func(t *testing.T) {
			t.Parallel()
			w.figure6(t, r, total)
		})
	}
}

func (w *world) figure6(t *testing.T, r route, total int) {
	t.Helper()
	const clients = 8
	out, err := w.guest(5*time.Minute, r, "python3", "/var/task/figure6_client.py", r.host, "9006", strconv.Itoa(clients), strconv.Itoa(total))
	if err != nil {
		t.Fatal(err)
	}
	var seen struct {
		By               map[string]int
		Failed           int
		Failures         []string
		Served, Distinct int
		Seconds          float64
	}
	if err := json.Unmarshal([]byte(out), &seen); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%d connections in %.1f s: %v", total, seen.Seconds, seen.By)
	if seen.Failed > 0 {
		t.Errorf("%d of %d failed, the first: %q", seen.Failed, total, seen.Failures)
	}
	if seen.Served != total || seen.Distinct != total {
		t.Errorf("%d were accepted, %d different ones, want %d", seen.Served, seen.Distinct, total)
	}
	for _, name := range []string{"P1", "P2", "P3"} {
		if seen.By[name] == 0 {
			t.Errorf("process %s was given none", name)
		}
	}
}
