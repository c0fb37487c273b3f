// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// denied makes a world in which nobody can make user namespaces.
func denied(t *testing.T, ordinary bool) *world {
	t.Helper()
	w := newWorld(t)
	if ordinary {
		w.ordinary(t)
	}
	script := filepath.Join(filepath.Dir(w.state), "deny.py")
	copyFile(t, "testdata/deny.py", script, 0o644)
	w.prefix = []string{"/usr/bin/env", "python3", script} // by the PATH of the world
	return w
}

// TestWithoutNamespaces: where the system denies user namespaces, to root as well,
// nodes are plain processes, and do what they do elsewhere.
func TestWithoutNamespaces(t *testing.T) {
	for _, who := range []string{"root", "ordinary user"} {
		t.Run(who, func(t *testing.T) {
			if who == "root" && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			w := denied(t, who != "root")
			task := filepath.Join(filepath.Dir(w.state), "task")
			if err := os.CopyFS(task, os.DirFS("testdata")); err != nil {
				t.Fatal(err)
			}
			if r := w.run(t, "network", "create", "no", "--isolation", "namespaces"); r.code == 0 ||
				!strings.Contains(r.stderr, "namespaces") || !strings.Contains(r.stderr, "operation not permitted") || !strings.Contains(r.stderr, `isolation = "processes"`) {
				t.Errorf("namespaces are denied, and remedies named: %s", r)
			}
			w.net = "plain"
			t.Cleanup(func() {
				w.remove(t, "plain")
				if left, _ := filepath.Glob("/var/lib/boxer-local/*"); who == "root" && len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
			r := w.run(t, "network", "create", "plain")
			if r.code != 0 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "its functions are not behind NAT") || !strings.Contains(r.stderr, "denie") && !strings.Contains(r.stderr, "lets not even root") {
				t.Fatalf("one line says what was denied: %s", r)
			}
			p := &plainWorld{w, task, who == "root"}
			t.Run("port 80 of two nodes", p.twoServers)
			t.Run("vm and function", p.vmAndFunction)
			t.Run("users", p.users)
			t.Run("supervisor killed", p.supervisorKilled)
			t.Run("host killed", p.hostKilled)
			t.Run("daemon killed", p.daemonKilled)
		})
	}
}

type plainWorld struct {
	*world
	task   string
	rooted bool
}

// nginxOf is a server on every address, IPv6 too, with all its files in one place.
const nginxOf = `daemon off; pid %[1]s/pid; error_log stderr; worker_processes 2;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server { listen 80; listen [::]:80; location / { return 200 "$hostname $server_addr:$server_port to $remote_addr\n"; } }
}
`

func (p *plainWorld) twoServers(t *testing.T) {
	host := freePort(t)
	conf := filepath.Join(p.task, "nginx.template")
	if err := os.WriteFile(conf, []byte(strings.ReplaceAll(nginxOf, "%[1]s", "@DIR@")), 0o644); err != nil {
		t.Fatal(err)
	}
	const start = `sed "s,@DIR@,$TMPDIR,g" /var/task/nginx.template >$TMPDIR/conf; exec nginx -e stderr -c $TMPDIR/conf`
	p.vm(t, "one", "--source-dir", p.task, "--", "sh", "-c", start)
	p.vm(t, "two", "--source-dir", p.task, "--publish", strconv.Itoa(host)+":80", "--", "sh", "-c", start)
	all := p.nodes(t)
	for _, kind := range []string{"vm", "function", "client"} {
		out := p.must(t, "run", "--kind", kind, "--", "sh", "-c", "curl -sS http://one/ http://two/; echo $BOXER_NODE_ADDRESS")
		lines := strings.Fields(out)
		if len(lines) != 9 {
			t.Fatalf("%s: %q", kind, out)
		}
		own := lines[8]
		if want := fmt.Sprintf("one %s:80 to %s\ntwo %s:80 to %s\n%s\n", all["one"].Overlay, own, all["two"].Overlay, own, own); out != want {
			t.Errorf("%s: %q, want %q", kind, out, want)
		}
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", host))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the published port: %s", resp.Status)
	}
	p.must(t, "stop", "one")
	if again := p.must(t, "run", "--kind", "vm", "--", "curl", "-sS", "http://two/"); !strings.HasPrefix(again, "two ") {
		t.Errorf("after the stop of one, two says %q", again)
	}
	p.must(t, "stop", "two")
}

// vmAndFunction: both ways, by name, and what is in /var/task is found.
func (p *plainWorld) vmAndFunction(t *testing.T) {
	p.vm(t, "back", "--source-dir", p.task, "--", "python3", "/var/task/tick.py", "9000", "back-marker")
	p.function(t, "front", "--source-dir", p.task, "--", "python3", "/var/task/tick.py", "9000", "front-marker")
	for _, kind := range []string{"vm", "function", "client"} {
		args := []string{"run", "--kind", kind, "--source-dir", p.task, "--", "python3", "/var/task/ask.py"}
		if kind == "client" {
			args = []string{"run", "--", "python3", filepath.Join(p.task, "ask.py")}
		}
		for _, target := range []string{"back", "front"} {
			if r := p.run(t, append(args, target, "9000")...); r.code != 0 || !strings.HasPrefix(r.stdout, "pid ") {
				t.Errorf("%s to %s: %s", kind, target, r)
			}
		}
	}
	if n := p.nodes(t)["front-0"]; n.NAT != "none" {
		t.Errorf("the function is not behind NAT, but says %q", n.NAT)
	}
	if r := p.reports(t)["front-0"]; r != nil {
		t.Errorf("a NAT was probed where there is none: %+v", r)
	}
	if r := p.run(t, "run", "--kind", "function", "--nat", "cone", "--", "true"); r.code != 125 || !strings.Contains(r.stderr, "not behind NAT") {
		t.Errorf("a NAT was asked for: %s", r)
	}
	p.must(t, "stop", "front")
	p.must(t, "stop", "back")
}

// users: root's guests are nobody's, anybody else's are theirs; neither gets more
// rights by a program that gives some.
func (p *plainWorld) users(t *testing.T) {
	for _, kind := range []string{"vm", "function"} {
		out := p.must(t, "run", "--kind", kind, "--", "sh", "-c", "id -u; grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status")
		lines := strings.Fields(out)
		uid, err := strconv.Atoi(lines[0])
		want := os.Geteuid()
		if p.cred != nil {
			want = nobody
		}
		if err != nil || p.rooted == (uid < 1950000000) || !p.rooted && uid != want {
			t.Errorf("%s: uid %s", kind, lines[0])
		}
		if len(lines) != 5 || lines[2] != "1" || strings.Trim(lines[4], "0") != "" {
			t.Errorf("%s: %q", kind, out)
		}
	}
}

func (p *plainWorld) supervisorKilled(t *testing.T) {
	p.vm(t, "store", "--source-dir", p.task, "--", "python3", "/var/task/tick.py", "9000", "store-marker")
	guest := p.guest(t, "store-marker")
	kill(t, p.supervisor(t, "store-marker"))
	p.node(t, "store", 15*time.Second, "is back", func(n node) bool { return n.State == "running" && n.Guest.PID == guest })
	eventually(t, 15*time.Second, "the guest is reached through the new supervisor", func() (bool, string) {
		r := p.run(t, "run", "--kind", "function", "--source-dir", p.task, "--", "python3", "/var/task/ask.py", "store", "9000")
		return r.code == 0, r.String()
	})
	p.must(t, "stop", "store")
	if pid := p.guest(t, "store-marker"); pid != 0 {
		t.Errorf("the guest is left: %d", pid)
	}
}

// strays is what a guest does that wants to outlive its host.
const strays = `(setsid sleep 4321.%[1]d &) ; trap "" TERM; sleep 1234.%[1]d & exec sleep 2345.%[1]d`

func sleepers(mark int) (found []int) {
	for pid, p := range processes() {
		if filepath.Base(p.args[0]) == "sleep" && len(p.args) == 2 && strings.HasSuffix(p.args[1], fmt.Sprintf(".%d", mark)) {
			found = append(found, pid)
		}
	}
	return found
}

func noSleepers(t *testing.T, mark int) {
	t.Helper()
	eventually(t, 30*time.Second, "nothing of the guest is left", func() (bool, string) {
		left := sleepers(mark)
		return len(left) == 0, fmt.Sprint(left)
	})
}

func (p *plainWorld) hostKilled(t *testing.T) {
	mark := os.Getpid()*10 + 1
	p.vm(t, "doomed", "--", "sh", "-c", fmt.Sprintf(strays, mark))
	eventually(t, 20*time.Second, "three processes of the guest", func() (bool, string) {
		found := sleepers(mark)
		return len(found) == 3, fmt.Sprint(found)
	})
	kill(t, p.host(t, fmt.Sprintf("2345.%d", mark)))
	noSleepers(t, mark)
}

// daemonKilled: nothing goes on without it, also if all inits die with it.
func (p *plainWorld) daemonKilled(t *testing.T) {
	for i, all := range []bool{false, true} {
		mark := os.Getpid()*10 + 2 + i
		p.vm(t, "doomed", "--", "sh", "-c", fmt.Sprintf(strays, mark))
		outer := p.daemon(t)
		doomed := []int{outer}
		if all {
			for pid, q := range processes() {
				if below(processes(), pid, outer) && q.is("local-cloud", "local-host") {
					doomed = append(doomed, pid)
				}
			}
		}
		for _, pid := range doomed {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // none of them sees another's end
		}
		for _, pid := range doomed {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		awaitEnds(t, doomed)
		if !all {
			noSleepers(t, mark)
		}
		if got := p.must(t, "run", "--kind", "vm", "--", "echo", "again"); got != "again\n" {
			t.Errorf("the next daemon: %q", got)
		}
		noSleepers(t, mark)
	}
}
