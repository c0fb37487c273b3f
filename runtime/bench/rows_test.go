// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"testing"
)

func atMost(ratio float64) *target  { return &target{"ratio", "<=", ratio} }
func atLeast(ratio float64) *target { return &target{"ratio", ">=", ratio} }

// Units of what the probe counts in nanoseconds and per second.
var scale = map[string]float64{"us": 1e3, "ms": 1e6, "MB/s": 1e6, "1/s": 1}

// wanted is a row made of two sides of a measure.
type wanted struct {
	name, unit, measure string
	of                  statistic
	target              *target
	with                string // default boxer
}

// wantedRows lists the rows that compare, in the order of the table.
var wantedRows = []wanted{
	{"connect + first byte, native (VM to VM), p50", "us", "native.connect", blockValue, atMost(1.05), ""},
	{"connect + first byte, native, p99", "us", "native.connect", pooledP99, atMost(1.25), ""},
	{"the same, client native (accept alone), p50", "us", "native.connect", blockValue, nil, "listener"},
	{"the same, client and server on two CPUs, p50", "us", "native.connect2", blockValue, nil, ""},
	{"connect + first byte, direct (function to VM), p50", "us", "direct.connect", blockValue, &target{"difference", "<=", 120}, ""},
	{"connect + first byte, direct, p99", "us", "direct.connect", pooledP99, nil, ""},
	{"connect + first byte, direct, client and server on two CPUs, p50", "us", "direct.connect2", blockValue, nil, ""},
	{"connect + first byte, direct, link with 200 us round trip, p50", "us", "link.connect", blockValue, atMost(2.5), ""},
	{"connect + first byte, direct, link with 200 us round trip, p99", "us", "link.connect", pooledP99, nil, ""},
	{"connect + first byte, relay (VM to function by way of a relay; native: VM to VM), p50", "us", "relay.connect", blockValue, nil, ""},
	{"connect + first byte, relay, p99", "us", "relay.connect", pooledP99, nil, ""},
	{"connect + first byte, punch, twelve in a row (function to function; native: to a VM, through one NAT), p50", "us", "punch.row", blockValue, &target{"difference", "<=", 250}, ""},
	{"connect + first byte, punch, twelve in a row, p99", "us", "punch.row", pooledP99, nil, ""},
	{"the same natively through two NATs, one of them open (native: through one), p50", "us", "punch.row", blockValue, nil, "two"},
	{"connect + first byte, punch, one every 10 ms, p50", "us", "punch.connect", blockValue, &target{"difference", "<=", 250}, ""},
	{"connect + first byte, punch, one every 10 ms, p99", "us", "punch.connect", pooledP99, nil, ""},
	{"the same natively through two NATs, one of them open (native: through one), one every 10 ms, p50", "us", "punch.connect", blockValue, nil, "two"},
	{"connect + first byte, punch, cold (nothing prepared), p50", "us", "punch.cold", blockValue, nil, ""},
	{"connect + first byte, punch, link with 200 us round trip (native: to a VM), p50", "us", "link.punch", blockValue, atMost(3), ""},
	{"connect + first byte, punch, cold, link with 200 us round trip, p50", "us", "link.cold", blockValue, nil, ""},
	{"nginx, Connection: close, wrk, native", "1/s", "native.web", blockValue, atLeast(0.97), ""},
	{"nginx, Connection: close, wrk, direct", "1/s", "direct.web", blockValue, nil, ""},
	{"accept with 8 processes on one listener, native", "1/s", "native.crowd", blockValue, nil, ""},
	{"accept with 8 processes on one listener, direct", "1/s", "direct.crowd", blockValue, nil, ""},
	{"round trip of 1,024 bytes, native, p50", "us", "native.rtt", blockValue, atMost(1.03), ""},
	{"round trip of 1,024 bytes, direct, p50", "us", "direct.rtt", blockValue, atMost(1.03), ""},
	{"round trip of 1,024 bytes, relay (native: VM to VM), p50", "us", "relay.rtt", blockValue, nil, ""},
	{"round trip of 1,024 bytes, punch (native: through two NATs, one of them open), p50", "us", "punch.rtt", blockValue, atMost(1.03), ""},
	{"throughput, native", "MB/s", "native.stream", blockValue, atLeast(0.97), ""},
	{"throughput, direct", "MB/s", "direct.stream", blockValue, atLeast(0.97), ""},
	{"throughput, relay (native: VM to VM)", "MB/s", "relay.stream", blockValue, nil, ""},
	{"throughput, relay (VM to VM; native: HAProxy in TCP mode in its place)", "MB/s", "haproxy.stream", blockValue, atLeast(0.8), ""},
	{"throughput, punch (native: through two NATs, one of them open)", "MB/s", "punch.stream", blockValue, nil, ""},
	{"fork, exec and exit of /bin/true, p50", "us", "fork", blockValue, atMost(1.15), ""},
	{"vfork, exec and exit of /bin/true, p50", "us", "spawn", blockValue, nil, ""},
	{"getaddrinfo (native: of /etc/hosts), p50", "us", "lookup", blockValue, atMost(1.00), ""},
	{"getaddrinfo, the first of a process, p50", "us", "lookup", blockFirst, nil, ""},
	{"supervisor exec to guest exec (native: the guest's own exec), p50", "ms", "launch", blockValue, &target{"boxer", "<=", 25}, ""},
	{"12 functions at once, to the last one's answer: from boxer scale (native: bare handlers, from Invoke)", "ms", burstMeasure, blockValue, &target{"difference", "<=", 300}, ""},
	{"the same, in all", "ms", burstMeasure, blockValue, &target{"boxer", "<=", 1500}, ""},
	{"first connect to a function that sleeps, from a VM (native: a bare handler, from Invoke)", "ms", wakeMeasure, blockValue, &target{"difference", "<=", 300}, ""},
}

// rows makes the table of what compares. What could not be measured here says why.
func rows(t *testing.T, r results, p plan, missing map[string]string) []row {
	t.Helper()
	var all []row
	for _, w := range wantedRows {
		if !p.wants(w.measure) {
			continue
		}
		if why := missing[w.measure]; why != "" {
			all = append(all, row{Name: w.name, Unit: w.unit, Target: w.target, Missing: why})
			continue
		}
		one, err := w.row(r)
		if errors.Is(err, errFew) {
			one, err = row{Name: w.name, Unit: w.unit, Target: w.target, Missing: err.Error()}, nil
		}
		if err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		all = append(all, one)
	}
	return all
}

func (w wanted) row(r results) (row, error) {
	with := w.with
	if with == "" {
		with = "boxer"
	}
	base, err := r.side(w.measure, "native")
	if err != nil {
		return row{}, err
	}
	measured, err := r.side(w.measure, with)
	if err != nil {
		return row{}, err
	}
	again, err := r.side(w.measure, "again")
	if err != nil {
		return row{}, err
	}
	c, err := compare(base, measured, w.of)
	if err != nil {
		return row{}, err
	}
	control, err := compare(base, again, w.of)
	if err != nil {
		return row{}, fmt.Errorf("native again: %w", err)
	}
	by := scale[w.unit]
	more := c.more.scaled(by)
	return row{Name: w.name, Unit: w.unit, Native: c.base / by, Boxer: c.with / by, Samples: c.samples, Target: w.target,
		Ratio: &c.ratio, More: &more, Control: &control.ratio, Blocks: c.blocks}.judge(), nil
}

// punchRows are about what crossed the delayed link between two NATs. A cold
// connection asks when its SYN leaves, and waits for the answer; what is prepared for
// the next one passes at the same time, and is not waited for.
func punchRows(p plan, captures map[string]capture, missing map[string]string) []row {
	var all []row
	base := captures["native beside punch"]
	for _, one := range []struct{ name, measure, side string }{
		{"round trips before the first byte, punch, in a capture", "link.punch", "punch"},
		{"round trips before the first byte, punch, cold, in a capture", "link.cold", "punch, cold"},
	} {
		if !p.wants(one.measure) {
			continue
		}
		r := row{Name: one.name, Target: &target{"difference", "<=", 2}, Missing: missing[one.measure]}
		with := captures[one.side]
		if r.Missing == "" && (base.Connections == 0 || with.Connections == 0) {
			r.Missing = "the link saw no such connections"
		}
		if r.Missing == "" {
			more, ratio := with.Own-base.Own, with.Own/base.Own
			r.Native, r.Boxer, r.Samples = base.Own, with.Own, with.Connections
			r.More, r.Ratio = &estimate{more, more, more}, &estimate{ratio, ratio, ratio}
			r.Note = fmt.Sprintf("native %s; Boxer %s. Medians of %d and %d connections; with packets of supervisors between them, %.3f per connection, %g round trips",
				base.Sequence, with.Sequence, base.Connections, with.Connections, with.Control, with.RoundTrips)
		}
		all = append(all, r.judge())
	}
	return all
}

// linkRows are about the delayed link: what it is, and what crossed it.
func linkRows(t *testing.T, r results, captures map[string]capture, missing string) []row {
	t.Helper()
	trips := row{Name: "round trips before the first byte, direct, in a capture", Target: atMost(1), Missing: missing}
	packets := row{Name: "packets of a connection, direct, in a capture", Missing: missing}
	achieved := row{Name: "the delayed link, from SYN to the answer to the SYN-ACK, p50", Unit: "us", Missing: missing}
	if missing != "" {
		return []row{trips, packets, achieved}
	}
	base, with := captures["native"], captures["boxer"]
	if base.Connections == 0 || with.Connections == 0 {
		t.Fatalf("the link saw no connections: %+v", captures)
	}
	ratio := with.RoundTrips / base.RoundTrips
	trips.Native, trips.Boxer, trips.Ratio = base.RoundTrips, with.RoundTrips, &estimate{ratio, ratio, ratio}
	trips.Samples = with.Connections
	trips.Note = fmt.Sprintf("native %s; Boxer %s (> from the client; the numbers are bytes). Medians; at most %d and %d, of %d and %d connections",
		base.Sequence, with.Sequence, base.Most, with.Most, base.Connections, with.Connections)
	packets.Native, packets.Boxer = base.Packets, with.Packets
	packets.Note = fmt.Sprintf("and %.3f packets of the supervisors per connection (natively %.3f pass by chance)", with.Control, base.Control)
	none, err := r.side("link.ping", "none")
	if err != nil {
		t.Fatal(err)
	}
	delayed, err := r.side("link.ping", "delayed")
	if err != nil {
		t.Fatal(err)
	}
	achieved.Native, achieved.Boxer = base.Handshake.Seconds()*1e6, with.Handshake.Seconds()*1e6
	achieved.Note = fmt.Sprintf("one byte there and back between two programs: %.0f us with a delay of %s each way, %.0f us without",
		delayed[0].P50/1e3, linkDelay, none[0].P50/1e3)
	return []row{trips.judge(), packets, achieved}
}
