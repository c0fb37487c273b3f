// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

const seedAddress = "10.77.253.1:7717"

// What the account has for machines to bring in.
var (
	runtimeARN = layerARN("boxer-runtime", "1")
	laterARN   = layerARN("boxer-runtime", "2")
	packageARN = layerARN("boxer-shop-web-package", "3")
	packageS3  = "s3://packages/shop/web.zip"
)

// app is the guest: it says who it is and what it finds.
const app = `#!/usr/bin/python3
import http.server, json, os, pwd
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({
            "user": pwd.getpwuid(os.getuid()).pw_name, "file": open("/etc/app/app.conf").read(), "task": sorted(os.listdir("/var/task")),
            "library": os.environ["BOXER_LIB"], "home": os.environ["HOME"],
        }).encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
`

// answer is what the guest says through a port of its machine.
func answer(m *machine, port string) string {
	m.t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return m.s.dial(ctx, network, address)
		}}}
	response, err := client.Get("http://" + m.address + ":" + port)
	if err != nil {
		m.t.Fatalf("port %s: %v", port, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

// TestBootInTrouble: whatever is wrong is said on the console, and once it is not the node
// joins by itself.
func TestBootInTrouble(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	n := newNetwork(t, s)
	n.startSeed(t, s)
	const patience = 8 * time.Second
	m := n.instance(t, s, 2, roleless, packageS3, patience, "")
	// A curl that cannot sign: python3 does.
	m.own("/usr/local/bin/curl", "#!/bin/sh\n[ \"$1\" != --version ] || exec echo curl 7.81.0\nexec /usr/bin/curl \"$@\"\n")
	own := n.fetch(runtimeARN)
	n.cloud.set(m.address, func(i *instance) { i.tags[layer.UpgradeTag] = own.Tag() })
	m.boot()
	arn := runtimeARN
	for _, step := range []struct{ trouble, says string }{
		{roleless, "boxer bootstrap: cannot fetch the layer from " + arn + ": this instance has no role (HTTP 404): give it an instance profile that allows lambda:GetLayerVersion on " + arn},
		{slow, "(tried for 8 s); going on in the background"},
		{refused, "Lambda answers HTTP 403: User: arn:aws:sts::" + account + ":assumed-role/" + roleName + "/i-0 is not authorized to perform: lambda:GetLayerVersion on resource: " + arn +
			": the role of this instance must allow lambda:GetLayerVersion on " + arn},
		{truncated, "the download was truncated after "},
		{wrong, "boxer bootstrap: layer checksum mismatch: " + arn + ": expected SHA-256 "},
		{forbidden, "boxer bootstrap: cannot fetch the package from " + packageS3 + ": the download was refused: curl: (22) The requested URL returned error: 403" +
			": the role of this instance must allow s3:GetObject on " + packageS3},
		{hidden, "ssm:GetParameter"},
	} {
		n.cloud.set(m.address, func(i *instance) { i.trouble = step.trouble })
		if step.trouble == slow {
			m.until(30*time.Second, "slow download", func() bool { return n.cloud.heard(m.address, "download") > 0 })
			n.checkQuiet(m)
			m.says(20*time.Second, "the download is too slow: ")
		}
		m.says(30*time.Second, step.says)
		if step.trouble == refused { // its service goes on trying
			m.run("systemctl", "start", "boxer-upgrade.service")
		}
	}
	// What may be the way out, another layer, is looked for.
	if timer := strings.TrimSpace(m.run("systemctl", "is-active", "boxer-upgrade.timer")); timer != "active" {
		t.Errorf("after a first boot in trouble the timer of upgrades is %s", timer)
	}
	if strings.Contains(m.console.String(), "upgrading") {
		t.Error("an upgrade to the layer that was being installed")
	}
	n.cloud.set(m.address, func(i *instance) { i.trouble = fine })
	n.running(m, "web-2", 40*time.Second, time.Time{})
	if n.cloud.heard(m.address, "download bytes=") == 0 {
		t.Error("no download was resumed")
	}
}

// TestBoot: an instance whose metadata are late joins and runs its guest, follows an
// upgrade as the same node, and after a reboot is the same again.
func TestBoot(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	n := newNetwork(t, s)
	n.startSeed(t, s)
	began := time.Now()
	m := n.instance(t, s, 1, silent, packageARN, time.Minute, "#!/bin/sh\necho the script of the user: $(ls /opt/boxer 2>&1)\n")
	m.boot()
	m.until(20*time.Second, "question to the metadata", func() bool { return n.cloud.heard(m.address, "PUT /latest/api/token") > 0 })
	n.cloud.set(m.address, func(i *instance) { i.trouble = fine })

	first := n.running(m, "web-1", 30*time.Second, time.Time{})
	t.Logf("runs after %s", time.Since(began).Round(100*time.Millisecond))
	want := `{"user": "boxer", "file": "configured", "task": ["app.py"], "library": "/opt/boxer/lib/libboxer.so", "home": "/tmp"}`
	for _, port := range []string{"80", "8080"} {
		if got := answer(m, port); got != want {
			t.Errorf("port %s: %s, want %s", port, got, want)
		}
	}
	m.says(10*time.Second, "boxer bootstrap: installed; the supervisor runs")
	log := m.run("cat", "/var/log/cloud-init-output.log")
	if !strings.Contains(log, "the script of the user: ls: cannot access '/opt/boxer'") || !strings.Contains(log, "boxer bootstrap: installed") {
		t.Errorf("cloud-init's log: %s", log)
	}

	m.run("sh", "-c", ": >/run/boxer.pace; : >/opt/boxer/wanted") // as on a full disk
	m.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "boxer.service")
	m.says(20*time.Second, `"adopted":true`)
	if again := n.running(m, "web-1", 10*time.Second, time.Time{}); again.ID != first.ID || again.Guest.PID != first.Guest.PID {
		t.Errorf("after the supervisor was killed: %+v, was %+v", again, first)
	}

	later := n.fetch(laterARN)
	n.cloud.set(m.address, func(i *instance) { i.tags[layer.UpgradeTag] = later.Tag() })
	before := time.Now()
	if out := m.run("systemctl", "start", "boxer-upgrade.service"); out != "" { // or by its timer
		t.Errorf("upgrade: %s", out)
	}
	upgraded := n.running(m, "web-1", 20*time.Second, before)
	m.says(time.Second, "boxer bootstrap: upgrading to the layer "+later.URL)
	if got := strings.TrimSpace(m.run("cat", "/opt/boxer/layer.sha256")); got != later.SHA256 {
		t.Errorf("the layer is %s, want %s", got, later.SHA256)
	}
	if next := m.run("systemctl", "list-timers", "--no-pager"); !strings.Contains(next, "boxer-upgrade.timer") {
		t.Errorf("nothing looks for upgrades: %s", next)
	}

	downloads := n.cloud.heard(m.address, "download")
	before = time.Now()
	m.shutDown()
	m.boot()
	rebooted := n.running(m, "web-1", 30*time.Second, before)
	for what, member := range map[string]cluster.Member{"upgrade": upgraded, "reboot": rebooted} {
		if member.ID != first.ID || member.OverlayAddress != first.OverlayAddress || member.LaunchID != first.LaunchID {
			t.Errorf("after the %s: %+v, was %+v", what, member, first)
		}
	}
	if got := answer(m, "8080"); got != want {
		t.Errorf("after the reboot: %s, want %s", got, want)
	}
	if more := n.cloud.heard(m.address, "download") - downloads; more != 0 {
		t.Errorf("%d downloads for a reboot", more)
	}
	n.checkQuiet(m)
	t.Logf("all after %s", time.Since(began).Round(100*time.Millisecond))
}

// checkQuiet looks for what nobody may see.
func (n *network) checkQuiet(m *machine) {
	m.t.Helper()
	for _, what := range []string{"without a token", "credentials sent"} {
		if n.cloud.heard(m.address, what) > 0 {
			m.t.Errorf("%s: %v", what, n.cloud.vms[m.address].asked)
		}
	}
	texts := map[string]string{
		"console": m.console.String(), "logs": m.run("sh", "-c", "cat /var/log/cloud-init* /etc/boxer/* /opt/boxer/bootstrap /etc/systemd/system/boxer*"),
		"journal": m.run("journalctl", "--no-pager"), "arguments": m.run("sh", "-c", "cat /proc/[0-9]*/cmdline"), "environment": m.run("sh", "-c", "cat /proc/[0-9]*/environ"),
		"disk": m.run("grep", "-rlE", "K7MDENG|"+secret, "/etc", "/opt", "/run", "/tmp", "/var/lib/boxer", "/var/lib/cloud", "/var/log"),
	}
	for where, text := range texts {
		for _, hidden := range []string{role.SecretAccessKey, role.SessionToken, secret} {
			if strings.Contains(text, hidden) {
				m.t.Errorf("%s: shows %s", where, hidden)
			}
		}
	}
	if strings.Contains(texts["disk"], "/") {
		m.t.Errorf("credentials are in %s", texts["disk"])
	}
}

// TestBootSeed: a seed starts from user data as well, and remembers whom it admitted when
// its machine has lost its power.
func TestBootSeed(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	n := newNetwork(t, s)
	m := n.machine(t, s, 3, fine, layer.VM{}, "", config.Node{Kind: config.KindSeed, Slot: "seed-0", LaunchToken: "launch-seed-0"})
	var first, again cluster.Member
	for _, found := range []*cluster.Member{&first, &again} {
		m.boot()
		n.observe(t, s, m.address+":7717", 30*time.Second)
		*found = n.running(m, "seed-0", 10*time.Second, time.Time{})
		m.kill()
	}
	if first.ID == 0 || again.ID != first.ID || again.OverlayAddress != first.OverlayAddress {
		t.Errorf("another seed: %+v, was %+v", again, first)
	}
}
