// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"
	"strings"
)

// excuses are the differences that are known and cannot be helped
// (docs/contract.md lists them with the reasons). A sequence is compared no
// further than to such a difference.
var excuses = []struct {
	reason  string
	applies func(s sequence, d *difference) bool
}{
	{"a full accept queue lets a connection wait in the queue of the supervisor, not in SYN_SENT", fullQueue},
	{"a port is free where natively a connection has it: that is at the overlay port, or held at another address", freePort},
	{"what was accepted another way than natively may be of the other address family, with the names of its listener's", otherDomain},
	{"a socket that was shut down before it listens gives birth to connections that are shut down, also to the supervisor's signals", shutListener},
}

// excuse gives the reason for a known difference, or "".
func excuse(s sequence, d *difference) string {
	for _, e := range excuses {
		if e.applies(s, d) {
			return e.reason
		}
	}
	return ""
}

// look is what a process sees of one of its sockets.
type look struct {
	absent         bool
	events         int64
	unread, queued int
}

// at is the state of a process's socket after a step.
func (o outcome) at(process, slot int) look {
	slots := strings.Split(o.raw[process], ",")
	if slot >= len(slots) {
		return look{absent: true}
	}
	parts := strings.Split(slots[slot], ".")
	if len(parts) != 3 {
		return look{absent: true}
	}
	var l look
	l.events, _ = strconv.ParseInt(parts[0], 16, 32)
	l.unread, _ = strconv.Atoi(parts[1])
	l.queued, _ = strconv.Atoi(parts[2])
	return l
}

// slot is the socket a step is about.
func (s step) slot() int {
	if len(s.args) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(s.args[0])
	return n
}

// fullQueue: natively the connect goes on trying as some listener's queue is
// full; through the overlay it is made.
func fullQueue(_ sequence, d *difference) bool {
	st := d.step()
	n, b := d.ends()
	return n.stuck(st) && (b.result == "0" || b.result == n.result) &&
		b.at(st.process, st.slot()).events&4 != 0
}

// stuck tells whether a connect goes on trying while some queue is not empty.
func (o outcome) stuck(st step) bool {
	queued := 0
	for process := range 2 {
		for slot := range 4 {
			queued += o.at(process, slot).queued
		}
	}
	return st.op == "connect" && o.blocked && queued > 0 && o.at(st.process, st.slot()).events == 0
}

// freePort: natively connections that were accepted from a closed listener keep
// its port, and so do those of a socket that was bound to 0.0.0.0 and it.
func freePort(s sequence, d *difference) bool {
	st := d.step()
	n, b := d.ends()
	if st.op != "bind" || n.result != "EADDRINUSE" || b.result != "0" {
		return false
	}
	for _, earlier := range s[:d.at] {
		if earlier.op == "accept" || earlier.op == "connect" {
			return true
		}
	}
	return false
}

// otherDomain: the socket at hand was accepted or dialled by the supervisor.
func otherDomain(_ sequence, d *difference) bool {
	st := d.step()
	n, b := d.ends()
	if n.domain(st.process, st.slot()) == b.domain(st.process, st.slot()) {
		return false
	}
	return st.op == "bind" || st.op == "connect" || st.op == "getopt" && st.args[1] == "domain" ||
		strings.HasSuffix(st.op, "etopt") && st.args[1] == "v6only"
}

// shutListener: shutdown said ENOTCONN, and took effect all the same.
func shutListener(s sequence, d *difference) bool {
	shut, listened := false, false
	for i, earlier := range s[:d.at] {
		shut = shut || earlier.op == "shutdown" && d.native[i].result == "ENOTCONN"
		listened = listened || shut && earlier.op == "listen" && d.native[i].result == "0"
	}
	return listened && d.step().op == "connect"
}

func (o outcome) domain(process, slot int) string {
	if all := strings.Split(o.domains[process], ","); slot < len(all) {
		return all[slot]
	}
	return ""
}
