// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// busy listens, never accepts, and uses a CPU.
const busy = `
import socket
s = socket.create_server(("", 18137), backlog=8)
while True: pass
`

// TestLoad: a node that was asked says what its guest has to do, one that was not
// says nothing.
func TestLoad(t *testing.T) {
	w := newWorld(t)
	w.start(config.Node{Kind: config.KindVM, Slot: "one", Argv: []string{"python3", "-c", busy}, Load: true, Metrics: "unix:" + w.path("one.sock")})
	w.start(config.Node{Kind: config.KindVM, Slot: "quiet", Argv: []string{"sleep", "60"}})
	m := w.member("one", func(m cluster.Member) bool {
		return len(m.Listeners) == 1 && m.Load != nil && m.Load.CPU > 0.1 && m.Load.Connections == 0
	})
	for range 3 {
		conn, err := net.Dial("tcp", netip.AddrPortFrom(m.UnderlayAddress.Addr(), 18137).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	w.member("one", func(m cluster.Member) bool { return m.Load.Connections == 3 && m.Load.AcceptQueue == 3 })
	text := scrape(t, "unix", w.path("one.sock"))
	for _, want := range []string{`boxer_load_connections{slot="one"} 3`, `boxer_load_accept_queue{slot="one"} 3`, `boxer_load_cpu{slot="one"} `} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	quiet := w.member("quiet", func(m cluster.Member) bool { return m.State == cluster.StateRunning })
	if quiet.Load != nil {
		t.Errorf("it was not asked: %+v", quiet.Load)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.watch.Call(ctx, quiet.ID, "load", struct{}{}, nil); err == nil || !strings.Contains(err.Error(), "no seed") {
		t.Errorf("asked by an observer: %v", err)
	}
}

func TestChanged(t *testing.T) {
	load := func(cpu float64, connections int) cluster.Load {
		return cluster.Load{CPU: cpu, Connections: connections}
	}
	for _, c := range []struct {
		told, now cluster.Load
		want      bool
	}{
		{load(0, 0), load(0, 1), true}, {load(0, 80), load(0, 89), false}, {load(0, 80), load(0, 92), true}, {load(0, 80), load(0, 69), true},
		{load(1, 0), load(1.1, 0), false}, {load(1, 0), load(1.2, 0), true}, {load(0.01, 0), load(0.03, 0), false}, {load(0.01, 0), load(0.04, 0), true},
	} {
		if got := changed(c.told, c.now); got != c.want {
			t.Errorf("%+v -> %+v: %v", c.told, c.now, got)
		}
	}
}

// TestCPUMeter: it averages, and begins anew with another process.
func TestCPUMeter(t *testing.T) {
	var m cpuMeter
	now := time.Now()
	if got := m.use(os.Getpid(), now); got != 0 {
		t.Errorf("the first look: %v", got)
	}
	for began := time.Now(); time.Since(began) < 100*time.Millisecond; {
		_ = strconv.Itoa(int(math.Sqrt(2)))
	}
	if got := m.use(os.Getpid(), now.Add(time.Second)); got < 0.02 || got > 1 {
		t.Errorf("up to 0.1 s of CPU in a second: %v", got)
	}
	if got := m.use(os.Getppid(), now.Add(2*time.Second)); got != 0 {
		t.Errorf("another process: %v", got)
	}
	if got := m.use(0, now.Add(3*time.Second)); got != 0 || len(m.samples) != 0 {
		t.Errorf("no process: %v", got)
	}
}
