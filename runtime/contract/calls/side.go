// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	guardMS   = 4    // after which a call blocks, natively
	ownMS     = 900  // for one that ends a wait itself, by its time-out
	patientMS = 4000 // for a call that did not block natively
	waitMS    = 3000 // for what has to travel
	settleMS  = 100  // for the native side to come to rest
	bindTries = 40
	bindPause = 5 * time.Millisecond
	hang      = 20 * time.Second
)

// outcome of a step: what the call gave, and what both processes' sockets look
// like when what it started has arrived.
type outcome struct {
	result  string
	blocked bool
	raw     [2]string // states, with the length of accept queues
	domains [2]string // address families
	died    bool
}

type portRange struct{ from, to int }

// side plays sequences in one way, with two processes of its own.
type side struct {
	name    string
	player  string
	env     []string
	self    netip.Addr
	ports   portRange
	at      int    // the next port to try
	rest    string // how the player tells that all is at rest
	process *exec.Cmd
	control [2]int
}

// share is the n-th part of a side.
func (s side) share(n, of int) *side {
	size := (s.ports.to - s.ports.from) / of
	s.ports = portRange{s.ports.from + n*size, s.ports.from + (n+1)*size}
	s.at, s.rest = s.ports.from, quickRest
	return &s
}

// Descriptors of the player, and what it expects, as player.c has them.
const (
	controlAt = 90
	bridgeAt  = 92
	quickRest = "-"
	longRest  = "="
)

// start starts the two processes: the first one, and its child.
func (s *side) start() error {
	var ours [2]int
	files := make([]*os.File, bridgeAt+2-3)
	for role := range 2 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("start a player: %w", err)
		}
		ours[role] = pair[0]
		files[controlAt+role-3] = os.NewFile(uintptr(pair[1]), "control")
	}
	bridge, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start a player: %w", err)
	}
	for role := range 2 {
		files[bridgeAt+role-3] = os.NewFile(uintptr(bridge[role]), "bridge")
		timeout := unix.NsecToTimeval(hang.Nanoseconds())
		if err := unix.SetsockoptTimeval(ours[role], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return fmt.Errorf("start a player: %w", err)
		}
	}
	s.control = ours
	s.process = exec.Command(s.player, "0")
	s.process.Env, s.process.Stderr = s.env, os.Stderr
	s.process.ExtraFiles = files
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = s.process.Start()
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("start a player: %w", err)
	}
	if _, err := s.answer(0); err != nil {
		return err
	}
	_, err = s.fork(0)
	return err
}

// stop ends both processes.
func (s *side) stop() {
	if s.process == nil {
		return
	}
	for _, fd := range s.control {
		unix.Close(fd)
	}
	_ = unix.Kill(-s.process.Process.Pid, unix.SIGKILL)
	_ = s.process.Wait()
	s.process = nil
}

// errDied says that a player ended, or hangs.
var errDied = errors.New("the player ended or hangs")

// ask makes a process do something.
func (s *side) ask(role, guard, wait int, expected, what string) (reply, error) {
	if err := unix.Send(s.control[role], fmt.Appendf(nil, "%d %d %s %s", guard, wait, expected, what), unix.MSG_NOSIGNAL); err != nil {
		return reply{}, fmt.Errorf("%w: %w", errDied, err)
	}
	return s.answer(role)
}

// reply of a player to a step.
type reply struct{ result, state, domains string }

func (s *side) answer(role int) (reply, error) {
	var b [3072]byte
	n := 0
	var err error
	for {
		n, _, err = unix.Recvfrom(s.control[role], b[:], 0)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || n == 0 {
		return reply{}, fmt.Errorf("%w: %w", errDied, err)
	}
	parts := strings.Split(string(b[:n]), "|")
	if len(parts) != 3 {
		return reply{}, fmt.Errorf("a player answered %q", b[:n])
	}
	return reply{parts[0], parts[1], parts[2]}, nil
}

// fork replaces the other process by a child of this one.
func (s *side) fork(role int) (string, error) {
	r, err := s.ask(role, 0, 0, "-", "fork")
	if err != nil {
		return "", err
	}
	_, err = s.answer(1 - role)
	return r.result, err
}

// nextPorts are ports that nothing, not even a TIME_WAIT, has.
func (s *side) nextPorts() (ports [fixedPorts]int) {
	for i := 0; i < fixedPorts; {
		if s.at++; s.at >= s.ports.to {
			s.at = s.ports.from
		}
		if free(s.at) {
			ports[i] = s.at
			i++
		}
	}
	return ports
}

func free(port int) bool {
	syscall.ForkLock.RLock() // a child would keep the port until it executes
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet6{Port: port}) == nil
}

// play plays a sequence; like is what came of it natively.
func (s *side) play(q sequence, like []outcome) ([]outcome, error) {
	if s.process == nil {
		if err := s.start(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	n := newNames(s.self, s.nextPorts())
	var all []outcome
	for i, st := range q {
		var expected *outcome
		if like != nil {
			expected = &like[i]
		}
		o, err := s.step(st, n, expected)
		if errors.Is(err, errDied) {
			s.stop()
			return append(all, outcome{result: "the player died", died: true}), nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, o)
		if expected != nil && (expected.stuck(st) || !expected.same(o)) {
			break
		}
	}
	for role := range 2 {
		if _, err := s.ask(role, 0, 0, "-", "reset"); err != nil {
			s.stop()
			break
		}
	}
	return all, nil
}

// step makes one call and lets both processes come to rest.
func (s *side) step(st step, n *names, expected *outcome) (o outcome, err error) {
	guard, wait, states := guardMS, settleMS, [2]string{s.rest, s.rest}
	if expected != nil {
		wait, states = waitMS, expected.raw
		if expected.stuck(st) {
			wait = settleMS // it is made, or waits for ever
		}
		if !expected.blocked {
			guard = patientMS
		} else if word(expected.result) != "EINTR" {
			guard = ownMS
		}
	}
	p := st.process
	what := n.concrete(st)
	var r reply
	switch st.op {
	case "fork":
		if _, err = s.ask(1-p, 0, 0, "-", "quit"); err == nil {
			o.result, err = s.fork(p)
		}
		what = "look"
	case "exec":
		r, err = s.ask(p, 0, 0, "-", "exec")
		o.result, what = r.result, "look"
	case "pass":
		r, err = s.ask(p, 0, 0, "-", "pass "+st.args[0])
		o.result, what = r.result, "look"
		if err == nil && o.result == "1" {
			r, err = s.ask(1-p, 0, 0, "-", "take "+st.args[1])
			o.result += " " + r.result
		}
	}
	if err != nil {
		return o, err
	}
	for try := 0; ; try++ {
		if r, err = s.ask(p, guard, wait, states[p], what); err != nil {
			return o, err
		}
		// The reset or the end of a connection that nobody looks at may still be
		// on its way, and the port is not free before.
		if st.op != "bind" || expected == nil || r.result != "EADDRINUSE" || expected.result != "0" || try == bindTries {
			break
		}
		time.Sleep(bindPause)
	}
	if what != "look" {
		o.result = n.symbolic(r.result)
	}
	o.blocked = slices.Contains([]string{"EINTR", "EINPROGRESS", "EAGAIN"}, word(r.result))
	o.raw[p], o.domains[p] = r.state, r.domains
	r, err = s.ask(1-p, 0, wait, states[1-p], "look")
	o.raw[1-p], o.domains[1-p] = r.state, r.domains
	return o, err
}

// word is the first one of a result.
func word(result string) string {
	first, _, _ := strings.Cut(result, " ")
	return first
}

// names maps between symbols and what a side has for them.
type names struct {
	self  string
	ports map[string]string // symbol to number
	seen  map[string]string // number to symbol
	fresh int
}

func newNames(self netip.Addr, ports [fixedPorts]int) *names {
	n := &names{self: self.String(), ports: map[string]string{}, seen: map[string]string{"0": "0"}}
	for i, port := range ports {
		symbol, number := fmt.Sprintf("p%d", i), strconv.Itoa(port)
		n.ports[symbol], n.seen[number] = number, symbol
	}
	return n
}

// addresses by symbol. What the kernel has to ask the network about would take
// time; nobody is only bound to.
var addresses = map[string]string{"any": "0.0.0.0", "lo": "127.0.0.1", "nobody": "192.0.2.77", "all": "255.255.255.255"}

// concrete is a step as the player is told it.
func (n *names) concrete(s step) string {
	words := []string{s.op}
	for _, a := range s.args {
		if parts := strings.Split(a, "/"); len(parts) == 3 {
			ip := parts[1]
			prefix := ""
			if rest, ok := strings.CutPrefix(ip, "::ffff:"); ok {
				prefix, ip = "::ffff:", rest
			}
			if ip == "self" {
				ip = n.self
			} else if known, ok := addresses[ip]; ok {
				ip = known
			}
			port := parts[2]
			if known, ok := n.ports[port]; ok {
				port = known
			}
			a = parts[0] + "/" + prefix + ip + "/" + port
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// symbolic is a result with symbols in place of what differs by nature.
func (n *names) symbolic(result string) string {
	words := strings.Split(result, " ")
	for i, w := range words {
		family, where, ok := strings.Cut(w, "@")
		if !ok {
			continue
		}
		slash := strings.LastIndex(where, "/")
		ip, port := where[:slash], where[slash+1:]
		if strings.TrimPrefix(ip, "::ffff:") == n.self {
			ip = strings.TrimSuffix(ip, n.self) + "self"
		}
		symbol, ok := n.seen[port]
		if !ok {
			n.fresh++
			symbol = fmt.Sprintf("e%d", n.fresh)
			n.seen[port] = symbol
		}
		words[i] = family + "@" + ip + "/" + symbol
	}
	return strings.Join(words, " ")
}
