// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// lambdas are functions whose sandboxes are frozen and used again.
type lambdas struct {
	*world
	launch.Launcher
}

func newLambdas(t *testing.T, network string) *lambdas {
	t.Helper()
	l := &lambdas{world: newWorld(t)}
	l.network(t, network)
	store, err := localcloud.Open(l.state, localcloud.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	if l.Network, err = store.Network(network); err != nil {
		t.Fatal(err)
	}
	if l.Client, err = store.Connect(t.Context(), network); err != nil {
		t.Fatal(err)
	}
	l.Client.Locate = true
	t.Cleanup(l.Client.Close)
	return l
}

func (l *lambdas) create(t *testing.T, spec localcloud.FunctionSpec) {
	t.Helper()
	spec.Reuse, spec.MemoryMB = true, 512
	if _, err := l.Client.CreateFunction(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}

// event sends a launch event of the slot NAME-0.
func (l *lambdas) event(t *testing.T, name string, margin int, argv ...string) {
	t.Helper()
	n := config.Node{
		Kind: config.KindFunction, Name: name, Slot: name + "-0", Service: name, LaunchToken: launch.Token(),
		DeadlineMarginMS: margin, Argv: argv,
	}
	if err := l.Function(t.Context(), name, n); err != nil {
		t.Fatal(err)
	}
}

// ended waits for the last of count invocations to end.
func (l *lambdas) ended(t *testing.T, name string, count int) localcloud.Invocation {
	t.Helper()
	var last localcloud.Invocation
	eventually(t, quick, fmt.Sprintf("event %d of %s ends", count, name), func() (bool, string) {
		list, err := l.Client.Invocations(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			last = list[len(list)-1]
		}
		return len(list) == count && last.State != localcloud.InvocationRunning, fmt.Sprintf("%+v", list)
	})
	return last
}

// found is what life.py tells.
type found struct {
	ID         string   `json:"id"`
	Tmp        []string `json:"tmp"`
	Processes  []string `json:"processes"`
	Supervisor int      `json:"supervisor"`
	Files      int      `json:"files"`
	Libc       string   `json:"libc"`
	Asked      string   `json:"asked"`
}

// tell connects to a function from a node of a kind.
func (l *lambdas) tell(t *testing.T, kind, name, what string) (f found) {
	t.Helper()
	out := l.must(t, "run", "--kind", kind, "--", "python3", "-c", `import socket, sys
c = socket.create_connection((sys.argv[1], 9000), 10)
c.sendall(sys.argv[2].encode() + b"\n")
print(c.makefile().read())`, name, what)
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%s tells: %v: %s", name, err, out)
	}
	return f
}

// statesBelow are the processes of a sandbox but for its init, with their states.
func statesBelow(t *testing.T, init int) map[int]string {
	t.Helper()
	parents, states := map[int]int{}, map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		data, _ := os.ReadFile(path)
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || len(fields) < 2 {
			continue
		}
		parents[pid], _ = strconv.Atoi(fields[1])
		states[pid] = fields[0]
	}
	all := map[int]string{}
	for pid := range parents {
		for p := parents[pid]; p > 1; p = parents[p] {
			if p == init {
				all[pid] = states[pid]
			}
		}
	}
	return all
}

// TestEnvironmentIsUsedAgain: Lambda freezes a sandbox that has answered, for as
// long as it likes, and gives it another event: another node's life, which finds
// nothing of the one before.
func TestEnvironmentIsUsedAgain(t *testing.T) {
	t.Parallel()
	root := systemRoot(t, "glibc-amd64")
	l := newLambdas(t, "again")
	l.vm(t, "vm", "--source-dir", l.task(t), "--", "python3", "/var/task/echo.py", "9000", "the-vm")
	l.create(t, localcloud.FunctionSpec{Name: "life", Root: root, SourceDir: "testdata/lambda"})
	var first found
	var overlay string
	for life := 1; life <= 3; life++ {
		l.event(t, "life", 0, "python3", "/var/task/life.py")
		n := l.node(t, "life-0", quick, "runs", func(n node) bool { return n.State == "running" })
		f := l.tell(t, "vm", "life", "")
		if f.ID != strconv.FormatUint(uint64(n.ID), 10) || len(f.Tmp) > 0 || len(f.Processes) > 0 || f.Libc != "glibc 2.31" {
			t.Errorf("life %d is node %d and finds %+v", life, n.ID, f)
		}
		if life == 1 {
			first, overlay = f, n.Overlay
		} else if f.Supervisor != first.Supervisor || f.ID == first.ID || n.Overlay != overlay || f.Files > first.Files+2 {
			t.Errorf("life %d finds %+v at %s, the first found %+v at %s", life, f, n.Overlay, first, overlay)
		}
		list, err := l.Client.Invocations(t.Context(), "life")
		if err != nil || len(list) != life {
			t.Fatal(err, list)
		}
		init := list[life-1].MachinePID
		l.tell(t, "client", "life", "end")
		if i := l.ended(t, "life", life); i.State != localcloud.InvocationSucceeded {
			t.Errorf("life %d: %+v", life, i)
		}
		eventually(t, 20*time.Second, fmt.Sprintf("after life %d one process, which is frozen", life), func() (bool, string) {
			states := statesBelow(t, init) // each stops when it is its turn to run
			return len(states) == 1 && slices.Contains(slices.Collect(maps.Values(states)), "T"), fmt.Sprint(states)
		})
		if life == 1 {
			time.Sleep(6 * time.Second) // longer than the lease of the node that was
		}
	}
}

// TestOthersAreUsedAgain: the same with guests of musl and the shell, and after a guest that fails.
func TestOthersAreUsedAgain(t *testing.T) {
	t.Parallel()
	root := systemRoot(t, "musl-amd64")
	l := newLambdas(t, "musl")
	l.vm(t, "vm", "--source-dir", l.task(t), "--", "python3", "-c", `import socket
s = socket.create_server(('', 9000))
while True:
    c, _ = s.accept()
    c.sendall(b'the vm\n')
    c.close()`)
	l.create(t, localcloud.FunctionSpec{Name: "get", Root: root, SourceDir: compilePeer(t, "musl-gcc")})
	l.event(t, "get", 0, "/var/task/peer", "get", "vm", "9000")
	if i := l.ended(t, "get", 1); i.State != localcloud.InvocationSucceeded {
		t.Errorf("the first: %+v", i)
	}
	l.event(t, "get", 0, "sh", "-c", "sleep 1000 & echo no more >&2; exit 3")
	if i := l.ended(t, "get", 2); !strings.Contains(i.Error, "exit status 3; its last output: no more") {
		t.Errorf("one that fails: %+v", i)
	}
	l.event(t, "get", 0, "sh", "-c", "set -- /proc/[0-9]*; echo $#; /var/task/peer get vm 9000")
	if i := l.ended(t, "get", 3); i.State != localcloud.InvocationSucceeded {
		t.Errorf("after one that failed: %+v", i)
	}
	says := l.nodes(t)["vm"].Overlay + " says: the vm\n"
	if got, want := l.must(t, "logs", "get-0"), says+"no more\n3\n"+says; got != want { // init, supervisor, sh
		t.Errorf("the guests print %q, want %q", got, want)
	}
}

// TestDeadlineAndShutdown: a node leaves in order before its event's deadline, and
// in the half second that Lambda gives a sandbox it ends.
func TestDeadlineAndShutdown(t *testing.T) {
	t.Parallel()
	root := systemRoot(t, "glibc-amd64")
	l := newLambdas(t, "ends")
	l.create(t, localcloud.FunctionSpec{Name: "brief", Root: root, TimeoutS: 5})
	for life := 1; life <= 2; life++ {
		began := time.Now()
		l.event(t, "brief", 2500, "sh", "-c", "exec 2>/dev/null; trap 'echo drained; exit 0' TERM; echo up; while :; do sleep 0.1; done")
		l.node(t, "brief-0", quick, "runs", func(n node) bool { return n.State == "running" })
		i := l.ended(t, "brief", life)
		if took := time.Since(began); i.State != localcloud.InvocationSucceeded || took > 5*time.Second {
			t.Errorf("life %d ended after %v: %+v", life, took, i)
		}
		if _, there := l.nodes(t)["brief-0"]; there {
			t.Errorf("life %d has not left", life)
		}
	}
	if got := l.must(t, "logs", "brief-0"); got != "up\ndrained\nup\ndrained\n" {
		t.Errorf("the guests print %q", got)
	}

	l.create(t, localcloud.FunctionSpec{Name: "ended", Root: root})
	l.event(t, "ended", 0, "sh", "-c", "exec 2>/dev/null; trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.1; done")
	l.node(t, "ended-0", quick, "runs", func(n node) bool { return n.State == "running" })
	began := time.Now()
	if err := l.Client.StopInvocation(t.Context(), "ended", "ended-0"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the sandbox ended after %v", took)
	}
	if _, there := l.nodes(t)["ended-0"]; there {
		t.Error("it ended without a good-bye")
	}
	if got := l.must(t, "logs", "ended-0"); got != "up\ntold\n" {
		t.Errorf("the guest prints %q", got)
	}
}

// TestBrokenLayer: what cannot start says why to the platform, and does not wait
// for an event.
func TestBrokenLayer(t *testing.T) {
	t.Parallel()
	root := systemRoot(t, "glibc-amd64")
	l := newLambdas(t, "broken")
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	bootstrap := read("../../layer/bootstrap")
	boxer := read(filepath.Join(l.bin, "stage-amd64/boxer"))
	library := read(filepath.Join(l.bin, "libboxer.so"))
	foreign := read(filepath.Join(l.bin, "stage-arm64/libboxer.so"))
	for name, try := range map[string]struct {
		boxer, library []byte
		want           string
	}{
		"cut":     {boxer, library[:len(library)/2], "Runtime.BoxerInit: the process monitor /var/task/lib/libboxer.so cannot be used: it is cut short"},
		"foreign": {boxer, foreign, "Runtime.BoxerInit: the process monitor /var/task/lib/libboxer.so cannot be used: it is not for amd64"},
		"none":    {boxer, nil, "Runtime.BoxerInit: the process monitor is missing"},
		"empty":   {nil, library, "Runtime.ExitError: the runtime ended before it answered: exit status 127"},
	} {
		dir := filepath.Join(filepath.Dir(l.state), name)
		for path, content := range map[string][]byte{"bootstrap": bootstrap, "bin/boxer": try.boxer, "lib/libboxer.so": try.library} {
			path = filepath.Join(dir, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if content == nil {
				continue
			}
			if err := os.WriteFile(path, content, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		l.create(t, localcloud.FunctionSpec{Name: name, Root: root, SourceDir: dir})
		l.event(t, name, 0, "true")
		if i := l.ended(t, name, 1); !strings.Contains(i.Error, try.want) {
			t.Errorf("%s: %q, want %q", name, i.Error, try.want)
		}
	}
	if r := l.run(t, "logs", "--supervisor", "empty-0"); !strings.Contains(r.stdout, "no program /var/task/bin/boxer: the layer is incomplete") {
		t.Errorf("without the supervisor the log says: %s", r)
	}
	if slots := l.nodes(t); len(slots) != 1 {
		t.Errorf("nodes: %v", slots)
	}
}
