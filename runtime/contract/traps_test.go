// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The traps of DESIGN that were found by trying, one test each. What a node's
// kernel or a middlebox does to it is done in its network namespace, which
// takes root; the agents there play the cases of testdata/traps.py.

// onNode runs f in the network namespace of an agent's node.
func (w *world) onNode(t *testing.T, name string, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("entering a node's network namespace takes root")
	}
	pid := w.pid(t, name)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// pid finds an agent by its mark.
func (w *world) pid(t *testing.T, name string) int {
	t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, _ := os.ReadFile(path)
		args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil && args[0] == "python3" && args[len(args)-1] == w.mark(name) {
			return pid
		}
	}
	t.Fatalf("no agent %s", name)
	return 0
}

// play has an agent play cases as the client of another, all at once.
func (w *world) play(t *testing.T, name, host string, cases ...string) map[string]seen {
	t.Helper()
	outs := make([]string, len(cases))
	w.onNode(t, name, func() {
		conns := make([]net.Conn, len(cases))
		for i, c := range cases {
			var err error
			if conns[i], err = net.Dial("tcp4", "127.0.0.1:7000"); err != nil {
				t.Error(err)
				return
			}
			defer conns[i].Close()
			conns[i].SetDeadline(time.Now().Add(quick))
			call, _ := json.Marshal([]string{host, "7000", c})
			if _, err := conns[i].Write(append(call, '\n')); err != nil {
				t.Error(err)
			}
		}
		for i, conn := range conns {
			all, err := io.ReadAll(conn)
			if err != nil {
				t.Error(err)
			}
			outs[i] = string(all)
		}
	})
	return read(t, strings.Join(outs, ""))
}

// sysctl sets a value on an agent's node until the test ends.
func (w *world) sysctl(t *testing.T, name, key, value string) {
	t.Helper()
	path := "/proc/sys/" + key
	var old []byte
	set := func(value []byte) {
		w.onNode(t, name, func() {
			var err error
			if old == nil {
				old, err = os.ReadFile(path)
			}
			if err == nil {
				err = os.WriteFile(path, value, 0o600)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	set([]byte(value))
	t.Cleanup(func() { set(old) })
}

// drop lets a middlebox before an agent's node lose the SYNs that arrive, or
// only those that carry data; lift ends that.
func (w *world) drop(t *testing.T, name string, onlyData bool) (lift func()) {
	t.Helper()
	var table *nftables.Table
	change := func(f func(*nftables.Conn)) {
		w.onNode(t, name, func() {
			c, err := nftables.New()
			if err == nil {
				f(c)
				err = c.Flush()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	change(func(c *nftables.Conn) {
		table = c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "middlebox"})
		chain := c.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		syn := []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x12}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x02}},
		}
		if onlyData { // longer than the headers can be
			syn = append(syn, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: binary.BigEndian.AppendUint16(nil, 20+60)})
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(syn, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
	})
	lifted := false
	lift = func() {
		if lifted {
			return
		}
		lifted = true
		change(func(c *nftables.Conn) {
			if dropped(c, table) == 0 {
				t.Error("the middlebox has dropped nothing")
			}
			c.DelTable(table)
		})
	}
	t.Cleanup(lift)
	return lift
}

// dropped is how many packets the one rule of a table has counted.
func dropped(c *nftables.Conn, table *nftables.Table) (packets uint64) {
	rules, _ := c.GetRules(table, &nftables.Chain{Name: "in", Table: table})
	for _, rule := range rules {
		for _, e := range rule.Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				packets += counter.Packets
			}
		}
	}
	return packets
}

// counter reads one of the kernel's TcpExt counters on an agent's node.
func (w *world) counter(t *testing.T, name, key string) (value int) {
	t.Helper()
	w.onNode(t, name, func() {
		data, _ := os.ReadFile("/proc/thread-self/net/netstat")
		lines := strings.Split(string(data), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			if n := slices.Index(names, key); n > 0 {
				value, _ = strconv.Atoi(values[n])
			}
		}
	})
	return value
}

// want checks what one end noted: pairs of what and its value.
func want(t *testing.T, end string, notes [][2]any, pairs ...any) {
	t.Helper()
	expected := make([][2]any, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		expected = append(expected, [2]any{pairs[i], pairs[i+1]})
	}
	if got, wanted := fmt.Sprint(notes), fmt.Sprint(expected); got != wanted {
		t.Errorf("%s: %s, want %s", end, got, wanted)
	}
}

func wantOnce(t *testing.T, s seen) {
	t.Helper()
	want(t, "client", s.Client, "connect", 0, "events", 4, "SO_ERROR", 0, "within 3 s", true, "echo", true,
		"connect", "EINPROGRESS", "events", 4, "SO_ERROR", 0, "within 3 s", true, "echo", true)
	want(t, "server", s.Server, "then", "none", "arrived", 2, "different", 2)
}

// With fast open off the preface cannot be queued: the connection is held.
func TestTrapFastOpenOff(t *testing.T) {
	w := theWorld(t)
	for _, end := range []string{"lambda", "alpha"} {
		t.Run(end, func(t *testing.T) {
			w.sysctl(t, end, "net/ipv4/tcp_fastopen", "0")
			wantOnce(t, w.play(t, "lambda", "alpha", "once")["once"])
		})
	}
}

// A middlebox that loses SYNs with data costs one retransmission, no connection.
func TestTrapSynDataDropped(t *testing.T) { wantOnce(t, theWorld(t).behindMiddlebox(t, "once")) }

// behindMiddlebox is what was seen of a case where SYNs with data are lost, so
// that a direct connect takes a second. All are played when the first is asked for.
func (w *world) behindMiddlebox(t *testing.T, name string) seen {
	t.Helper()
	if w.lossy == nil {
		lift := w.drop(t, "alpha", true)
		w.lossy = w.play(t, "lambda", "alpha", "once", "signals_slowly", "send_timeout", "retried", "cancelled_slowly")
		lift()
	}
	return w.lossy[name]
}

// After a black hole the kernel lets no data go with a SYN, and says so late:
// EINPROGRESS, with nothing queued.
func TestTrapFastOpenBlackHole(t *testing.T) {
	w := theWorld(t)
	w.sysctl(t, "lambda", "net/ipv4/tcp_fastopen_blackhole_timeout_sec", "3600")
	to, err := netip.ParseAddrPort(w.node(t, "alpha").Underlay)
	if err != nil {
		t.Fatal(err)
	}
	before := w.counter(t, "lambda", "TCPFastOpenBlackhole")
	lift := w.drop(t, "alpha", false)
	w.onNode(t, "lambda", func() { fallIn(t, to) })
	lift()
	if w.counter(t, "lambda", "TCPFastOpenBlackhole") == before {
		t.Fatal("the kernel has not noticed a black hole")
	}
	wantOnce(t, w.play(t, "lambda", "alpha", "once")["once"])
}

// fallIn sends data with a SYN that nobody answers, until the kernel gives up.
func fallIn(t *testing.T, to netip.AddrPort) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1)
	err = unix.Sendto(fd, []byte("lost"), unix.MSG_FASTOPEN|unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil {
		t.Error(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 15_000); n != 1 || err != nil {
		t.Errorf("the kernel does not give up: %d, %v", n, err)
	}
}

// A signal every millisecond: no connect is made twice, none is lost.
func TestTrapRestartedConnect(t *testing.T) {
	w := theWorld(t)
	for _, r := range routes {
		t.Run(r.transport, func(t *testing.T) {
			s := w.trap(t, r, "signals")
			want(t, "client", s.Client, "restart", "ok", "interrupt", "ok")
			want(t, "server", s.Server, "then", "none", "arrived", 80, "different", 80)
		})
	}
	t.Run("held", func(t *testing.T) { // for half a second
		s := w.trap(t, routes[2], "held_signals")
		want(t, "client", s.Client, "restart", "ok", "interrupt", "ok")
		want(t, "server", s.Server, "then", "none", "arrived", 2, "different", 2)
	})
	t.Run("slow direct", func(t *testing.T) { // a second of signals
		s := w.behindMiddlebox(t, "signals_slowly")
		want(t, "client", s.Client, "restart", "ok", "interrupt", "ok")
		want(t, "server", s.Server, "then", "none", "arrived", 2, "different", 2)
	})
}

// trap is what was seen of a case on a route; all of them are played when the
// first is asked for.
func (w *world) trap(t *testing.T, r route, name string) seen {
	t.Helper()
	w.played.Do(func() {
		outs, errs := make([]string, len(routes)), make([]error, len(routes))
		var all sync.WaitGroup
		for i, r := range routes {
			all.Go(func() {
				args := append([]string{"python3", "/var/task/agent.py", "run", r.host, "7000"}, onRoutes...)
				if r.transport == "relay" {
					args = append(args, onRelay...)
				}
				outs[i], errs[i] = w.guest(quick, r, args...)
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		for i, r := range routes {
			w.traps[r] = read(t, outs[i])
		}
	})
	return w.traps[r][name]
}

// onRoutes are the cases of testdata/traps.py that need no namespace entered.
var onRoutes = []string{"signals", "deferred", "one_of_four_closed", "no_descriptors", "stale_signals", "cancelled", "nowhere"}

// onRelay stop the server's supervisor for a while, so that a connect is held.
var onRelay = []string{"held_send_timeout", "held_signals", "held_cancelled", "held_for_ever"}

// SO_SNDTIMEO on connect is EINPROGRESS, and the connection comes later.
func TestTrapSendTimeoutOnConnect(t *testing.T) {
	w := theWorld(t)
	t.Run("direct", func(t *testing.T) {
		s := w.behindMiddlebox(t, "send_timeout")
		want(t, "client", s.Client, "connect", "EINPROGRESS", "in time", true, "again", "EALREADY", "writable", 1, "SO_ERROR", 0, "echo", true)
		want(t, "server", s.Server, "then", "none", "arrived", 1, "different", 1)
	})
	t.Run("held", func(t *testing.T) {
		s := w.trap(t, routes[2], "held_send_timeout")
		want(t, "client", s.Client, "connect", "EINPROGRESS", "again", "EALREADY", "writable", 1, "SO_ERROR", 0, "echo", true)
		want(t, "server", s.Server, "then", "none", "arrived", 1, "different", 1)
	})
}

// connect() again while the connection is being made sends no second preface.
func TestTrapConnectAgain(t *testing.T) {
	s := theWorld(t).behindMiddlebox(t, "retried")
	want(t, "client", s.Client, "connect", "EINPROGRESS", "again", "EALREADY", "writable", 1, "then", []any{0, "EISCONN"}, "echo", true)
	want(t, "server", s.Server, "then", "none", "arrived", 1, "different", 1)
}

// everywhere plays a case of traps.py on every route.
func everywhere(t *testing.T, name string, check func(t *testing.T, s seen)) {
	t.Helper()
	w := theWorld(t)
	for _, r := range routes {
		t.Run(r.transport, func(t *testing.T) { check(t, w.trap(t, r, name)) })
	}
}

func TestTrapDeferAccept(t *testing.T) {
	everywhere(t, "deferred", func(t *testing.T, s seen) {
		want(t, "client", s.Client, "echo", true, "echo", true, "echo", true)
		want(t, "server", s.Server, "readable", 1, "data", "hello", "readable", 1, "data", "hello", "readable", 1, "data", "hello")
	})
}

func TestTrapOneOfFourListenersClosed(t *testing.T) {
	everywhere(t, "one_of_four_closed", func(t *testing.T, s seen) {
		want(t, "client", s.Client, "outcomes", true, "a new one", true)
		want(t, "server", s.Server, "all have some", 4)
	})
}

func TestTrapDescriptorLimit(t *testing.T) {
	everywhere(t, "no_descriptors", func(t *testing.T, s seen) {
		want(t, "client", s.Client, "echo", true)
		want(t, "server", s.Server, "at the limit", "EMFILE")
	})
}

func TestTrapStaleSignal(t *testing.T) {
	w := theWorld(t)
	for _, r := range routes[1:] { // native peers are not signalled
		t.Run(r.transport, func(t *testing.T) {
			s := w.trap(t, r, "stale_signals")
			want(t, "client", s.Client, "served", 10)
			want(t, "server", s.Server, "served", 10)
		})
	}
}

func TestTrapCancellation(t *testing.T) {
	w := theWorld(t)
	everywhere(t, "cancelled", func(t *testing.T, s seen) {
		want(t, "client", s.Client, "vfork", "ok")
		want(t, "server", s.Server, "accept", "cancelled")
	})
	for _, slow := range []struct {
		name string
		seen func(t *testing.T) seen
	}{
		{"slow direct", func(t *testing.T) seen { return w.behindMiddlebox(t, "cancelled_slowly") }},
		{"held", func(t *testing.T) seen { return w.trap(t, routes[2], "held_cancelled") }},
	} {
		t.Run(slow.name, func(t *testing.T) {
			want(t, "client", slow.seen(t).Client, "connect", "cancelled")
		})
	}
}

// A node that is frozen is one from which nothing comes.
func TestFrozenNodeTimesOut(t *testing.T) {
	s := theWorld(t).trap(t, routes[2], "held_for_ever")
	want(t, "client", s.Client, "connect", "ETIMEDOUT", "SO_ERROR", 0)
}

func TestAddressOfNobodyIsUnreachable(t *testing.T) {
	everywhere(t, "nowhere", func(t *testing.T, s seen) {
		want(t, "client", s.Client, "connect", "EHOSTUNREACH", "at once", true, "connect", "EHOSTUNREACH", "at once", true)
	})
}
