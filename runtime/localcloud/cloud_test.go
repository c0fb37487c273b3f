// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// TestCloud tries one network from all sides.
func TestCloud(t *testing.T) {
	t.Parallel()
	c := testNetwork(t, testStore(t), "shop")
	t.Run("root of a VM", func(t *testing.T) { tryVMRoot(t, c) })
	t.Run("VMs reach each other", func(t *testing.T) { tryVMs(t, c) })
	t.Run("publish", func(t *testing.T) { tryPublish(t, c) })
	t.Run("source", func(t *testing.T) { trySource(t, c) })
	t.Run("supervisor killed", func(t *testing.T) { tryKilledSupervisor(t, c) })
	t.Run("host killed", func(t *testing.T) { tryKilledHost(t, c) })
	t.Run("delete host", func(t *testing.T) { tryDeleteHost(t, c) })
	t.Run("bad hosts", func(t *testing.T) { tryBadHosts(t, c) })
	t.Run("root of a function", func(t *testing.T) { tryFunctionRoot(t, c) })
	t.Run("NAT", func(t *testing.T) { tryNAT(t, c) })
	t.Run("invocations", func(t *testing.T) { tryInvocations(t, c) })
	t.Run("two launches of a slot", func(t *testing.T) { tryTwoLaunches(t, c) })
}

// expect checks facts a script printed as "name=value" lines.
func expect(t *testing.T, text string, facts map[string]string) {
	t.Helper()
	found := map[string]string{}
	for _, line := range strings.Split(text, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			found[name] = value
		}
	}
	for name, want := range facts {
		if got, ok := found[name]; !ok || got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// rootScript prints facts about a host. can FILE: whether it can be written.
const rootScript = `
can() { if ( : > "$1" ) 2>/dev/null; then echo yes; else echo no; fi; }
echo uid=$(id -u) gid=$(id -g)
echo uid=$(id -u)
echo user=$(id -un)
echo host=$(hostname)
echo usr=$(can /usr/x) ; echo usr=$(can /usr/x)
echo top=$(can /x)
echo etc=$(can /etc/x)
echo passwd=$(can /etc/passwd)
echo var=$(can /var/x)
echo lib=$(can /var/lib/x)
echo run=$(can /run/x)
echo opt=$(can /opt/x)
echo dev=$(can /dev/x)
echo tmp=$(can /tmp/x)
echo task=$(can /var/task/x)
echo null=$(can /dev/null)
echo shm=$(test -d /dev/shm && can /dev/shm/x)
echo homes=$(ls -A /home /root /mnt /media | tr -d '\n')
echo sys=$(can /sys/class/net/lo/ifalias)
echo state=$(test -e STATE/networks && echo seen)
echo procs=$(ls -d /proc/[0-9]* | wc -l)
echo links=$(ls /sys/class/net | tr '\n' ' ')
echo resolver=$(grep -c nameserver /etc/resolv.conf)
echo init=$(tr '\0' ' ' < /proc/1/cmdline | cut -d' ' -f1,2)
python3 - <<PY
import socket
def low():
    try:
        socket.socket().bind(("0.0.0.0", 80)); return "yes"
    except PermissionError: return "no"
print("low=" + low())
import resource
print("files=%d" % resource.getrlimit(resource.RLIMIT_NOFILE)[1])
try:
    socket.create_connection(("8.8.8.8", 53), 3); print("internet=yes")
except socket.timeout: print("internet=hangs")
except OSError: print("internet=no")
try:
    socket.getaddrinfo("example.com", 80); print("dns=yes")
except socket.gaierror: print("dns=no")
PY
`

func rootFacts(c *Client) string {
	return strings.ReplaceAll(rootScript, "STATE", c.dir.stateDir())
}

func tryVMRoot(t *testing.T, c *Client) {
	text := shell(t, c, "facts", rootFacts(c))
	expect(t, text, map[string]string{
		"uid": "1000", "user": "boxer", "host": "facts", "usr": "no", "top": "no", "etc": "no", "var": "yes", "lib": "yes",
		"run": "yes", "opt": "yes", "dev": "no", "tmp": "yes", "task": "no", "null": "yes", "shm": "yes", "homes": "/home:/media:/mnt:/root:",
		"sys": "no", "state": "", "links": "eth0 lo", "resolver": "0", "init": "boxer local-host", "low": "yes", "internet": "no", "dns": "no",
		"passwd": "no",
	})
	for _, dir := range []string{"/var/lib", "/var/log"} { // a daemon of a package finds its directories
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() && e.Name() == "nginx" {
				expect(t, shell(t, c, "nginx"+filepath.Base(dir), "touch "+dir+"/nginx/x && echo written=yes"), map[string]string{"written": "yes"})
			}
		}
	}
}

func tryVMs(t *testing.T, c *Client) {
	a := vm(t, c, "a", nil, boxerInVM, "serve", "80", "8080", "61000")
	output(t, c, "a", "serving")
	h, err := c.Host(testContext(t), "b")
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("host b before it was made: %+v, %v", h, err)
	}
	text := shell(t, c, "b", fmt.Sprintf("for p in 80 8080 61000 7; do echo $p=$(%s dial %s:$p); done", boxerInVM, a.UnderlayAddress))
	b, err := c.Host(testContext(t), "b")
	if err != nil {
		t.Fatal(err)
	}
	sees := "a sees " + b.UnderlayAddress
	expect(t, text, map[string]string{"80": sees, "8080": sees, "61000": sees,
		"7": fmt.Sprintf("dial: dial tcp4 %s:7: connect: connection refused", a.UnderlayAddress)})
	if b.State != HostRunning || b.PID == 0 || len(b.LaunchID) != 12 || b.Kind != config.KindVM || time.Since(b.Started) > time.Minute {
		t.Errorf("host %+v", b)
	}
	if cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", b.MachinePID)); string(cmdline) != "boxer\x00local-host\x00shop/b\x00" {
		t.Errorf("machine pid %d is %q", b.MachinePID, cmdline)
	}
}

func tryPublish(t *testing.T, c *Client) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	publish := []config.Publish{{Port: 80, HostPort: port}}
	vm(t, c, "front", publish, boxerInVM, "serve", "fd")
	output(t, c, "front", "serving")
	dial := func() (string, error) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return "", err
		}
		defer conn.Close()
		text, err := io.ReadAll(conn)
		return string(text), err
	}
	if text, err := dial(); text != "front sees 127.0.0.1\n" {
		t.Errorf("from the machine: %q, %v", text, err)
	}
	_, err = c.CreateHost(testContext(t), HostSpec{Config: config.Node{Network: "shop", Slot: "other", Publish: publish, Argv: []string{"true"}}})
	want := fmt.Sprintf(`host "other": publish port 80 of "other": 127.0.0.1:%d is in use by another program: stop it or choose another host_port`, port)
	if err == nil || err.Error() != want {
		t.Errorf("occupied port:\n got %v\nwant %s", err, want)
	}
	if _, err := c.Host(testContext(t), "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("left half-made: %v", err)
	}
	if err := c.DeleteHost(testContext(t), "front"); err != nil {
		t.Error(err)
	}
	if text, err := dial(); err == nil {
		t.Errorf("published after the end: %q", text)
	}
	vm(t, c, "front", publish, boxerInVM, "serve", "fd") // the port is free again
}

func trySource(t *testing.T, c *Client) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"run.sh": 0o755, "data.txt": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("echo from-source; cat /var/task/link"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("data.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, err := c.CreateHost(testContext(t), HostSpec{SourceDir: dir, Config: config.Node{
		Network: "shop", Slot: "source", Argv: []string{"sh", "-c", "/var/task/run.sh; ls -ln /var/task; (: >/var/task/run.sh) || echo read-only; sleep 100"}}})
	if err != nil {
		t.Fatal(err)
	}
	text := output(t, c, "source", "read-only")
	if !strings.Contains(text, "cat /var/task/link") || !strings.Contains(text, "-rw------- 1 1000 1000") {
		t.Error(text)
	}
	if entries, _ := os.ReadDir(c.dir.join("incoming")); len(entries) != 0 {
		t.Errorf("left in incoming: %v", entries)
	}
}

func tryKilledSupervisor(t *testing.T, c *Client) {
	vm(t, c, "again", nil, "sh", "-c", "echo started $(date +%s%N); exec sleep 1000")
	first := output(t, c, "again", "started")
	h, _ := c.Host(testContext(t), "again")
	killed := false
	for _, pid := range machinePIDs(h.MachinePID) {
		if cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasPrefix(string(cmdline), boxerInVM) {
			killed = unix.Kill(pid, unix.SIGKILL) == nil
		}
	}
	if !killed {
		t.Fatal("no supervisor found")
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if text := output(t, c, "again", "started"); text != first {
			if now, err := c.Host(testContext(t), "again"); err != nil || now.State != HostRunning || now.PID != h.PID {
				t.Errorf("the host did not survive: %+v, %v", now, err)
			}
			return
		}
	}
	t.Error("the supervisor is not back")
}

func tryKilledHost(t *testing.T, c *Client) {
	h := vm(t, c, "victim", nil, "sleep", "1000")
	if err := unix.Kill(h.MachinePID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var now Host
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		now, _ = c.Host(testContext(t), "victim")
		if now.State == HostExited {
			break
		}
	}
	if now.State != HostExited || now.MachinePID != 0 || now.PID != 0 || now.Error != "killed from outside" {
		t.Errorf("after a kill: %+v", now)
	}
	again := vm(t, c, "victim", nil, "sleep", "1000") // the slot may be taken again
	if again.State != HostRunning || again.UnderlayAddress == h.UnderlayAddress {
		t.Errorf("made again: %+v", again)
	}
}

func tryDeleteHost(t *testing.T, c *Client) {
	h := vm(t, c, "short", nil, "sh", "-c", "trap 'echo drained; exit 0' TERM; echo up; while :; do sleep 0.05; done")
	output(t, c, "short", "up")
	held, err := os.Open(c.LogPath("short"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	start := time.Now()
	if err := c.DeleteHost(testContext(t), "short"); err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(held); !strings.Contains(string(text), "drained") {
		t.Errorf("not drained: %q", text)
	}
	if time.Since(start) > drainTime*9/10 { // it has ended, nobody had to kill it
		t.Errorf("took %s", time.Since(start))
	}
	if err := unix.Kill(h.MachinePID, 0); err != unix.ESRCH {
		t.Errorf("init still there: %v", err)
	}
	if _, err := os.Stat(c.dir.join("hosts", "short")); !os.IsNotExist(err) {
		t.Errorf("directory still there: %v", err)
	}
	if err := c.DeleteHost(testContext(t), "short"); err != nil {
		t.Errorf("deleting again: %v", err)
	}
	if err := c.DeleteHost(testContext(t), cluster.SeedName(0)); err == nil {
		t.Error("the seed could be deleted")
	}
}

func tryBadHosts(t *testing.T, c *Client) {
	vm(t, c, "taken", nil, "sleep", "1000")
	_, err := c.CreateHost(testContext(t), HostSpec{Config: config.Node{Network: "shop", Slot: "taken", Argv: []string{"true"}}})
	if !errors.Is(err, ErrExists) {
		t.Errorf("taken slot: %v", err)
	}
	for want, n := range map[string]config.Node{
		"no command":        {Network: "shop", Slot: "bad"},
		"name \"Bad\"":      {Network: "shop", Slot: "Bad", Argv: []string{"true"}},
		"network \"other\"": {Network: "other", Slot: "bad", Argv: []string{"true"}},
		"kind \"client\"":   {Network: "shop", Slot: "bad", Kind: config.KindClient, Argv: []string{"true"}},
		"user data":         {Network: "shop", Slot: "bad", Argv: []string{strings.Repeat("x", 20000)}},
	} {
		if _, err := c.CreateHost(testContext(t), HostSpec{Config: n}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
	if _, err := c.Host(testContext(t), "bad"); !errors.Is(err, ErrNotFound) {
		t.Errorf("left: %v", err)
	}
}

// function makes a function, once per test.
func testFunction(t *testing.T, c *Client, spec FunctionSpec) {
	t.Helper()
	if _, err := c.CreateFunction(testContext(t), spec); err != nil {
		t.Fatal(err)
	}
}

func invoke(t *testing.T, c *Client, function, slot string, argv ...string) string {
	t.Helper()
	payload, err := json.Marshal(c.FunctionConfig(config.Node{Slot: slot, Argv: argv}))
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.Invoke(testContext(t), function, payload)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ended waits for the end of an invocation.
func ended(t *testing.T, c *Client, function, id string) Invocation {
	t.Helper()
	var i Invocation
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if i = findInvocation(t, c, function, id); i.State != InvocationRunning {
			return i
		}
	}
	t.Fatalf("invocation does not end: %+v", i)
	return i
}

func findInvocation(t *testing.T, c *Client, function, id string) Invocation {
	t.Helper()
	list, err := c.Invocations(testContext(t), function)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.RequestID == id {
			return i
		}
	}
	t.Fatalf("no invocation %q in %+v", id, list)
	return Invocation{}
}

func tryFunctionRoot(t *testing.T, c *Client) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "facts.sh"), []byte(rootFacts(c)), 0o600); err != nil {
		t.Fatal(err)
	}
	testFunction(t, c, FunctionSpec{Name: "facts", SourceDir: dir})
	id := invoke(t, c, "facts", "facts-0", "sh", "/var/task/facts.sh")
	i := ended(t, c, "facts", id)
	if i.State != InvocationSucceeded || i.Error != "" || i.PID != 0 || i.Ended.Before(i.Started) {
		t.Errorf("%+v", i)
	}
	expect(t, output(t, c, "facts-0", "dns="), map[string]string{
		"uid": "993", "user": "sbx_user1051", "host": "facts-0", "usr": "no", "top": "no", "etc": "no", "passwd": "no", "var": "no",
		"lib": "no", "run": "no", "opt": "no", "dev": "no", "tmp": "yes", "task": "no", "null": "yes", "shm": "",
		"homes": "/home:/media:/mnt:/root:", "sys": "no", "state": "", "links": "eth0 lo", "resolver": "0", "init": "boxer local-host",
		"low": "no", "internet": "no", "dns": "no", "files": "1024",
	})
	f, err := c.Function(testContext(t), "facts")
	if err != nil || f.Running != 0 || f.MemoryMB != defaultMemoryMB || f.TimeoutS != defaultTimeoutS || len(f.CodeSHA256) != 64 {
		t.Errorf("%+v %v", f, err)
	}
}

func tryNAT(t *testing.T, c *Client) {
	server := vm(t, c, "server", nil, boxerInVM, "serve", "9000", "25")
	output(t, c, "server", "serving")
	testFunction(t, c, FunctionSpec{Name: "nat"})
	script := fmt.Sprintf("/opt/bin/boxer serve 9000 & sleep 0.1; echo inner=$(/opt/bin/boxer dial 169.254.100.6:9000); "+
		"echo out=$(/opt/bin/boxer dial %[1]s:9000); echo mail=$(/opt/bin/boxer dial %[1]s:25); echo ready; wait", server.UnderlayAddress)
	ids := []string{invoke(t, c, "nat", "nat-0", "sh", "-c", script), invoke(t, c, "nat", "nat-1", "sh", "-c", script)}
	var addresses []string
	for n, id := range ids { // both at the same time, with the same inner address
		slot := fmt.Sprintf("nat-%d", n)
		text := output(t, c, slot, "ready")
		i := findInvocation(t, c, "nat", id)
		expect(t, text, map[string]string{"inner": slot + " sees 169.254.100.6", "out": "server sees " + i.NATAddress,
			"mail": "dial: dial tcp4 " + server.UnderlayAddress + ":25: i/o timeout"}) // Lambda blocks it
		addresses = append(addresses, i.NATAddress)
		if i.State != InvocationRunning || i.MachinePID == 0 {
			t.Errorf("%+v", i)
		}
	}
	if addresses[0] == addresses[1] || !strings.HasPrefix(addresses[0], "100.64.128.") {
		t.Errorf("NAT addresses %v", addresses)
	}
	text := shell(t, c, "intruder", fmt.Sprintf("echo in=$(%s dial %s:9000); echo inner=$(%[1]s dial 169.254.100.6:9000)", boxerInVM, addresses[0]))
	if !strings.Contains(text, "in=dial: dial tcp4 "+addresses[0]+":9000: i/o timeout") || strings.Contains(text, "sees") {
		t.Errorf("from a VM into a NAT: %s", text)
	}
	if err := c.StopInvocation(testContext(t), "nat", "nat-0"); err != nil {
		t.Fatal(err)
	}
	if i := findInvocation(t, c, "nat", ids[0]); i.State != InvocationFailed || i.MachinePID != 0 {
		t.Errorf("after stop: %+v", i)
	}
	if i := findInvocation(t, c, "nat", ids[1]); i.State != InvocationRunning {
		t.Errorf("the other one: %+v", i)
	}
	if err := c.DeleteFunction(testContext(t), "nat"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Function(testContext(t), "nat"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after delete: %v", err)
	}
	if err := c.DeleteFunction(testContext(t), "nat"); err != nil {
		t.Errorf("deleting again: %v", err)
	}
}

// tryTwoLaunches: the log of a slot is that of one launch until it has ended, and
// then that of the next; one that ends before is not seen there.
func tryTwoLaunches(t *testing.T, c *Client) {
	testFunction(t, c, FunctionSpec{Name: "twin"})
	invoke(t, c, "twin", "twin-0", "sh", "-c", "echo first; exec sleep 1000")
	output(t, c, "twin-0", "first")
	log := NewLogReader(c.LogPath("twin-0"))
	defer log.Close()
	refused := ended(t, c, "twin", invoke(t, c, "twin", "twin-0", "sh", "-c", "echo refused >&2; exit 3"))
	if refused.State != InvocationFailed {
		t.Errorf("%+v", refused)
	}
	last := invoke(t, c, "twin", "twin-0", "sh", "-c", "echo last; exec sleep 1000")
	waiting := func() []string {
		found, _ := filepath.Glob(c.dir.join("logs", "twin-0"+waitingLog+"*[0-9].log"))
		return found
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if data, _ := os.ReadFile(strings.Join(waiting(), "")); string(data) == "last\n" {
			break
		}
	}
	if got := read(t, log); got != "first\n" {
		t.Errorf("while the first launch runs the log says %q", got)
	}
	for _, i := range invocations(t, c, "twin") {
		if i.State == InvocationRunning && i.RequestID != last {
			_ = unix.Kill(i.MachinePID, unix.SIGKILL)
			ended(t, c, "twin", i.RequestID)
		}
	}
	output(t, c, "twin-0", "last")
	if got := read(t, log); got != "last\n" {
		t.Errorf("then it says %q", got)
	}
	if left := waiting(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := c.DeleteFunction(testContext(t), "twin"); err != nil {
		t.Error(err)
	}
}

func invocations(t *testing.T, c *Client, function string) []Invocation {
	t.Helper()
	list, err := c.Invocations(testContext(t), function)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func tryInvocations(t *testing.T, c *Client) {
	if _, err := c.Invoke(testContext(t), "none", []byte(`{"slot":"x"}`)); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown function: %v", err)
	}
	testFunction(t, c, FunctionSpec{Name: "work", TimeoutS: 3})
	if _, err := c.CreateFunction(testContext(t), FunctionSpec{Name: "work"}); !errors.Is(err, ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	if _, err := c.Invoke(testContext(t), "work", []byte("x")); err == nil || !strings.Contains(err.Error(), "not JSON") {
		t.Errorf("bad payload: %v", err)
	}
	for _, try := range []struct{ state, want, script string }{
		{InvocationSucceeded, "", "exit 0"},
		{InvocationFailed, "Guest.Failed: exit status 3", "exit 3"},
		{InvocationFailed, "Sandbox.Timedout: the function timed out after 3s", "sleep 100"},
		{InvocationFailed, "Runtime.ExitError: the runtime ended before it answered: killed by signal SIGKILL", "kill -9 $PPID; sleep 1"},
	} {
		i := ended(t, c, "work", invoke(t, c, "work", "work-0", "sh", "-c", try.script))
		if i.State != try.state || !strings.HasPrefix(i.Error, try.want) {
			t.Errorf("%s: %+v", try.script, i)
		}
	}
	if err := c.DeleteFunction(testContext(t), "work"); err != nil {
		t.Error(err)
	}
	if entries, _ := filepath.Glob(c.dir.join("functions", "work*")); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}
