// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// Ports of the servers on a host, of each kind the interposed one and the native one.
const (
	boxerPort = 7001 + 2*iota
	crowdPort
	webPort

	native = 1 // added to a port: the native server
)

// Numbers of blocks, and the size of each. A block is short enough that its
// neighbour sees the same machine.
const (
	latencyBlocks = 48
	streamBlocks  = 72
	connectCount  = 250
	connectMS     = 200
	punchBlocks   = 40
	coldBlocks    = 24
	rowOf         = 12 // one after the other, and then a pause
	rowPauseUS    = 60_000
	pausedCount   = 30 // with a pause of 10 ms before each
	pausedUS      = 10_000
	pausedMS      = 1000
	rttBytes      = 1024
	rttCount      = 2500
	streamMS      = 80
	spawnBlocks   = 24
	spawnCount    = 30
	lookupBlocks  = 30
	lookupCount   = 400
	crowdBlocks   = 24
	crowdServers  = 8
	crowdClients  = 8
	crowdMS       = 250
	webBlocks     = 12
	webDirect     = 5 // fewer: who closes first has TIME_WAIT, and all go to one port
	webClients    = 8
)

// side is one of the things compared in a measure.
type side struct {
	name   string
	bare   bool // without the process monitor
	host   string
	native int // added to the ports: 0 or native
	cpu    string
}

// sides of a measure: native, Boxer, and native again, which shows the noise.
func threeSides(underlay, name, cpu string) []side {
	return []side{
		{"native", true, underlay, native, cpu},
		{"boxer", false, name, 0, cpu},
		{"again", true, underlay, native, cpu},
	}
}

// probe is the command of the one program, with the monitor or without.
func (sd side) probe(args ...any) string {
	return sd.command("$T/probe", args...)
}

func (sd side) command(program string, args ...any) string {
	line := program + " " + strings.TrimSpace(fmt.Sprintln(args...))
	if sd.bare {
		return "$T/probe-static bare " + line
	}
	return line
}

// plan is what all scripts of a run have in common.
type plan struct {
	Seed   uint64   `json:"seed"`             // of the order of sides
	Rounds int      `json:"rounds,omitempty"` // at most so many, for a quick look; 0: all
	Only   []string `json:"only,omitempty"`   // measures; none: all
}

func (p plan) wants(measure string) bool {
	return len(p.Only) == 0 || slices.Contains(p.Only, measure)
}

// script is what a host runs: a list of runs of the probe in an order that is drawn.
type script struct {
	draw  *rand.Rand
	plan  plan
	lines []string
}

func (p plan) script(name string) *script {
	h := fnv.New64()
	_, _ = h.Write([]byte(name))
	return &script{draw: rand.New(rand.NewPCG(p.Seed, h.Sum64())), plan: p}
}

// blocks draws, round by round, the order in which the sides have their turn.
func (s *script) blocks(n int, measure string, sides []side, command func(side) string) {
	if !s.plan.wants(measure) {
		return
	}
	if s.plan.Rounds > 0 {
		n = min(n, s.plan.Rounds)
	}
	for block := range n {
		for _, i := range s.draw.Perm(len(sides)) {
			s.lines = append(s.lines, fmt.Sprintf("PROBE_LABEL=%s/%s/%d PROBE_CPU=%s %s",
				measure, sides[i].name, block, sides[i].cpu, command(sides[i])))
		}
	}
}

// idle tells whether none of the script's measures is wanted.
func (s *script) idle() bool {
	return !slices.ContainsFunc(s.lines, func(line string) bool { return strings.HasPrefix(line, "PROBE_LABEL=") })
}

// paused measures connections with a pause before each; how is more for the probe
// to know.
func (s *script) paused(n int, measure, how string, sides []side) {
	s.blocks(n, measure, sides, func(sd side) string {
		return fmt.Sprintf("%sPROBE_SAMPLES=1 PROBE_PAUSE_US=%d ", how, pausedUS) +
			sd.probe("connect", sd.host, boxerPort+sd.native, pausedCount, pausedMS)
	})
}

// settle gives a function time to learn about its NAT.
func (s *script) settle() { s.lines = append(s.lines, "sleep 3") }

// await waits for a server that no supervisor waits for.
func (s *script) await(sd side, port int) {
	s.lines = append(s.lines, sd.probe("await", sd.host, port+sd.native))
}

func (s *script) connect(measure string, sides []side) {
	s.blocks(latencyBlocks, measure, sides, func(sd side) string {
		return "PROBE_SAMPLES=1 " + sd.probe("connect", sd.host, boxerPort+sd.native, connectCount, connectMS)
	})
}

func (s *script) open(prefix string, sides []side) {
	s.blocks(latencyBlocks, prefix+".rtt", sides, func(sd side) string {
		return sd.probe("rtt", sd.host, boxerPort+sd.native, rttBytes, rttCount)
	})
	s.stream(prefix, sides)
}

func (s *script) stream(prefix string, sides []side) {
	s.blocks(streamBlocks, prefix+".stream", sides, func(sd side) string {
		return sd.probe("stream", sd.host, boxerPort+sd.native, streamMS)
	})
}

// crowd measures connections a second to processes that share one listener.
func (s *script) crowd(measure string, sides []side) {
	for i := range sides {
		sides[i].cpu = "" // eight servers and eight clients use all there are
		s.await(sides[i], crowdPort)
	}
	s.blocks(crowdBlocks, measure, sides, func(sd side) string {
		return sd.probe("flood", sd.host, crowdPort+sd.native, crowdClients, crowdMS)
	})
}

// web measures requests a second of nginx that closes after each.
func (s *script) web(measure string, n int, sides []side) {
	for _, sd := range sides {
		s.await(sd, webPort)
	}
	s.blocks(n, measure, sides, func(sd side) string {
		return "requests " + sd.command("/usr/bin/wrk", "-t1", fmt.Sprintf("-c%d", webClients), "-d1s", "-H", "'Connection: close'",
			fmt.Sprintf("http://%s:%d/", sd.host, webPort+sd.native))
	})
}

// requests is a shell function: it runs wrk pinned and reports as the probe does.
const requests = `requests() {
    taskset -c "$PROBE_CPU" "$@" | awk -v label="$PROBE_LABEL" '
        /Requests\/sec:/ { rate = $2 }
        / requests in / { n = $1 }
        /Socket errors|Non-2xx/ { bad = $0 }
        END {
            if (bad != "" || rate == "") { print "wrk, " label ": " bad > "/dev/stderr"; exit 1 }
            printf "{\"label\":\"%s\",\"n\":%d,\"per_s\":%s}\n", label, n, rate
        }'
}
`

// text is the script for a host where the probe lies in dir.
func (s *script) text(dir string) string {
	return "# SPDX-License-Identifier: Apache-2.0\nset -eu\nT=" + dir + "\n" + requests + strings.Join(s.lines, "\n") + "\n"
}

// vmScript is what the client VM measures: native, and what preloading costs.
func vmScript(s *script, server, cpu, otherCPU string) {
	sides := threeSides(server, "srv", cpu)
	// A native client of the interposed server: what accept costs alone.
	s.connect("native.connect", append(sides, side{"listener", true, server, 0, cpu}))
	if otherCPU != "" {
		s.connect("native.connect2", threeSides(server, "srv", otherCPU))
	}
	s.open("native", sides)
	s.web("native.web", webBlocks, sides)
	s.crowd("native.crowd", threeSides(server, "srv", ""))
	preload(s, cpu)
}

// relayScript is what a VM measures that may use relays only.
func relayScript(s *script, server, cpu string) {
	sides := threeSides(server, "fn", cpu)
	s.connect("relay.connect", sides)
	s.open("relay", sides)
}

// haproxyScript is what the same VM measures with another VM, by way of a third
// host: a relay there, or HAProxy, which stands for native.
func haproxyScript(s *script, haproxy, cpu string) {
	sides := threeSides(haproxy, "srv", cpu)
	s.await(sides[0], boxerPort)
	s.stream("haproxy", sides)
}

// punchScript is what one function measures with another. The pauses are what a
// supervisor needs to make tickets ready; after one of 10 ms CPUs have slept, and the
// first connection of a row only waits for them. A ticket is no use for a socket that has
// a port already: so a connection is measured that is made from the beginning.
// An open connection has two NATs in its way natively as well, one of which lets
// anybody in; server is a VM, open the function behind that one.
func punchScript(s *script, server string, open netip.AddrPort, cpu string) {
	s.settle()
	sides := threeSides(server, "fn", cpu)
	two := side{"two", true, open.Addr().String(), int(open.Port()) - boxerPort, cpu}
	s.paused(punchBlocks, "punch.connect", "", append(sides, two))
	s.blocks(punchBlocks, "punch.row", append(sides, two), func(sd side) string {
		return fmt.Sprintf("PROBE_SAMPLES=1 PROBE_PAUSE_US=%d PROBE_BURST=%d ", rowPauseUS, rowOf) +
			sd.probe("connect", sd.host, boxerPort+sd.native, 4*rowOf, pausedMS)
	})
	s.paused(coldBlocks, "punch.cold", "PROBE_BIND=1 ", sides)
	same := []side{two, sides[1], two}
	same[0].name, same[2].name = "native", "again"
	s.open("punch", same)
}

// preload measures what guests pay that talk to nobody.
func preload(s *script, cpu string) {
	// /etc/hosts of a host names the host itself.
	sides := threeSides("client", "srv", cpu)
	for _, how := range []string{"spawn", "fork"} {
		s.blocks(spawnBlocks, how, sides, func(sd side) string { return sd.probe(how, spawnCount, "/bin/true") })
	}
	s.blocks(lookupBlocks, "lookup", sides, func(sd side) string { return sd.probe("lookup", sd.host, lookupCount) })
}

// functionScript is what the client function measures: direct, and next to it
// the native probe through the same NAT.
func functionScript(s *script, server, cpu, otherCPU string) {
	sides := threeSides(server, "srv", cpu)
	s.connect("direct.connect", sides)
	if otherCPU != "" {
		s.connect("direct.connect2", threeSides(server, "srv", otherCPU))
	}
	s.open("direct", sides)
	s.crowd("direct.crowd", threeSides(server, "srv", ""))
	s.web("direct.web", webDirect, sides)
}

// serverScript is the guest that has every server, interposed and native.
const serverScript = `# SPDX-License-Identifier: Apache-2.0
set -eu
T=/var/task
bare="$T/probe-static bare"
$bare $T/probe serve 7002 &
PROBE_CPU= $T/probe crowd 7003 8 &
PROBE_CPU= $bare $T/probe crowd 7004 8 &
taskset -c $PROBE_CPU nginx -e stderr -c $T/nginx-7005.conf &
$bare /usr/bin/taskset -c $PROBE_CPU nginx -e stderr -c $T/nginx-7006.conf &
exec $T/probe serve 7001
`

// haproxyConfig forwards the port of the native server to that of a host, as fast
// as HAProxy can.
func haproxyConfig(server string) string {
	return fmt.Sprintf(`# SPDX-License-Identifier: Apache-2.0
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen path
    bind :%[2]d
    server only %[1]s:%[2]d
`, server, boxerPort+native)
}

// openScript is the guest of a function that anybody reaches: a native server.
const openScript = "exec /var/task/probe-static bare /var/task/probe serve 7002\n"

// nginxConfig for a port: it answers by itself and closes after each request.
func nginxConfig(port int) string {
	return fmt.Sprintf(`# SPDX-License-Identifier: Apache-2.0
daemon off;
worker_processes 1;
pid /tmp/nginx-%[1]d.pid;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path /tmp/nginx-%[1]d-body;
    proxy_temp_path /tmp/nginx-%[1]d-proxy;
    fastcgi_temp_path /tmp/nginx-%[1]d-fastcgi;
    uwsgi_temp_path /tmp/nginx-%[1]d-uwsgi;
    scgi_temp_path /tmp/nginx-%[1]d-scgi;
    server {
        listen %[1]d;
        location / { return 200 "hello\n"; }
    }
}
`, port)
}
