// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/browser"
)

// TestDashboard watches a network come and go in a real browser.
func TestDashboard(t *testing.T) {
	w := newWorld(t)
	w.network(t, "shop")
	if r := w.run(t, "dashboard", "--address", "0.0.0.0:0"); r.code != 125 || !strings.Contains(r.stderr, "loopback only") {
		t.Errorf("an address that others reach: %s", r)
	}
	b := w.begin(t, "dashboard")
	b.says(t, "/\n")
	p := openPage(t, strings.TrimSpace(b.stdout.String()))
	p.until("the page is live", "#link", func(s string) bool { return s == "live" })

	const line = `<h1 id="owned">hello</h1>`
	w.vm(t, "store", "--", "redis-server", "--protected-mode", "no", "--save", "")
	w.function(t, "logic", "--", "sh", "-c", "echo '"+line+"'; exec python3 -u -m http.server 8080")
	p.until("a vm node appears", "#service-store", contains("1 of 1"))
	p.until("its ports too", "#service-store", contains("6379"))
	logic := fmt.Sprintf("#node-%d", w.nodes(t)["logic-0"].ID)
	p.until("a function node appears", logic, contains("behind NAT"))
	p.until("what a guest says is text", logic+" pre", contains(line))
	if text, err := p.Text(p.ctx, "#owned"); err != nil || text != "" {
		t.Errorf("what a guest says has become part of the page: %q, %v", text, err)
	}
	if r := w.run(t, "run", "--name", "visitor", "--", "redis-cli", "-h", "store", "ping"); r.code != 0 {
		t.Fatal(r)
	}
	p.until("the transport of a pair", "#pairs", contains("relay 1"))
	p.until("a visit is told", "#news", contains("visitor left"))

	kill(t, w.guest(t, "8080"))
	p.until("a node changes its state, or goes", "#news", func(s string) bool {
		return strings.Contains(s, "logic-0 exited") || strings.Contains(s, "logic-0 left")
	})
	w.must(t, "stop", "store")
	p.until("a node vanishes", "#service-store", func(s string) bool { return s == "" })

	kill(t, w.daemon(t))
	p.until("the end of the network is told", "#problem", contains("its daemon has ended"))
	w.vm(t, "again", "--", "sleep", "600") // starts the daemon too
	p.until("it is found again", "#service-again", contains("1 of 1"))
	p.until("and is no problem", "#problem", func(s string) bool { return s == "" })

	if err := b.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := b.end(t, 10*time.Second); code != 0 || b.stderr.String() != "" {
		t.Errorf("interrupted: exit %d, stderr %q", code, b.stderr.String())
	}
	p.until("the page says so", "#link", contains("still running?"))
}

// watched is a page in a browser.
type watched struct {
	*browser.Browser
	t   *testing.T
	ctx context.Context
}

func openPage(t *testing.T, url string) *watched {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	b := browser.StartFor(ctx, t)
	if err := b.Open(ctx, url); err != nil {
		t.Fatal(err)
	}
	return &watched{b, t, ctx}
}

func contains(word string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, word) }
}

// until waits for what a selector finds first to satisfy ok.
func (p *watched) until(what, selector string, ok func(string) bool) {
	p.t.Helper()
	eventually(p.t, quick, what, func() (bool, string) {
		text, err := p.Text(p.ctx, selector)
		if err != nil {
			p.t.Fatal(err)
		}
		return ok(text), selector + ": " + text
	})
}

// TestDashboardPicture writes the picture of the documentation (make screenshot).
func TestDashboardPicture(t *testing.T) {
	path := os.Getenv("BOXER_SCREENSHOT")
	if path == "" {
		t.Skip("BOXER_SCREENSHOT is not set")
	}
	w := newWorld(t)
	w.network(t, "shop")
	quickstart := func(dir string) string {
		dir, err := filepath.Abs(filepath.Join("../../examples/quickstart", dir))
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	w.vm(t, "store", "--", "redis-server", "--protected-mode", "no", "--save", "")
	w.function(t, "logic", "--count", "3", "--source-dir", quickstart("app"), "--", "python3", "-u", "/var/task/app.py")
	w.vm(t, "front", "--source-dir", quickstart("front"), "--", "nginx", "-c", "/var/task/nginx.conf")
	w.must(t, "run", "--kind", "vm", "--name", "report", "--restart", "always", "--detach", "--", "sh", "-c",
		"echo keys in the store: $(redis-cli -h store dbsize); sleep 20; redis-cli -h nowhere")
	b := w.begin(t, "dashboard")
	b.says(t, "/\n")
	p := openPage(t, strings.TrimSpace(b.stdout.String()))
	for range 12 {
		w.must(t, "run", "--name", "curl", "--", "curl", "-sf", "http://front/")
	}
	w.begin(t, "run", "--name", "psql", "--service", "psql", "--wait-for", "orders=1", "--", "psql", "-h", "orders")
	p.until("a client waits", "#service-psql", contains("0 of 1"))
	p.until("the relayed connections are counted", "#pairs", contains("relay"))
	if err := p.Resize(p.ctx, 1440, 1260, 1.25); err != nil {
		t.Fatal(err)
	}
	data, err := p.Screenshot(p.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
