// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// packet is one TCP packet as the link saw it.
type packet struct {
	When    time.Duration
	From    int // 0: the client's side
	Source  int // ports
	Port    int
	Flags   int
	Payload int
}

// Flags of TCP (RFC 9293, 3.1).
const (
	flagSYN = 2
	flagRST = 4
	flagACK = 16
)

// client is the port of the client's end, server of the other.
func (p packet) client() int { return [2]int{p.Source, p.Port}[p.From] }
func (p packet) server() int { return [2]int{p.Port, p.Source}[p.From] }

// String is how the sequences of a report show it: the direction, what opens a
// connection, how many bytes it carries.
func (p packet) String() string {
	what := "ACK"
	switch {
	case p.Flags&flagRST != 0:
		what = "RST"
	case p.Flags&flagSYN != 0 && p.Flags&flagACK != 0:
		what = "SYN-ACK"
	case p.Flags&flagSYN != 0:
		what = "SYN"
	}
	if p.Payload > 0 {
		what = strings.TrimPrefix(fmt.Sprintf("%s+%d", what, p.Payload), "ACK+") // every packet but the first acknowledges
	}
	return [2]string{"> ", "< "}[p.From] + what
}

func readTrace(path string) ([]packet, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []packet
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var p packet
		if _, err := fmt.Sscan(lines.Text(), (*int64)(&p.When), &p.From, &p.Source, &p.Port, &p.Flags, &p.Payload); err != nil {
			return nil, fmt.Errorf("line %q of the link's trace: %w", lines.Text(), err)
		}
		all = append(all, p)
	}
	return all, lines.Err()
}

// capture sums up the connections of one side that the link saw.
type capture struct {
	Connections int     `json:"connections"`
	RoundTrips  float64 `json:"round_trips"`     // before the first byte, median
	Own         float64 `json:"round_trips_own"` // of its own packets alone, median
	Most        int     `json:"round_trips_most"`
	Packets     float64 `json:"packets"`  // of a connection, median
	Control     float64 `json:"control"`  // packets of supervisors while it was made, mean
	Sequence    string  `json:"sequence"` // up to the first byte, the most frequent
	// From the SYN to the client's answer to the SYN-ACK, median: the round trip
	// of the link, since kernels answer these at once.
	Handshake time.Duration `json:"handshake_ns"`
}

// quiet is how long before its SYN what supervisors send still counts as part
// of a connect: a question asked first is a round trip too.
const quiet = 3 * time.Millisecond

func anySYN(packet) bool { return true }

// summarise takes the connections to one port of the far side, of those that begin
// as wanted. Packets of other ports count between the end of the connection before
// and the first byte.
func summarise(all []packet, port int, wanted func(syn packet) bool) capture {
	var c capture
	var trips, own, handshakes, packets []float64
	control := 0
	sequences := map[string]int{}
	for i, p := range all {
		if p.From != 0 || p.server() != port || p.Flags&(flagSYN|flagACK) != flagSYN || !wanted(p) {
			continue
		}
		one, ok := follow(all, i)
		if !ok {
			continue
		}
		c.Connections++
		trips, own = append(trips, float64(one.trips)), append(own, float64(one.own))
		handshakes = append(handshakes, float64(one.handshake))
		c.Most = max(c.Most, one.trips)
		packets = append(packets, float64(one.packets))
		control += one.control
		sequences[one.sequence]++
	}
	if c.Connections == 0 {
		return c
	}
	c.Own = median(own)
	c.RoundTrips, c.Handshake = median(trips), time.Duration(median(handshakes))
	c.Packets = median(packets)
	c.Control = float64(control) / float64(c.Connections)
	for _, s := range slices.Sorted(maps.Keys(sequences)) {
		if sequences[s] > sequences[c.Sequence] {
			c.Sequence = s
		}
	}
	return c
}

// begins tells whether p is of another connection: a SYN-ACK of the client is not,
// where two SYNs cross.
func begins(p packet) bool {
	return p.Flags&flagRST != 0 || p.Flags&(flagSYN|flagACK) == flagSYN
}

// roundTrips begin at the client, and end with what comes back.
type roundTrips struct {
	number int
	away   bool
}

func (t *roundTrips) see(p packet) {
	if t.away && p.From == 1 {
		t.number++
	}
	t.away = p.From == 0
}

// flow is one connection as the link saw it. Its own round trips are those of its
// own packets.
type flow struct {
	trips, own, packets, control int
	sequence                     string
	handshake                    time.Duration
}

// follow looks at the connection whose SYN is packet number at; ok is false
// when it never had a first byte.
func follow(all []packet, at int) (f flow, ok bool) {
	syn := all[at]
	same := func(p packet) bool { return p.client() == syn.client() && p.server() == syn.server() }
	var trips, own roundTrips
	first := at
	for first > 0 && syn.When-all[first-1].When < quiet && all[first-1].Flags&flagRST == 0 {
		first--
	}
	var sequence []string
	for i := first; i < len(all) && !ok; i++ {
		p := all[i]
		if i > at && (p.When-syn.When > time.Second || same(p) && p.From == 0 && begins(p)) {
			return f, false // refused, or given up
		}
		trips.see(p)
		if !same(p) {
			f.control++
			continue
		}
		own.see(p)
		sequence = append(sequence, p.String())
		if p.From == 0 && i > at && f.handshake == 0 {
			f.handshake = p.When - syn.When
		}
		ok = p.From == 1 && p.Payload > 0
	}
	f.trips, f.own, f.sequence = trips.number, own.number, strings.Join(sequence, ", ")
	for i, p := range all[at:] {
		if p.When-syn.When > time.Second || i > 0 && same(p) && p.Flags&flagSYN != 0 && p.From == 0 {
			break
		}
		if same(p) {
			f.packets++
		}
	}
	return f, ok
}

// ports of the servers as packets show them: Boxer's direct connections go to
// the overlay port.
var linkPorts = map[string]int{"native": boxerPort + native, "boxer": config.DefaultPort}

func TestRoundTripsBeforeTheFirstByteAreCounted(t *testing.T) {
	us := func(n int) time.Duration { return time.Duration(n) * time.Microsecond }
	connection := func(at, client, port int) []packet {
		return []packet{
			{us(at), 0, client, port, flagSYN, 60},
			{us(at + 200), 1, port, client, flagSYN | flagACK, 0},
			{us(at + 400), 0, client, port, flagACK, 0},
			{us(at + 450), 1, port, client, flagACK, 1},
			{us(at + 600), 0, client, port, flagACK, 0},
			{us(at + 610), 0, client, port, flagRST, 0},
		}
	}
	plain := append(connection(0, 40000, 7002), connection(1000, 40001, 7002)...)
	got := summarise(plain, 7002, anySYN)
	want := capture{Connections: 2, RoundTrips: 2, Own: 2, Most: 2, Packets: 6, Handshake: us(400),
		Sequence: "> SYN+60, < SYN-ACK, > ACK, < 1"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// A supervisor that asks first costs a round trip, whatever port it uses.
	asked := []packet{{us(0), 0, 50000, 7717, flagACK, 90}, {us(200), 1, 7717, 50000, flagACK, 30}}
	asked = append(asked, connection(400, 40000, 7002)...)
	if got := summarise(asked, 7002, anySYN); got.RoundTrips != 3 || got.Own != 2 || got.Control != 2 {
		t.Errorf("after a question: %+v", got)
	}
	// Refused, and the port used again: not one long connection.
	refused := append([]packet{{us(0), 0, 40000, 7002, flagSYN, 0}, {us(100), 1, 7002, 40000, flagRST | flagACK, 0}}, connection(5000, 40000, 7002)...)
	if got := summarise(refused, 7002, anySYN); got.Connections != 1 || got.RoundTrips != 2 {
		t.Errorf("after a refusal: %+v", got)
	}
	// Two SYNs that cross.
	crossing := []packet{
		{us(0), 0, 40000, 7720, flagSYN, 0}, {us(300), 1, 7720, 40000, flagSYN, 0}, {us(400), 0, 40000, 7720, flagSYN | flagACK, 0},
		{us(600), 1, 7720, 40000, flagACK, 0}, {us(610), 0, 40000, 7720, flagACK, 96}, {us(810), 1, 7720, 40000, flagACK, 1},
	}
	if got := summarise(crossing, 7720, anySYN); got.Connections != 1 || got.Own != 3 {
		t.Errorf("two SYNs that cross: %+v", got)
	}
	if got := summarise(asked, 80, anySYN); got.Connections != 0 {
		t.Errorf("to a port nobody used: %+v", got)
	}
}
