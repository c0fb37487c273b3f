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
	{"a port is taken where natively it is free: a held socket that was bound to any address is at 127.0.0.1", takenPort},
	{"a socket that was shut down before it connects ends its direction when it is connected, if it was held", bornShut},
	{"a connection that is over and whose socket is bound or disconnected anew keeps its name, or shows what it was accepted at", renamed},
	{"what was accepted through a NAT is kept alive", keptAlive},
	{"a socket that connected from a port chosen for it keeps that when the connection is over", keptPort},
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

// pastNAT is set by -nat: the node meets itself past its NAT.
var pastNAT bool

// keptAlive: the supervisor keeps the NAT's mapping, for a guest that does not.
func keptAlive(s sequence, d *difference) bool {
	st := d.step()
	n, b := d.ends()
	if !pastNAT || st.op != "getopt" {
		return false
	}
	switch st.args[1] {
	case "keepalive":
		return strings.Fields(n.result)[0] == "0" && strings.HasSuffix(n.result, " 0 0 0 0") && strings.HasSuffix(b.result, " 1 0 0 0")
	case "keepidle":
		return strings.HasSuffix(b.result, " 45 0 0 0")
	}
	return false
}

// keptPort: the port from which a NAT can be passed is bound to, and the kernel lets
// go only of those it chose itself.
func keptPort(s sequence, d *difference) bool {
	st := d.step()
	n, b := d.ends()
	if !pastNAT || st.op != "bind" || n.result != "0" || b.result != "EINVAL" {
		return false
	}
	for _, earlier := range s[:d.at] {
		if earlier.op == "connect" {
			return true
		}
	}
	return false
}

// look is what a process sees of one of its sockets.
type look struct {
	absent bool
	events int64
	unread int
	queued int // of a listener
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
	if l.unread < 0 {
		l.queued, _ = strconv.Atoi(parts[2])
	}
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
	made := (b.at(0, st.slot()).events | b.at(1, st.slot()).events) & 4 // both may have it, and are looked at in turn
	return n.stuck(st) && (b.result == "0" || b.result == n.result) && made != 0
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
	if st.op != "bind" && st.op != "listen" || n.result != "EADDRINUSE" || b.result != "0" {
		return false
	}
	for _, earlier := range s[:d.at] {
		if earlier.op == "accept" || earlier.op == "connect" {
			return true
		}
	}
	return false
}

// takenPort: some socket was bound to any address and this port, and then held.
func takenPort(s sequence, d *difference) bool {
	st := d.step()
	n, b := d.ends()
	if st.op != "bind" || n.result != "0" || b.result != "EADDRINUSE" {
		return false
	}
	port := st.args[1][strings.LastIndex(st.args[1], "/")+1:]
	bound := false
	for i, earlier := range s[:d.at] {
		bound = bound || earlier.op == "bind" && d.native[i].result == "0" &&
			(strings.HasSuffix(earlier.args[1], "any/"+port) || strings.HasSuffix(earlier.args[1], "::/"+port))
		if bound && earlier.op == "connect" {
			return true
		}
	}
	return false
}

// bornShut: shutdown said ENOTCONN, and took effect all the same: the kernel
// sends the end when both sides open at once, but not when one does.
func bornShut(s sequence, d *difference) bool {
	const ended = 0x2001 // POLLIN, POLLRDHUP
	shut, connected := false, false
	for i, st := range s[:d.at+1] {
		shut = shut || st.op == "shutdown" && st.args[1] != "0" && d.native[i].result == "ENOTCONN"
		connected = connected || shut && st.op == "connect"
	}
	n, b := d.ends()
	if !connected || n.result != b.result {
		return false
	}
	for process := range 2 {
		for slot := range 4 {
			was, is := n.at(process, slot).events, b.at(process, slot).events
			if was != is && is != was|ended {
				return false
			}
		}
	}
	return true
}

// renamed: what the supervisor remembers of a connection is its socket's, which
// now is another thing.
func renamed(s sequence, d *difference) bool {
	if d.step().op != "getsockname" {
		return false
	}
	const dead, fresh = 0x2010, 0x14 // POLLRDHUP and POLLHUP; POLLOUT and POLLHUP
	for i, earlier := range s[:d.at] {
		if i == 0 || d.native[i].result != "0" {
			continue
		}
		before := d.native[i-1].at(earlier.process, earlier.slot())
		if earlier.op == "bind" && before.events&dead == dead ||
			earlier.op == "connect" && earlier.args[1] == "unspec" && !before.absent && before.events != fresh {
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

// shutListener: shutdown said ENOTCONN, and took effect all the same: on what is
// connected, or, as it is the supervisor's socket, is accepted whole.
func shutListener(s sequence, d *difference) bool {
	shut, listened := false, false
	for i, earlier := range s[:d.at] {
		shut = shut || earlier.op == "shutdown" && d.native[i].result == "ENOTCONN"
		listened = listened || shut && earlier.op == "listen" && d.native[i].result == "0"
	}
	return listened && (d.step().op == "connect" || d.step().op == "accept")
}

func (o outcome) domain(process, slot int) string {
	if all := strings.Split(o.domains[process], ","); slot < len(all) {
		return all[slot]
	}
	return ""
}
