// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strings"
)

// Ports of the two servers on a host: the interposed one and the native one.
const (
	boxerPort  = 7001
	nativePort = 7002
)

// Numbers of blocks, and the size of each. A block is short enough that its
// neighbour sees the same machine.
const (
	latencyBlocks = 48
	streamBlocks  = 96
	connectCount  = 250
	connectMS     = 200
	rttBytes      = 1024
	rttCount      = 4000
	streamMS      = 100
	spawnBlocks   = 10
	spawnCount    = 50
	lookups       = 30
)

// side is one of the things compared in a measure.
type side struct {
	name    string
	program string // guest or baseline
	host    string
	port    int
	cpu     string
}

// One program, with the process monitor and without.
const (
	guest    = "/var/task/probe"
	baseline = "/var/task/probe-static bare /var/task/probe"
)

// script is what a host runs: a list of runs of the probe in order.
type script struct{ lines []string }

func (s *script) run(measure string, sd side, block int, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf("PROBE_LABEL=%s/%s/%d PROBE_CPU=%s %s %s",
		measure, sd.name, block, sd.cpu, sd.program, strings.TrimSpace(fmt.Sprintln(args...))))
}

// blocks lets the sides take turns, each as often in every place and after
// every other: they rotate, and every other round goes backwards.
func (s *script) blocks(n int, measure string, sides []side, args func(side) []any) {
	for block := range n {
		for i := range sides {
			i = (i + block) % len(sides)
			if block/len(sides)%2 == 1 {
				i = len(sides) - 1 - i
			}
			s.run(measure, sides[i], block, args(sides[i])...)
		}
	}
}

func (s *script) connect(measure string, sides []side) {
	s.blocks(latencyBlocks, measure, sides, func(sd side) []any {
		return []any{"connect", sd.host, sd.port, connectCount, connectMS}
	})
}

func (s *script) open(prefix string, sides []side) {
	s.blocks(latencyBlocks, prefix+".rtt", sides, func(sd side) []any {
		return []any{"rtt", sd.host, sd.port, rttBytes, rttCount}
	})
	s.blocks(streamBlocks, prefix+".stream", sides, func(sd side) []any {
		return []any{"stream", sd.host, sd.port, streamMS}
	})
}

func (s *script) text() string {
	return "# SPDX-License-Identifier: Apache-2.0\nset -eu\n" + strings.Join(s.lines, "\n") + "\n"
}

// vmScript is what the client VM measures: native, relay, and what preloading costs.
func vmScript(server, cpu, otherCPU string) string {
	native := side{"native", baseline, server, nativePort, cpu}
	again := side{"again", baseline, server, nativePort, cpu}
	listener := side{"listener", baseline, server, boxerPort, cpu}
	boxer := side{"boxer", guest, "srv", boxerPort, cpu}
	relay := side{"boxer", guest, "fn", boxerPort, cpu}
	s := &script{}
	s.connect("native.connect", []side{native, boxer, again, listener})
	if otherCPU != "" {
		far, farBoxer := native, boxer
		far.cpu, farBoxer.cpu = otherCPU, otherCPU
		s.connect("native.connect2", []side{far, farBoxer})
	}
	s.open("native", []side{native, boxer, again})
	s.connect("relay.connect", []side{native, relay})
	s.open("relay", []side{native, relay})
	s.blocks(spawnBlocks, "exec", []side{{"native", "/var/task/probe-static", "-b", 0, cpu}, {"boxer", "/var/task/probe-static", "", 0, cpu}}, func(sd side) []any {
		return []any{"spawn", spawnCount, sd.host, guest, "nothing"}
	})
	s.blocks(lookups, "lookup", []side{boxer}, func(sd side) []any { return []any{"lookup", sd.host} })
	return s.text()
}

// functionScript is what the client function measures: direct, and next to it
// the native probe through the same NAT.
func functionScript(server, cpu string) string {
	native := side{"native", baseline, server, nativePort, cpu}
	again := side{"again", baseline, server, nativePort, cpu}
	boxer := side{"boxer", guest, "srv", boxerPort, cpu}
	s := &script{}
	s.connect("direct.connect", []side{native, boxer, again})
	s.open("direct", []side{native, boxer, again})
	return s.text()
}
