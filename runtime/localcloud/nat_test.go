// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lab is a router with hosts and NATs, and plain sockets in them.
type lab struct {
	*testing.T
	r *router
}

const labOverlayPort = 7717

func newLab(t *testing.T) *lab {
	t.Helper()
	r, err := newRouter(1, labOverlayPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.side.close)
	return &lab{t, r}
}

func (l *lab) on(t *testing.T) *lab { return &lab{t, l.r} }

func (l *lab) host() *place {
	l.Helper()
	return l.place(l.r.addHost())
}

func (l *lab) behind(kind string) *place {
	l.Helper()
	return l.place(l.r.addSandbox(kind, true))
}

func (l *lab) place(p *place, err error) *place {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(p.release)
	return p
}

func shared(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
}

// listen accepts at a place; what it accepts stays open.
func (l *lab) listen(p *place, port uint16) <-chan net.Conn {
	l.Helper()
	var ln net.Listener
	err := inNamespace(p.ns, func() (err error) {
		ln, err = (&net.ListenConfig{Control: shared}).Listen(context.Background(), "tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		l.Fatal(err)
	}
	accepted := make(chan net.Conn, 16)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	l.Cleanup(func() {
		ln.Close()
		for conn := range accepted {
			conn.Close()
		}
	})
	return accepted
}

// dial connects from a port of a place.
func (l *lab) dial(p *place, from uint16, to netip.AddrPort, wait time.Duration) (net.Conn, error) {
	var conn net.Conn
	err := inNamespace(p.ns, func() (err error) {
		d := net.Dialer{Timeout: wait, LocalAddr: &net.TCPAddr{IP: net.IPv4zero, Port: int(from)}, Control: shared}
		conn, err = d.Dial("tcp4", to.String())
		return err
	})
	if err == nil {
		l.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// try gives the outcome of a dial, in a word. It takes its time, but for what is
// expected to be dropped.
func (l *lab) try(p *place, to netip.AddrPort, want string) string {
	wait := 5 * time.Second
	if want == "drop" {
		wait = 300 * time.Millisecond
	}
	conn, err := l.dial(p, 0, to, wait)
	var failure net.Error
	switch {
	case err == nil:
		conn.Close()
		return "open"
	case errors.Is(err, unix.ECONNREFUSED):
		return "reset"
	case errors.As(err, &failure) && failure.Timeout():
		return "drop"
	}
	return err.Error()
}

// seen dials a listener and returns where that sees the connection come from,
// and both ends.
func (l *lab) seen(p *place, from uint16, to netip.AddrPort, accepted <-chan net.Conn) (netip.AddrPort, [2]net.Conn) {
	l.Helper()
	conn, err := l.dial(p, from, to, 5*time.Second)
	if err != nil {
		l.Fatal(err)
	}
	other := <-accepted
	return other.RemoteAddr().(*net.TCPAddr).AddrPort(), [2]net.Conn{conn, other}
}

func at(p *place, port uint16) netip.AddrPort { return netip.AddrPortFrom(p.address, port) }

// works tells whether what one end says still reaches the other.
func works(ends [2]net.Conn) error {
	for _, way := range [][2]net.Conn{ends, {ends[1], ends[0]}} {
		for _, c := range ends {
			c.SetDeadline(time.Now().Add(3 * time.Second))
		}
		if _, err := way[0].Write([]byte("x")); err != nil {
			return err
		}
		if _, err := way[1].Read(make([]byte, 1)); err != nil {
			return err
		}
	}
	return nil
}

// wasReset: who still speaks is told that the connection is no more.
func wasReset(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	_, err := conn.Write([]byte("x"))
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("a connection that the NAT does not know: %v, want a reset", err)
	}
}

// TestNATKinds: every NAT maps, filters and answers as its name says.
func TestNATKinds(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) {
		return
	}
	l := newLab(t)
	for _, kind := range []struct {
		name                 string
		independent, keeps   bool
		stranger, sameFriend string // what their uninvited SYNs get
	}{
		{NATMasquerade, true, true, "drop", "drop"},
		{NATFirewall, true, true, "drop", "drop"},
		{NATCone, true, false, "open", "open"},
		{NATRestricted, true, false, "drop", "drop"},
		{NATRestrictedRST, true, false, "reset", "reset"},
		{NATSymmetric, false, false, "drop", "drop"},
		{NATSymmetricRST, false, false, "reset", "reset"},
		{NATForgetful, true, false, "drop", "drop"},
		{NATShared, true, false, "drop", "drop"},
		{NATSharedHairpin, true, false, "drop", "drop"},
		{NATHairpin, true, false, "drop", "drop"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			l := l.on(t)
			friend, other, stranger := l.host(), l.host(), l.host()
			one, two, three := l.listen(friend, 9000), l.listen(friend, 9001), l.listen(other, 9000)
			box := l.behind(kind.name)
			for _, port := range []uint16{labOverlayPort, 0x8123} {
				l.listen(box, port)
				a, ends := l.seen(box, port, at(friend, 9000), one)
				b, _ := l.seen(box, port, at(friend, 9001), two)
				c, _ := l.seen(box, port, at(other, 9000), three)
				if a.Addr() != box.address || b.Addr() != box.address || c.Addr() != box.address {
					t.Errorf("seen at %s, %s, %s; the NAT is %s", a, b, c, box.address)
				}
				if ([3]netip.AddrPort{a, a, a} == [3]netip.AddrPort{a, b, c}) != kind.independent {
					t.Errorf("port %d is seen at %s, %s, %s", port, a, b, c)
				}
				if (a.Port() == port) != kind.keeps {
					t.Errorf("port %d is seen at %s", port, a)
				}
				if got := l.try(stranger, a, kind.stranger); got != kind.stranger {
					t.Errorf("a stranger's SYN to %s: %s, want %s", a, got, kind.stranger)
				}
				if got := l.try(friend, a, kind.sameFriend); got != kind.sameFriend {
					t.Errorf("another port's SYN to %s: %s, want %s", a, got, kind.sameFriend)
				}
				if err := works(ends); err != nil {
					t.Error(err)
				}
				if kind.stranger == "drop" && kind.independent {
					l.meet(box, port, a, stranger)
				}
				if kind.name == NATHairpin {
					if got := l.try(box, a, "drop"); got != "drop" {
						t.Errorf("from behind the NAT itself, uninvited: %s", got)
					}
				}
			}
		})
	}
}

// meet: who is written to gets in. Its own SYN comes first, and is dropped.
func (l *lab) meet(box *place, port uint16, mapped netip.AddrPort, stranger *place) {
	l.Helper()
	met := make(chan error, 1)
	go func() {
		_, err := l.dial(stranger, 5000, mapped, 10*time.Second)
		met <- err
	}()
	l.connecting(stranger, 5000) // else it would refuse, and the test fail
	if _, err := l.dial(box, port, at(stranger, 5000), 10*time.Second); err != nil {
		l.Error("simultaneous open:", err)
	}
	if err := <-met; err != nil {
		l.Error("simultaneous open:", err)
	}
}

// connecting waits until a place has sent a SYN from a port.
func (l *lab) connecting(p *place, port uint16) {
	l.Helper()
	const synSent = "02"
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var list []byte
		err := inNamespace(p.ns, func() (err error) {
			list, err = os.ReadFile("/proc/thread-self/net/tcp")
			return err
		})
		if err != nil {
			l.Fatal(err)
		}
		for line := range strings.Lines(string(list)) {
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == synSent {
				return
			}
		}
	}
	l.Errorf("nobody connects from port %d", port)
}

// TestSharedNAT: two functions have different ports at one address, and reach
// each other there if the NAT lets them.
func TestSharedNAT(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) {
		return
	}
	l := newLab(t)
	for kind, want := range map[string]string{NATShared: "reset", NATSharedHairpin: "open"} {
		t.Run(kind, func(t *testing.T) {
			l := l.on(t)
			server := l.host()
			accepted := l.listen(server, 9000)
			a, b := l.behind(kind), l.behind(kind)
			if a.address != b.address || a.inside == b.inside {
				t.Errorf("behind %s and %s, at %s and %s", a.address, b.address, a.inside, b.inside)
			}
			for _, port := range []uint16{labOverlayPort, 0} { // 0: any
				seenA, ends := l.seen(a, port, at(server, 9000), accepted)
				seenB, _ := l.seen(b, port, at(server, 9000), accepted)
				if seenA == seenB {
					t.Errorf("both are seen at %s", seenA)
				}
				local := ends[0].LocalAddr().(*net.TCPAddr).AddrPort().Port()
				l.listen(a, local)
				if got := l.try(b, seenA, want); got != want {
					t.Errorf("from %s to %s, through the NAT: %s, want %s", b.inside, seenA, got, want)
				}
				if got := l.try(server, seenA, "drop"); got != "drop" {
					t.Errorf("from outside: %s", got)
				}
			}
			first := a.inside
			a.release()
			if again := l.behind(kind); again.inside != first || again.address != b.address {
				t.Errorf("the next one is %s behind %s", again.inside, again.address)
			}
		})
	}
	if len(l.r.shared) != 0 {
		t.Errorf("left: %v", l.r.shared)
	}
}

// TestForgetfulNAT: who is silent for too long is reset.
func TestForgetfulNAT(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) {
		return
	}
	l := newLab(t)
	server, box, steady := l.host(), l.behind(NATForgetful), l.behind(NATRestricted)
	accepted := l.listen(server, 9000)
	_, forgotten := l.seen(box, 0, at(server, 9000), accepted)
	_, kept := l.seen(steady, 0, at(server, 9000), accepted)
	time.Sleep(4200 * time.Millisecond) // forgetfulSeconds
	wasReset(t, forgotten[0])
	if err := works(kept); err != nil {
		t.Errorf("through another NAT: %v", err)
	}
}

// TestDisturbedNAT: what happens to a NAT happens to its connections.
func TestDisturbedNAT(t *testing.T) {
	t.Parallel()
	if !inNewMounts(t) {
		return
	}
	l := newLab(t)
	server := l.host()
	accepted := l.listen(server, 9000)
	to := at(server, 9000)
	disturb := func(p *place, what string) {
		t.Helper()
		if err := p.nat.disturb(what); err != nil {
			t.Fatal(err)
		}
	}
	box := l.behind(NATSymmetric)
	_, ends := l.seen(box, 0, to, accepted)
	disturb(box, NATFlush)
	wasReset(t, ends[0])

	box = l.behind(NATRestricted)
	before, ends := l.seen(box, 40000, to, accepted)
	disturb(box, NATCut)
	disturb(box, NATCut)
	if got := l.try(box, to, "drop"); got != "drop" {
		t.Errorf("through a cut link: %s", got)
	}
	disturb(box, NATMend)
	if err := works(ends); err != nil {
		t.Errorf("mended: %v", err)
	}
	disturb(box, NATReplace)
	wasReset(t, ends[0])
	ends[0].Close()
	after, ends := l.seen(box, 40000, to, accepted)
	if after.Addr() == before.Addr() || after.Port() != before.Port() || after.Addr() != box.nat.address() {
		t.Errorf("was seen at %s, now at %s", before, after)
	}
	if err := works(ends); err != nil {
		t.Error(err)
	}
	if err := box.nat.disturb("tickle"); err == nil {
		t.Error("nothing of that kind can happen")
	}
}
