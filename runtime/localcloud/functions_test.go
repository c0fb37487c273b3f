// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// TestNoLaunchWhileDeleted: an event that comes while a function's replicas end, late or
// from somebody else, starts none that nobody would end.
func TestNoLaunchWhileDeleted(t *testing.T) {
	t.Parallel()
	guest := exec.Command("sleep", "600")
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = guest.Process.Kill(); _ = guest.Wait() })
	dir := netDir(t.TempDir() + "/networks/shop")
	if err := os.MkdirAll(dir.join("logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	slow := &sandbox{cmd: guest, gone: make(chan struct{})}
	d := &daemon{
		dir: dir, files: dir, log: zerolog.Nop(), info: NetworkInfo{Name: "shop"}, stopped: make(chan struct{}),
		functions: map[string]*function{"logic": {record: Function{Name: "logic"}, invocations: []*invocation{{record: Invocation{Slot: "logic-0"}, box: slow}}}},
	}
	deleted := make(chan error, 1)
	go func() { deleted <- d.deleteFunction("logic", true) }()
	for asked := false; !asked; time.Sleep(time.Millisecond) {
		slow.mu.Lock()
		asked = slow.asked
		slow.mu.Unlock()
	}
	if i, err := d.invoke("logic", []byte(`{"slot": "logic-1"}`)); !errors.Is(err, ErrNotFound) {
		t.Errorf("launched: %+v, %v", i, err)
	}
	close(slow.gone)
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	if len(d.functions) != 0 {
		t.Errorf("left: %v", d.functions)
	}
}

// TestLateListener: the answer to a request that was given up is not taken for that to the next.
func TestLateListener(t *testing.T) {
	t.Parallel()
	ours, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	control, err := newControlConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{control: control, answers: make(chan controlAnswer)}
	var files []*os.File
	for range 2 {
		file, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files = append(files, file)
	}
	go func() {
		for i, address := range []string{"127.0.0.1:1001", "127.0.0.1:1002"} {
			d.answers <- controlAnswer{controlPacket{Op: opListen, Address: address}, files[i]}
		}
	}()
	if got, err := d.listenOutside(t.Context(), "127.0.0.1:1002"); err != nil || got != files[1] {
		t.Errorf("the listener of another place: %v, %v", got, err)
	}
	if err := files[0].Close(); err == nil {
		t.Error("the listener that nobody wants stays open")
	}
}
