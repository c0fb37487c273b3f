// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLastLines: of a daemon that died of its runtime the reason is told, and not
// the end of its traces.
func TestLastLines(t *testing.T) {
	const died = `{"level":"info","message":"up"}
runtime: failed to create new OS thread (have 5 already; errno=11)
runtime: may need to increase max user processes (ulimit -u)
fatal error: newosproc

runtime stack:
runtime.throw({0xb3e4b0?, 0x0?})
	runtime/panic.go:1101 +0x48 fp=0x7ffd sp=0x7ffc pc=0x4911a1
goroutine 1 gp=0x1 m=0 mp=0x2 [running]:
runtime.goexit({})
	runtime/asm_amd64.s:1771 +0x1 fp=0x266c sp=0x266b pc=0x4911a1
{"level":"error","error":"local cloud: inner ended: exit status 2","message":"local cloud ended"}
`
	const reason = "runtime: failed to create new OS thread (have 5 already; errno=11) | runtime: may need to increase max user processes (ulimit -u) | fatal error: newosproc"
	path := filepath.Join(t.TempDir(), "log")
	for log, want := range map[string]string{
		"":                              "(it is empty)",
		"a\nb\nc\nd\n":                  "b | c | d",
		died:                            reason,
		died + "{\"a\":1}\n{\"b\":2}\n": `{"level":"error","error":"local cloud: inner ended: exit status 2","message":"local cloud ended"} | {"a":1} | {"b":2}`, // it was started again since
	} {
		if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastLines(path); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestRemedies(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{stateError("/s", &fs.PathError{Op: "fork/exec", Path: "/s/boxer", Err: unix.EACCES}), "mounted noexec: set BOXER_STATE_DIR"},
		{stateError("/s", &fs.PathError{Op: "open", Path: "/s/x", Err: unix.EACCES}), "make it writable or set BOXER_STATE_DIR"},
		{stateError("/s", &fs.PathError{Op: "write", Path: "/s/x", Err: unix.EFBIG}), "ulimit -f"},
		{errors.New(exhausted("open_tree /etc: too many open files")), "ulimit -n"},
		{errors.New(exhausted("fork/exec x: resource temporarily unavailable")), "ulimit -u"},
		{errors.New("none" + exhausted("operation not permitted")), "none"},
		{errors.New(publishRemedy(errors.New("listen tcp 127.0.0.1:80: bind: permission denied"))), "choose a host_port from 1024 up"},
	} {
		if !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%v: want %q", c.err, c.want)
		}
	}
	s := &Store{dir: "/s"}
	err := fmt.Errorf("start daemon: %w", s.wrap(&fs.PathError{Op: "write", Path: "/s/x", Err: unix.EIO}))
	if text := s.explain(err).Error(); strings.Count(text, "state directory") != 1 {
		t.Errorf("it names the state directory once: %s", text)
	}
}

// TestRemovedNetwork: a daemon whose state directory was removed by hand ends with
// all of its network, for nobody could find it any more; one that was moved stays.
func TestRemovedNetwork(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	c := testNetwork(t, s, "shop")
	found := tracesOf(t, c)
	if err := os.Rename(string(c.dir), string(c.dir)+"2"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(homeCheck + homeCheck/4)
	if err := os.Rename(string(c.dir)+"2", string(c.dir)); err != nil {
		t.Fatal(err)
	}
	if p, err := c.dir.daemon(); err != nil || !p.Outer.alive() {
		t.Errorf("it should have stayed: %v", err)
	}
	if err := removeAll(string(c.dir)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); len(found.left()) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left: %v", found.left())
		}
	}
}

// TestDamagedNetwork: what is left of a network whose description is cut short can
// be deleted, and until then is named.
func TestDamagedNetwork(t *testing.T) {
	s := testStore(t)
	d := s.netDir("shop")
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.join("network.json"), []byte(`{"name": "sh`), 0o600); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("network \"shop\": %s is damaged (it ends after 12 bytes): put a good copy back, or delete the network", d.join("network.json"))
	if _, err := s.Networks(); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := s.DeleteNetwork(testContext(t), "shop"); err != nil {
		t.Error(err)
	}
}
