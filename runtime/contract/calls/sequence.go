// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// step is one call made by one of the two processes. Addresses are symbols:
// 4/self/p0 is the node's address and the first of the sequence's ports.
type step struct {
	process int
	op      string
	args    []string
}

func (s step) String() string {
	return fmt.Sprintf("P%d %s %s", s.process, s.op, strings.Join(s.args, " "))
}

type sequence []step

// fixedPorts is how many ports of its own a sequence has.
const fixedPorts = 3

// What the generator believes of a socket; it is only to make most steps
// worth making.
type belief int

const (
	absent belief = iota
	fresh
	bound
	listening
	connected
)

type generator struct {
	*rand.Rand
	sockets [2][4]belief
	v6      [2][4]bool
	port    [2][4]int // of a bound one, or -1
	sent    byte
	steps   sequence
}

// generate makes the sequence of a seed.
func generate(seed uint64) sequence {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0x626f786572)), sent: 'a'}
	if g.chance(70) {
		g.serve()
	}
	for n := 6 + g.IntN(26); len(g.steps) < n; {
		g.step()
	}
	return g.steps
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

func (g *generator) do(process int, op string, args ...any) {
	s := step{process: process, op: op}
	for _, a := range args {
		s.args = append(s.args, fmt.Sprint(a))
	}
	g.steps = append(g.steps, s)
}

// serve opens a listener and a socket that may connect to it.
func (g *generator) serve() {
	p := g.IntN(2)
	g.socket(p, 0)
	if g.chance(50) {
		g.do(p, "setopt", 0, "reuseaddr", 1)
	}
	g.bind(p, 0)
	g.listen(p, 0)
	if g.chance(80) {
		q := g.IntN(2)
		g.socket(q, 1)
		g.connect(q, 1)
	}
}

// step adds a step, mostly one that fits.
func (g *generator) step() {
	p, s := g.IntN(2), g.IntN(4)
	if g.chance(12) {
		g.any(p, s)
		return
	}
	switch g.sockets[p][s] {
	case absent:
		g.fill(p, s)
	case fresh:
		if g.chance(g.hope() / 2) {
			g.connect(p, s)
			return
		}
		pick(g, g.bind, g.bind, g.bind, g.connect, g.listen, g.tune, g.watch, g.inspect, g.move)(p, s)
	case bound:
		pick(g, g.listen, g.listen, g.listen, g.connect, g.connect, g.tune, g.inspect, g.move, g.bind)(p, s)
	case listening:
		pick(g, g.accept, g.accept, g.accept, g.accept, g.watch, g.inspect, g.listen, g.tune, g.end, g.move)(p, s)
	case connected:
		pick(g, g.send, g.send, g.receive, g.receive, g.receive, g.shut, g.watch, g.inspect, g.inspect, g.tune, g.connect, g.end, g.move)(p, s)
	}
}

// any adds any step at all.
func (g *generator) any(p, s int) {
	pick(g, g.socket, g.bind, g.listen, g.connect, g.accept, g.tune, g.watch, g.inspect, g.send, g.receive,
		g.shut, g.end, g.move, g.spawn)(p, s)
}

// fill puts something into an empty place.
func (g *generator) fill(p, s int) {
	for from := range 4 {
		if g.sockets[p][from] == listening && g.chance(60) {
			g.acceptInto(p, from, s)
			return
		}
	}
	g.socket(p, s)
	switch {
	case g.chance(g.hope()):
		g.connect(p, s)
	case g.chance(40):
		g.bind(p, s)
	}
}

// hope is how likely it is that a connect is worth a try.
func (g *generator) hope() int {
	for p := range g.sockets {
		for s, k := range g.sockets[p] {
			if k == listening && g.port[p][s] < fixedPorts {
				return 75
			}
		}
	}
	return 10
}

func (g *generator) socket(p, s int) {
	family := 4
	if g.chance(35) {
		family = 6
	}
	g.do(p, "socket", s, family, pick(g, "n", "n", "n", "nc", "b", "c"))
	g.sockets[p][s], g.v6[p][s], g.port[p][s] = fresh, family == 6, -1
	if family == 6 && g.chance(15) {
		g.do(p, "setopt", s, "v6only", pick(g, 1, 1, 0))
	}
}

// endpoint is an address for a socket, mostly of its family.
func (g *generator) endpoint(v6 bool, ip, port string) string {
	if g.chance(4) {
		v6 = !v6
	}
	if !v6 {
		return "4/" + ip + "/" + port
	}
	switch ip {
	case "any":
		return "6/" + pick(g, "::", "::", "::ffff:any") + "/" + port
	case "lo":
		return "6/" + pick(g, "::1", "::ffff:lo", "::ffff:lo") + "/" + port
	}
	return "6/::ffff:" + ip + "/" + port
}

func (g *generator) odd() string { return pick(g, "unspec", "odd", "null") }

// length of an address: 0 is the right one.
func (g *generator) length() int {
	if g.chance(4) {
		return pick(g, 1, 2, 8, 15, 16, 24, 28, 200, -1)
	}
	return 0
}

func (g *generator) bind(p, s int) {
	if g.chance(3) {
		g.do(p, "bind", s, g.odd(), g.length())
		return
	}
	n := g.IntN(fixedPorts)
	port := fmt.Sprintf("p%d", n)
	if g.chance(15) {
		n, port = fixedPorts, "0"
	}
	ip := pick(g, "self", "self", "self", "any", "any", "any", "any", "lo", "nobody")
	g.do(p, "bind", s, g.endpoint(g.v6[p][s], ip, port), g.length())
	if g.sockets[p][s] == fresh && ip != "nobody" {
		g.sockets[p][s], g.port[p][s] = bound, n
	}
}

func (g *generator) listen(p, s int) {
	g.do(p, "listen", s, pick(g, 0, 1, 2, 8, 128, 128, 128, 128, 128, 128, 128, 128, -1, -1))
	if k := g.sockets[p][s]; k == fresh || k == bound {
		g.sockets[p][s] = listening
		if k == fresh {
			g.port[p][s] = fixedPorts
		}
	}
}

// someListener finds a port to connect to.
func (g *generator) someListener(p int) string {
	var ports []string
	for q := range 2 {
		for s := range 4 {
			switch {
			case g.sockets[q][s] != listening:
			case g.port[q][s] < fixedPorts:
				ports = append(ports, fmt.Sprintf("p%d", g.port[q][s]))
			case q == p:
				ports = append(ports, fmt.Sprintf("=%d", s))
			}
		}
	}
	if len(ports) == 0 || g.chance(12) {
		return fmt.Sprintf("p%d", g.IntN(fixedPorts))
	}
	return pick(g, ports...)
}

func (g *generator) connect(p, s int) {
	if g.chance(5) {
		g.do(p, "connect", s, g.odd(), g.length())
		return
	}
	if g.chance(5) {
		g.do(p, "setopt", s, "sndtimeo", pick(g, 2, 3))
	}
	ip := "self"
	if g.chance(8) {
		ip = pick(g, "any", "lo", "lo", "all")
	}
	g.do(p, "connect", s, g.endpoint(g.v6[p][s], ip, g.someListener(p)), g.length())
	if k := g.sockets[p][s]; k == fresh || k == bound {
		g.sockets[p][s] = connected
	}
}

func (g *generator) accept(p, s int) { g.acceptInto(p, s, g.IntN(4)) }

func (g *generator) acceptInto(p, from, to int) {
	if from == to {
		to = (to + 1) % 4
	}
	g.do(p, "accept", from, to, pick(g, "-", "b", "n", "n", "c", "nc"), pick(g, -1, -1, 16, 16, 28, 28, 128, 0, 2, 8, 15))
	if g.sockets[p][from] == listening {
		g.sockets[p][to], g.v6[p][to] = connected, g.v6[p][from]
	}
}

func (g *generator) tune(p, s int) {
	switch name := pick(g, "reuseaddr", "reuseaddr", "reuseaddr", "reuseport", "reuseport", "nodelay", "keepalive",
		"linger", "sndtimeo", "rcvtimeo", "nonblock", "v6only", "keepidle", "oobinline", "tos", "rcvlowat", "noport"); name {
	case "nonblock":
		g.do(p, "nonblock", s, pick(g, 0, 1, 1))
	case "linger":
		g.do(p, "setopt", s, name, pick(g, -1, 0, 0, 3))
	case "sndtimeo", "rcvtimeo":
		g.do(p, "setopt", s, name, pick(g, 0, 2, 3))
	case "keepidle":
		g.do(p, "setopt", s, name, pick(g, 30, 60))
	case "tos":
		g.do(p, "setopt", s, name, pick(g, 0, 8, 16))
	case "rcvlowat":
		g.do(p, "setopt", s, name, pick(g, 0, 1, 4))
	default:
		g.do(p, "setopt", s, name, pick(g, 0, 1, 1, 1))
	}
}

func (g *generator) inspect(p, s int) {
	switch pick(g, 0, 0, 1, 1, 2, 2, 3, 4) {
	case 0:
		g.do(p, "getsockname", s, g.room())
	case 1:
		g.do(p, "getpeername", s, g.room())
	case 2:
		g.do(p, "getopt", s, pick(g, "error", "error", "error", "acceptconn", "type", "domain", "nodelay", "keepalive",
			"linger", "reuseaddr", "reuseport", "rcvtimeo", "v6only", "keepidle", "oobinline", "tos", "rcvlowat", "defer", "noport"))
	case 3:
		g.do(p, "flags", s)
	case 4:
		g.do(p, "poll", s, pick(g, 1, 4, 5, 0x2000, 0x2005, 0), pick(g, 0, 0, 1))
	}
}

func (g *generator) room() int { return pick(g, 128, 128, 28, 28, 16, 16, 0, 2, 4, 8, 15) }

// Events of epoll: IN, OUT, RDHUP; edge-triggered, one-shot.
func (g *generator) watch(p, s int) {
	if g.chance(50) {
		g.do(p, "wait")
		return
	}
	events := uint32(pick(g, 1, 4, 5, 5, 0x2001, 0x2005))
	if g.chance(40) {
		events |= 1 << 31
	}
	if g.chance(10) {
		events |= 1 << 30
	}
	g.do(p, "epoll", pick(g, "add", "add", "add", "mod", "del"), s, events)
}

func (g *generator) send(p, s int) {
	n := 1 + g.IntN(6)
	text := make([]byte, n)
	for i := range text {
		text[i] = g.sent
		if g.sent++; g.sent > 'z' {
			g.sent = 'a'
		}
	}
	g.do(p, "send", s, string(text), pick(g, "d", "d", "d", "-"))
}

func (g *generator) receive(p, s int) {
	g.do(p, "recv", s, pick(g, 1, 2, 4, 100, 100, 100), pick(g, "d", "d", "dp", "-", "p", "dw"))
}

func (g *generator) shut(p, s int) { g.do(p, "shutdown", s, pick(g, 0, 1, 1, 1, 2, 3)) }

// end closes, often by a reset, which leaves no TIME_WAIT.
func (g *generator) end(p, s int) {
	if g.chance(30) {
		g.do(p, "setopt", s, "linger", 0)
	}
	g.do(p, "close", s)
	g.sockets[p][s] = absent
}

// move gives a socket another descriptor or another process.
func (g *generator) move(p, s int) {
	to := g.IntN(4)
	switch pick(g, 0, 0, 1, 1, 2, 2, 2, 3) {
	case 0:
		g.do(p, "dup", s, to)
		g.copy(p, s, p, to)
	case 1:
		g.do(p, "dup2", s, to)
		g.copy(p, s, p, to)
	case 2:
		g.do(p, "pass", s, to)
		g.copy(p, s, 1-p, to)
	case 3:
		g.spawn(p, s)
	}
}

func (g *generator) copy(p, s, q, t int) {
	if g.sockets[p][s] != absent {
		g.sockets[q][t], g.v6[q][t], g.port[q][t] = g.sockets[p][s], g.v6[p][s], g.port[p][s]
	}
}

// spawn replaces the other process by a child of this one, or executes anew.
func (g *generator) spawn(p, _ int) {
	if g.chance(50) {
		g.do(p, "exec")
		return
	}
	g.do(p, "fork")
	g.sockets[1-p], g.v6[1-p], g.port[1-p] = g.sockets[p], g.v6[p], g.port[p]
}
