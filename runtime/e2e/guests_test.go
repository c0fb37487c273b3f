// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const requests = 1000

// cast is a network on which every server runs twice: <name>-v on a VM node and
// <name>-f on a function node.
type cast struct {
	*world
	task string // what every node finds at /var/task
	only string // transport that clients may use, "": any
	mu   sync.Mutex
	ids  map[string][]string // "vm store-f" -> ids of the client nodes
}

// server is one unmodified program.
type server struct {
	name string
	port int
	argv []string
}

var servers = []server{
	{"java", 8080, []string{"java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "/var/task", "NioServer", "8080", "/var/task/body.txt"}},
	{"redis", 6379, []string{"redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""}},
	{"memcached", 11211, []string{"memcached", "-p", "11211"}},
	{"http", 8000, []string{"python3", "-m", "http.server", "--directory", "/var/task/www", "8000"}},
	{"nginx", 8080, []string{"nginx", "-e", "stderr", "-c", "/var/task/nginx-SIDE.conf"}},
}

// TestGuests serves 1,000 requests from VM nodes to function nodes, 1,000 the other
// way, and 1,000 from function nodes that may use nothing but punch to function
// nodes, for each of the programs, and compares every answer.
func TestGuests(t *testing.T) {
	c := &cast{world: newWorld(t), ids: map[string][]string{}}
	c.task = guestTask(t, filepath.Dir(c.state))
	c.network(t, "guests")
	c.startServers(t)
	for _, way := range []struct{ kind, side, only string }{{"vm", "f", ""}, {"function", "v", ""}, {"function", "f", "punch"}} {
		c.only = way.only
		t.Run(way.kind+" to "+map[string]string{"f": "function", "v": "vm"}[way.side], func(t *testing.T) {
			t.Run("nginx", func(t *testing.T) { c.curlBody(t, way.kind, "nginx-"+way.side, 8080) })
			t.Run("nginx-wrk", func(t *testing.T) { c.wrk(t, way.kind, "nginx-"+way.side, 8080) })
			t.Run("java", func(t *testing.T) { c.curlBody(t, way.kind, "java-"+way.side, 8080) })
			t.Run("java-wrk", func(t *testing.T) { c.wrk(t, way.kind, "java-"+way.side, 8080) })
			t.Run("http.server", func(t *testing.T) { c.curlFiles(t, way.kind, "http-"+way.side) })
			t.Run("redis", func(t *testing.T) { c.redis(t, way.kind, "redis-"+way.side) })
			t.Run("memcached", func(t *testing.T) { c.memcached(t, way.kind, "memcached-"+way.side) })
		})
	}
	t.Run("transports", c.transports)
}

// guestTask fills the directory that lands in /var/task.
func guestTask(t *testing.T, parent string) string {
	t.Helper()
	dir := filepath.Join(parent, "task")
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("javac", "--release", "17", "-d", dir, "testdata/NioServer.java").CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("body.txt", fixedBody)
	conf, err := os.ReadFile("testdata/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"v", "f"} {
		write("nginx-"+side+".conf", strings.ReplaceAll(string(conf), "@UPSTREAM@", "java-"+side+":8080"))
		write("curl-nginx-"+side, urls("nginx-"+side+":8080", "item"))
		write("curl-java-"+side, urls("java-"+side+":8080", "item"))
		write("curl-http-"+side, urls("http-"+side+":8000", "file"))
		write("redis-"+side, redisCommands("redis-"+side))
	}
	for i := range 10 {
		write(fmt.Sprintf("www/file%d", i), fileBody(i))
	}
	return dir
}

var fixedBody = strings.Repeat("One overlay for machines and functions.\n", 12)

func fileBody(i int) string { return strings.Repeat(fmt.Sprintf("line of file %d\n", i), 10+i) }

// urls is a curl configuration of 1,000 requests that cycle through ten paths.
func urls(host, path string) string {
	var b strings.Builder
	for i := range requests {
		fmt.Fprintf(&b, "url = \"http://%s/%s%d\"\n", host, path, i%10)
	}
	return b.String()
}

func redisCommands(host string) string {
	var b strings.Builder
	for i := range requests / 2 {
		fmt.Fprintf(&b, "SET key:%d value-%d-of-%s\n", i, i*i, host)
	}
	for i := range requests / 2 {
		fmt.Fprintf(&b, "GET key:%d\n", i)
	}
	return b.String()
}

// startServers starts all of them at once: nginx waits for its upstream.
func (c *cast) startServers(t *testing.T) {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for _, side := range []string{"v", "f"} {
		for _, s := range servers {
			kind := map[string]string{"v": "vm", "f": "function"}[side]
			args := []string{"run", "--detach", "--kind", kind, "--name", s.name + "-" + side, "--source-dir", c.task}
			if s.name == "nginx" {
				args = append(args, "--wait-for", "java-"+side+"=1")
			}
			args = append(args, "--")
			for _, a := range s.argv {
				args = append(args, strings.ReplaceAll(a, "SIDE", side))
			}
			wg.Go(func() {
				if r := c.runIn(t, 2*quick, nil, args...); r.code != 0 {
					t.Error(r)
				}
			})
		}
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Logf("%d servers run after %v", 2*len(servers), time.Since(began).Round(time.Millisecond))
}

var nodeLine = regexp.MustCompile(`^node ([0-9]+)\n`)

// client runs a shell command as a foreground node and returns its output.
func (c *cast) client(t *testing.T, kind, target, command string) string {
	t.Helper()
	args := []string{"run", "--kind", kind, "--source-dir", c.task}
	if c.only != "" {
		args = append(args, "--transports", c.only)
	}
	r := c.runIn(t, 2*quick, nil, append(args, "--", "sh", "-c", "echo node $BOXER_NODE_ID; "+command)...)
	m := nodeLine.FindStringSubmatch(r.stdout)
	if r.code != 0 || m == nil {
		t.Fatal(r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids[kind+" "+target] = append(c.ids[kind+" "+target], m[1])
	t.Logf("%s: %v", target, r.took.Round(time.Millisecond))
	return r.stdout[len(m[0]):]
}

// same compares output with what 1,000 answers should be.
func same(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("answers differ from byte %d on (%d bytes, want %d)\ngot:  %q\nwant: %q", at, len(got), len(want),
		got[at:min(at+200, len(got))], want[at:min(at+200, len(want))])
}

func (c *cast) curlBody(t *testing.T, kind, host string, port int) {
	same(t, c.client(t, kind, host, "exec curl -sS --fail --max-time 60 -K /var/task/curl-"+host), strings.Repeat(fixedBody, requests))
}

func (c *cast) curlFiles(t *testing.T, kind, host string) {
	var want strings.Builder
	for i := range requests {
		want.WriteString(fileBody(i % 10))
	}
	same(t, c.client(t, kind, host, "exec curl -sS --fail --max-time 60 -K /var/task/curl-"+host), want.String())
}

func (c *cast) redis(t *testing.T, kind, host string) {
	var want strings.Builder
	want.WriteString(strings.Repeat("OK\n", requests/2))
	for i := range requests / 2 {
		fmt.Fprintf(&want, "value-%d-of-%s\n", i*i, host)
	}
	same(t, c.client(t, kind, host, "exec redis-cli -h "+host+" < /var/task/"+host), want.String())
}

func (c *cast) memcached(t *testing.T, kind, host string) {
	got := c.client(t, kind, host, fmt.Sprintf("exec python3 /var/task/memcached_client.py %s 11211 %d", host, requests))
	same(t, got, fmt.Sprintf("same: %d\n", requests))
}

var wrkLine = regexp.MustCompile(`good=([0-9]+) bad=([0-9]+) errors=([0-9]+)`)

func (c *cast) wrk(t *testing.T, kind, host string, port int) {
	got := c.client(t, kind, host, fmt.Sprintf("exec wrk -t2 -c16 -d2s -s /var/task/check.lua http://%s:%d/", host, port))
	m := wrkLine.FindStringSubmatch(got)
	if m == nil {
		t.Fatalf("wrk says nothing of bodies:\n%s", got)
	}
	if good, _ := strconv.Atoi(m[1]); good < requests || m[2] != "0" || m[3] != "0" {
		t.Errorf("want %d or more good answers and nothing else:\n%s", requests, got)
	}
	t.Log(m[0])
}

// path is one line of `boxer paths --json`.
type path struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Transport   string `json:"transport"`
	Connections uint64 `json:"connections"`
}

func (w *world) paths(t *testing.T) []path {
	t.Helper()
	var all []path
	if err := json.Unmarshal([]byte(w.must(t, "paths", "--json")), &all); err != nil {
		t.Fatalf("paths --json: %v", err)
	}
	return all
}

// wantPath waits until from has reached to over transport, and over nothing else.
func (w *world) wantPath(t *testing.T, from, to, transport string, least uint64) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("%s -> %s over %s", from, to, transport), func() (bool, string) {
		all := w.paths(t)
		ok := false
		for _, p := range all {
			if p.From != from || p.To != to {
				continue
			}
			if p.Transport != transport {
				t.Fatalf("%s -> %s over %s, want %s only: %+v", from, to, p.Transport, transport, all)
			}
			ok = p.Connections >= least
		}
		return ok, fmt.Sprintf("%+v", all)
	})
}

// transports of the connections made above.
func (c *cast) transports(t *testing.T) {
	c.wantPath(t, "nginx-v", "java-v", "native", 1)
	c.wantPath(t, "nginx-f-0", "java-f-0", "punch", 1)
	for _, s := range servers {
		for _, id := range c.ids["vm "+s.name+"-f"] {
			c.wantPath(t, "node-"+id, s.name+"-f-0", "punch", 1)
		}
		for _, id := range c.ids["function "+s.name+"-v"] {
			c.wantPath(t, "node-"+id, s.name+"-v", "direct", 1)
		}
		for _, id := range c.ids["function "+s.name+"-f"] {
			c.wantPath(t, "node-"+id, s.name+"-f-0", "punch", 1)
		}
	}
}
