// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// scrape gets the metrics that are served at a socket or an address.
func scrape(t *testing.T, network, at string) string {
	t.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, at)
		},
	}}
	resp, err := client.Get("http://boxer/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	return string(body)
}

// metricLine is a line of the text format without comments.
var metricLine = regexp.MustCompile(`^[a-z_]+(\{([a-zA-Z_]+="[^"\\]*",? ?)+\})? [0-9.e+-]+$`)

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	w.start(config.Node{Kind: config.KindVM, Slot: "store", Argv: []string{"python3", "-c", server, "18105"}})
	w.member("store", func(m cluster.Member) bool { return len(m.Listeners) > 0 })
	const where = `echo $BOXER_DIR; exec sleep 60`
	shy := w.start(config.Node{Kind: config.KindFunction, Slot: "shy", Argv: []string{"sh", "-c", where}})
	asked := w.start(config.Node{Kind: config.KindFunction, Slot: "asked", Metrics: "unix:" + w.path("asked.sock"), Argv: []string{"sh", "-c", where}})
	for _, slot := range []string{"shy", "asked"} { // who joins later is not counted
		w.member(slot, func(cluster.Member) bool { return true })
	}
	s := w.start(config.Node{Kind: config.KindClient, Slot: "laptop", Argv: []string{"sh", "-c", "python3 -c '" + fetch + "' http://store:18105/x; " + where}})
	dir := func(s *supervisor) (dir string) {
		w.eventually("the guest names its directory", func() bool {
			lines := strings.Split(s.output(), "\n")
			dir = lines[len(lines)-1]
			return strings.HasPrefix(dir, "/")
		})
		return dir
	}
	socket := filepath.Join(dir(s), "metrics.sock")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want a socket for the owner alone", info, err)
	}
	text := scrape(t, "unix", socket)
	for line := range strings.Lines(text) {
		if !metricLine.MatchString(strings.TrimSuffix(line, "\n")) && !strings.HasPrefix(line, "#") {
			t.Errorf("not in the format: %q", line)
		}
	}
	for _, want := range []string{
		`boxer_connections_total{to="store",transport="relay"} 1`, `boxer_connect_setup_seconds_count{transport="relay"} 1`,
		`boxer_connect_setup_seconds_bucket{transport="relay",le="+Inf"} 1`, `slot="laptop",kind="client"`,
		"boxer_members 5\n", "boxer_seed_connected 1\n", "boxer_relay_pairs 0\n", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if _, err := os.Stat(filepath.Join(dir(shy), "metrics.sock")); err == nil {
		t.Error("a function serves metrics although nobody asked for them")
	}
	dir(asked)
	if text := scrape(t, "unix", w.path("asked.sock")); !strings.Contains(text, `slot="asked"`) {
		t.Errorf("metrics of a function: %s", text)
	}
}
