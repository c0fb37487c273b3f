// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

const (
	network = "ensemble"
	victim  = 2 // of the servers zk-1, zk-2, zk-3

	// outVariable is where the figure and what was measured go; without it the
	// test is short, and judges no times.
	outVariable = "BOXER_FAILOVER_OUT"
)

// scenario is how long its parts are, and how much load there is.
type scenario struct {
	readers        int // at each server
	read, write    time.Duration
	renew          time.Duration // of connections
	before, during time.Duration
	after          time.Duration
}

var (
	short = scenario{readers: 3, read: 40 * time.Millisecond, write: 50 * time.Millisecond, renew: 2 * time.Second,
		before: 2 * time.Second, during: time.Second, after: time.Second}
	full = scenario{readers: 6, read: 30 * time.Millisecond, write: 50 * time.Millisecond, renew: 10 * time.Second,
		before: 15 * time.Second, during: 15 * time.Second, after: 10 * time.Second}
)

// TestFailover kills a VM node of the ensemble: its standby takes over, and gives
// the slot back when the VM has returned. No read may be wrong, and none may fail.
func TestFailover(t *testing.T) {
	s := short
	out := os.Getenv(outVariable)
	if out != "" {
		s = full
	}
	e := newEnsemble(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := newLoad(e.forwards(t), s.read, s.renew)
	if err := l.start(ctx, s.readers, s.write); err != nil {
		t.Fatal(err)
	}
	e.await("every server answers", func() bool { return len(l.silent()) == 0 })
	time.Sleep(s.before)

	home := e.holder()
	part, err := "", error(nil)
	e.await("zk-3 says who it is", func() (ok bool) {
		part, err = mode(l.address[victim])
		return err == nil
	})
	killed := time.Now()
	e.kill()
	e.await("the standby serves", func() bool {
		return e.holder().Kind == "function" && l.servesSince(victim).After(killed)
	})
	time.Sleep(s.during)
	handover := time.Now()
	e.apply()
	e.await("the VM has its slot back", func() bool {
		m := e.holder()
		return m.Kind == "vm" && m.ID != home.ID && m.State == cluster.StateRunning
	})
	e.await("the standby has gone", func() bool { return e.last("zk-3", "function", cluster.StateLeft).After(handover) })
	time.Sleep(s.after)
	e.caughtUp(l)
	cancel()
	l.clients.Wait()
	e.terraform("plan", "-detailed-exitcode")

	r := e.report(l, killed, handover)
	r.Victim = part
	t.Log("\n" + r.text())
	for _, w := range l.wrong {
		t.Errorf("a wrong read: %s", w)
	}
	for _, f := range l.failed {
		t.Errorf("a request failed: %s", f)
	}
	if l.sessions > 0 {
		t.Errorf("%d sessions expired", l.sessions)
	}
	if out != "" {
		r.write(t, out)
	}
}

// ensemble is the example, applied.
type ensemble struct {
	t      *testing.T
	bin    string
	dir    string // of the configuration
	env    []string
	client *localcloud.Client

	session *cluster.Session
	seen    chan []change // one value: all so far
}

// change is what became of a member of the victim's slot.
type change struct {
	at     time.Time
	member cluster.Member
}

func newEnsemble(t *testing.T) *ensemble {
	t.Helper()
	bin := os.Getenv("BOXER_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp("/tmp", "bx")
	if err != nil {
		t.Fatal(err)
	}
	e := &ensemble{t: t, bin: bin, dir: filepath.Join(work, "config"), seen: make(chan []change, 1)}
	state := filepath.Join(work, "s")
	t.Cleanup(func() {
		if err := os.RemoveAll(work); err != nil {
			t.Error(err)
		}
	})
	rc := filepath.Join(work, "cli.tfrc")
	override := fmt.Sprintf("provider_installation {\n  dev_overrides { \"boxer-overlay/boxer\" = %q }\n  direct {}\n}\n", bin)
	err = errors.Join(os.CopyFS(e.dir, os.DirFS("../../examples/failover")), os.WriteFile(rc, []byte(override), 0o600),
		os.Mkdir(filepath.Join(e.dir, ".terraform"), 0o755)) // no init with an override
	if err != nil {
		t.Fatal(err)
	}
	e.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+rc, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "BOXER_STATE_DIR="+state, "BOXER_PLATFORM=")
	t.Cleanup(func() {
		if t.Failed() {
			e.dump(state)
		}
		e.terraform("destroy", "-auto-approve")
		if r := e.command("boxer", "network", "list"); strings.Contains(r, network) {
			t.Errorf("destroyed, and left: %s", r)
		}
	})
	e.apply()
	store, err := localcloud.Open(state, localcloud.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	if e.client, err = store.Connect(t.Context(), network); err != nil {
		t.Fatal(err)
	}
	e.client.Locate = true
	t.Cleanup(e.client.Close)
	if e.session, err = launch.Observe(t.Context(), e.client.Info()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.session.Close() })
	events, _ := e.session.Subscribe()
	e.seen <- nil
	go func() {
		for ev := range events {
			if ev.Member.Slot == "zk-3" {
				e.seen <- append(<-e.seen, change{time.Now(), ev.Member})
			}
		}
	}()
	return e
}

func (e *ensemble) command(program string, args ...string) string {
	e.t.Helper()
	if program == "boxer" {
		program = filepath.Join(e.bin, program)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = e.dir, e.env
	output, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, output)
	}
	return string(output)
}

func (e *ensemble) terraform(verb string, args ...string) {
	e.t.Helper()
	program := "terraform"
	for _, name := range []string{"terraform", "tofu", "../../tools/bin/tofu"} {
		if path, err := exec.LookPath(name); err == nil {
			program, _ = filepath.Abs(path)
			break
		}
	}
	e.command(program, append([]string{verb, "-input=false", "-no-color"}, args...)...)
}

func (e *ensemble) apply() {
	e.t.Helper()
	if e.terraform("apply", "-auto-approve"); e.t.Failed() {
		e.t.FailNow()
	}
}

// dump shows what the nodes said last.
func (e *ensemble) dump(state string) {
	logs, _ := filepath.Glob(filepath.Join(state, "networks", "*", "logs", "*"))
	for _, path := range logs {
		data, _ := os.ReadFile(path)
		lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(data, nil))), "\n")
		e.t.Logf("--- %s\n%s", filepath.Base(path), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// forwards opens a port here for each server, whoever has its name.
func (e *ensemble) forwards(t *testing.T) (addresses []string) {
	t.Helper()
	for server := range 3 {
		cmd := exec.Command(filepath.Join(e.bin, "boxer"), "forward", "--network", network, fmt.Sprintf("zk-%d", server+1), "0:2181")
		cmd.Env = e.env
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		})
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatalf("forward zk-%d: %v", server+1, err)
		}
		addresses = append(addresses, strings.Fields(line)[0])
	}
	return addresses
}

// kill ends the victim's host with all that runs there.
func (e *ensemble) kill() {
	e.t.Helper()
	host, err := e.client.Host(e.t.Context(), "zk-3")
	if err == nil && host.MachinePID == 0 {
		err = errors.New("it does not run")
	}
	if err == nil {
		err = syscall.Kill(host.MachinePID, syscall.SIGKILL)
	}
	if err != nil {
		e.t.Fatalf("kill zk-3: %v", err)
	}
}

// holder of the victim's slot.
func (e *ensemble) holder() cluster.Member {
	for _, m := range e.session.Members() {
		if m.Slot == "zk-3" && m.Holds() {
			return m
		}
	}
	return cluster.Member{}
}

// last is when a member of the victim's slot was last seen to come into a state.
func (e *ensemble) last(slot, kind, state string) (at time.Time) {
	all := <-e.seen
	e.seen <- all
	for _, c := range all {
		if c.member.Slot == slot && c.member.Kind == kind && c.member.State == state {
			at = c.at
		}
	}
	return at
}

// since is when one first was, after a time.
func (e *ensemble) since(after time.Time, ok func(cluster.Member) bool) time.Duration {
	all := <-e.seen
	e.seen <- all
	i := slices.IndexFunc(all, func(c change) bool { return c.at.After(after) && ok(c.member) })
	if i < 0 {
		return 0
	}
	return all[i].at.Sub(after)
}

func (e *ensemble) await(what string, ok func() bool) {
	e.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			e.t.Fatalf("not within a minute: %s; zk-3 is %+v", what, e.holder())
		}
	}
}

// caughtUp asks every server, itself up to date, for what was written last.
func (e *ensemble) caughtUp(l *load) {
	for server := range l.address {
		c := &client{l: l, server: server}
		c.read(e.t.Context(), true)
		c.drop()
	}
}

// silent are the servers that have not answered yet.
func (l *load) silent() (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for server, done := range l.done {
		if len(done) == 0 {
			names = append(names, fmt.Sprintf("zk-%d", server+1))
		}
	}
	return names
}

// servesSince is when a server began to answer, the last time that it did.
func (l *load) servesSince(server int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first[server]
}
