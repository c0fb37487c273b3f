// SPDX-License-Identifier: Apache-2.0

package bench

import "testing"

// Targets of the first version.
var (
	connectTarget = &target{"ratio", "<=", 1.10}
	rttTarget     = &target{"ratio", "<=", 1.03}
	streamTarget  = &target{"ratio", ">=", 0.97}
	launchTarget  = &target{"boxer", "<=", 25}
)

// Units of what the probe counts in nanoseconds and bytes per second.
var scale = map[string]float64{"us": 1e3, "ms": 1e6, "MB/s": 1e6}

// wanted is a row made of two sides of a measure.
type wanted struct {
	name, unit, measure, base, with string
	target                          *target
}

// connections lists the rows about connections, in the order of the table.
var connections = []wanted{
	{"connect + first byte, native (VM to VM)", "us", "native.connect", "native", "boxer", connectTarget},
	{"  the same, client native (accept alone)", "us", "native.connect", "native", "listener", nil},
	{"  the same, client and server on two CPUs", "us", "native.connect2", "native", "boxer", nil},
	{"  control: native again", "us", "native.connect", "native", "again", nil},
	{"connect + first byte, direct (function to VM)", "us", "direct.connect", "native", "boxer", nil},
	{"  control: native through the NAT again", "us", "direct.connect", "native", "again", nil},
	{"connect + first byte, relay (VM to function; native: VM to VM)", "us", "relay.connect", "native", "boxer", nil},
	{"round trip of 1,024 bytes, native", "us", "native.rtt", "native", "boxer", rttTarget},
	{"  control: native again", "us", "native.rtt", "native", "again", nil},
	{"round trip of 1,024 bytes, direct", "us", "direct.rtt", "native", "boxer", rttTarget},
	{"  control: native through the NAT again", "us", "direct.rtt", "native", "again", nil},
	{"round trip of 1,024 bytes, relay (native: VM to VM)", "us", "relay.rtt", "native", "boxer", nil},
	{"throughput, native", "MB/s", "native.stream", "native", "boxer", streamTarget},
	{"  control: native again", "MB/s", "native.stream", "native", "again", nil},
	{"throughput, direct", "MB/s", "direct.stream", "native", "boxer", streamTarget},
	{"  control: native through the NAT again", "MB/s", "direct.stream", "native", "again", nil},
	{"throughput, relay (native: VM to VM)", "MB/s", "relay.stream", "native", "boxer", nil},
	{"supervisor exec to guest exec (native: the guest's own exec)", "ms", "launch", "native", "boxer", launchTarget},
	{"exec of a small program, with the preload", "us", "exec", "native", "boxer", nil},
}

// rows makes the table; every row must have been measured.
func rows(t *testing.T, r results) []row {
	t.Helper()
	var all []row
	for _, w := range connections {
		if _, one := r[w.measure]; !one && w.measure == "native.connect2" {
			continue // a machine with one CPU
		}
		all = append(all, compareRow(t, r, w))
	}
	blocks, err := r.side("lookup", "boxer")
	if err != nil {
		t.Fatal(err)
	}
	var first, second []float64
	for _, b := range blocks {
		first, second = append(first, b.First/1e3), append(second, b.Second/1e3)
	}
	return append(all,
		row{Name: "first look-up of a process (fetches the table)", Unit: "us", Boxer: median(first), Samples: len(first)},
		row{Name: "second look-up of a process", Unit: "us", Boxer: median(second), Samples: len(second)})
}

func compareRow(t *testing.T, r results, w wanted) row {
	t.Helper()
	base, err := r.side(w.measure, w.base)
	if err != nil {
		t.Fatal(err)
	}
	with, err := r.side(w.measure, w.with)
	if err != nil {
		t.Fatal(err)
	}
	c, err := compare(base, with)
	if err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
	by := scale[w.unit]
	one := row{Name: w.name, Unit: w.unit, Native: c.base / by, Boxer: c.with / by, Samples: c.samples, Target: w.target}
	if c.blocks > 1 { // one block has no neighbours to compare
		one.Ratio, one.Low, one.High, one.Blocks = c.ratio, c.low, c.high, c.blocks
	}
	return one.judge()
}
