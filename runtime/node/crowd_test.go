// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// slowly lets connections wait until somebody sends it a word, takes all there are, and
// says how many, and how long the slowest accept took.
const slowly = `
import socket, sys, time
ln = socket.create_server(("", int(sys.argv[1])), backlog=1000)
first, _ = ln.accept()
first.recv(1)
while first.recv(1) != b"!": pass
ln.settimeout(1)
n, slowest, kept = 0, 0, []
try:
    while True:
        began = time.monotonic()
        kept.append(ln.accept()[0])
        n, slowest = n + 1, max(slowest, time.monotonic() - began)
except TimeoutError: pass
print("accepted %d slowest %.1f" % (n, slowest), flush=True)
time.sleep(60)
`

// throng makes many connections, and then has the first one say that they are there.
const throng = `
import socket, sys
first = socket.create_connection((sys.argv[1], int(sys.argv[2])))
first.send(b"?")
kept, failed = [], 0
for _ in range(int(sys.argv[3])):
    try:
        c = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
        c.send(b"x")
        kept.append(c)
    except OSError as e: failed += 1
first.send(b"!")
print("made %d failed %d" % (len(kept), failed), flush=True)
first.recv(1)
`

// TestManyWaitToBeAccepted: connections that a guest does not accept yet take two
// descriptors each. They may not take those that it is answered with.
func TestManyWaitToBeAccepted(t *testing.T) {
	w := newWorld(t)
	const port = "18131"
	s := w.start(config.Node{Kind: config.KindVM, Slot: "slow", Argv: []string{"python3", "-c", slowly, port}}, func(task *nodeTask) { task.Descriptors = 256 })
	w.member("slow", func(m cluster.Member) bool { return len(m.Listeners) > 0 })
	c := w.start(config.Node{Kind: config.KindVM, Slot: "throng", Transports: []string{config.TransportDirect}, Argv: []string{"python3", "-c", throng, "slow", port, "200"}})
	w.eventually("all are made, and taken", func() bool { return c.output() != "" && s.output() != "" })
	t.Logf("%s; %s", c.output(), s.output())
	var n int
	var slowest float64
	if _, err := fmt.Sscanf(s.output(), "accepted %d slowest %f", &n, &slowest); err != nil || n < 30 || slowest > 2 {
		t.Errorf("%s, %v", s.output(), err)
	}
	if log := s.log(); strings.Contains(log, "does not know Boxer") || !strings.Contains(log, "no descriptors are left") {
		t.Errorf("the wrong reason is given:\n%s", log)
	}
}
