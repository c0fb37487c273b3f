// SPDX-License-Identifier: Apache-2.0

package node

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// floodVariable is how many connections of each kind strangers make; an ordinary
// run makes fewer.
const (
	floodVariable = "BOXER_FLOOD"
	floodUsual    = 1000
	// Bounds of what a flooded supervisor may take, whatever the number: places
	// for the silent, for handshakes and those that wait for their turn, and for
	// halves that nobody comes for, each with its buffers.
	floodMemory      = 96 << 20
	floodDescriptors = 512 + 256 + 4096 + 512
)

// visits is a guest that connects for ever and says how that went.
const visits = `
import socket, sys, time
n, bad, slowest, end = 0, [], 0, time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    began = time.monotonic()
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as s:
            s.sendall(b"GET /x HTTP/1.0\r\n\r\n")
            while s.recv(4096): pass
        n += 1
    except OSError as e: bad.append(repr(e))
    slowest = max(slowest, time.monotonic() - began)
    print("visits %d bad %d slowest %.3f %s" % (n, len(bad), slowest, bad[:1]), flush=True)
    time.sleep(0.02)
`

// stranger is who floods an overlay port, from other addresses than members.
type stranger struct {
	t  *testing.T
	to string

	mu   sync.Mutex
	open []net.Conn
}

// knock sends b and keeps the connection.
func (s *stranger) knock(b []byte) {
	d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 201, byte(mrand.IntN(256)), byte(1+mrand.IntN(250)))}}
	conn, err := d.DialContext(s.t.Context(), "tcp", s.to)
	if err != nil {
		s.t.Errorf("a stranger: %v", err)
		return
	}
	_, _ = conn.Write(b) // it may be closed by now
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, conn)
}

// flood knocks n times, several at a time.
func (s *stranger) flood(n int, say func(i int) []byte) {
	var all sync.WaitGroup
	for part := range 8 {
		all.Go(func() {
			for i := part; i < n && !s.t.Failed(); i += 8 {
				s.knock(say(i))
			}
		})
	}
	all.Wait()
}

func (s *stranger) leave() {
	for _, conn := range s.open {
		_ = conn.Close()
	}
	s.open = nil
}

// relayHalf is a preface as a member makes it (transport.preface), for a session
// that nobody else comes for.
func relayHalf(id uint32, from netip.Addr) []byte {
	b := make([]byte, 96)
	copy(b, "BXP1\x01\x03")
	binary.BigEndian.PutUint64(b[8:], uint64(time.Now().UnixMilli()))
	_, _ = rand.Read(b[16:32]) // the nonce
	binary.BigEndian.PutUint32(b[32:], id)
	ip := from.As4()
	copy(b[36:], ip[:])
	_, _ = rand.Read(b[48:64]) // the session
	mac := hmac.New(sha256.New, cluster.PrefaceKey([]byte(testSecret)))
	mac.Write(b[:64])
	return append(b[:64], mac.Sum(nil)...)
}

func noise(size int, first ...byte) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b)
	copy(b, first)
	return b
}

// hello is what a TLS client says first.
func hello(t *testing.T) []byte {
	said := make(chan []byte, 1)
	ours, theirs := net.Pipe()
	go func() {
		b := make([]byte, 4096)
		n, _ := theirs.Read(b)
		theirs.Close()
		said <- b[:n]
	}()
	_ = tls.Client(ours, &tls.Config{ServerName: "boxer", MinVersion: tls.VersionTLS13}).HandshakeContext(t.Context())
	ours.Close()
	return <-said
}

// usage is what a process takes.
type usage struct{ memory, descriptors int }

func (s *supervisor) usage() (u usage) {
	s.w.t.Helper()
	dir := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		s.w.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kB, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			u.memory, _ = strconv.Atoi(strings.Fields(kB)[0])
			u.memory <<= 10
		}
	}
	list, err := os.ReadDir(dir + "fd")
	if err != nil {
		s.w.t.Fatal(err)
	}
	u.descriptors = len(list)
	return u
}

// TestFlood: strangers at the seed's overlay port cost a bounded amount, and
// members that meet and join there do not notice.
func TestFlood(t *testing.T) {
	n := floodUsual
	if text := os.Getenv(floodVariable); text != "" {
		n, _ = strconv.Atoi(text)
	}
	w := newWorld(t)
	w.start(config.Node{Kind: config.KindVM, Slot: "store", Argv: []string{"python3", "-c", server, "18103"}})
	w.member("store", func(m cluster.Member) bool { return len(m.Listeners) > 0 })
	// It reaches the seed only, so every visit meets the store there.
	guest := w.start(config.Node{Kind: config.KindClient, Slot: "visitor", Argv: []string{"python3", "-c", visits, "store", "18103", "120"}})
	m := w.member("visitor", in(cluster.StateRunning))
	w.eventually("the first visit", func() bool { return strings.HasPrefix(guest.output(), "visits 1") })
	before := w.seed.usage()
	half := relayHalf(m.ID, m.OverlayAddress)
	for _, flood := range []struct {
		what string
		n    int
		say  func(i int) []byte
	}{
		{"half-open", n, func(i int) []byte { return [][]byte{nil, half[:50], {0x16}, {0x16, 3, 1, 2, 0}, hello(t)}[i%5] }},
		{"garbage", n, func(i int) []byte {
			return [][]byte{noise(200), noise(96, 'B', 'X', 'P', '1', 1, 1), noise(600, 0x16, 3, 1, 2, 0), []byte("GET / HTTP/1.1\r\n\r\n")}[i%4]
		}},
		{"replays", n / 4, func(int) []byte { return half }},
		{"stray relay sessions", n / 4, func(int) []byte { return relayHalf(999, m.OverlayAddress) }}, // of nobody
	} {
		s := &stranger{t: t, to: w.seedAddress()}
		began := time.Now()
		s.flood(flood.n, flood.say)
		took := time.Since(began)
		now := w.seed.usage()
		t.Logf("%d connections, %s, in %v: %d MiB more, %d descriptors more", flood.n, flood.what, took.Round(time.Millisecond),
			(now.memory-before.memory)>>20, now.descriptors-before.descriptors)
		if now.memory-before.memory > floodMemory || now.descriptors-before.descriptors > floodDescriptors {
			t.Errorf("%s: %+v before, %+v now", flood.what, before, now)
		}
		// While they all are there: one who joins, and the visits.
		late := w.start(config.Node{Kind: config.KindClient, Slot: "late", Argv: []string{"true"}})
		if code := late.wait(); code != 0 {
			t.Errorf("%s: a node that joins ends with %d\n%s", flood.what, code, late.log())
		}
		seen := guest.output()
		w.eventually("visits go on", func() bool { return len(guest.output()) > len(seen)+200 })
		s.leave()
	}
	lines := strings.Split(guest.output(), "\n")
	last := lines[len(lines)-1]
	t.Log(last)
	if !strings.Contains(last, " bad 0 ") {
		t.Errorf("a member was not served: %s", last)
	}
	guest.stop()
}
