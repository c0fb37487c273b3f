// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpenConnectionsAreCounted(t *testing.T) {
	l := start(t, nil)
	g := listen(t, l, "127.0.0.1", 0, 10)
	want := func(what string, count int) {
		t.Helper()
		eventually(t, what, func() bool {
			open, err := l.Open()
			must(t, err)
			return open == count
		})
	}
	want("nothing is open", 0)
	far := g.deliver()
	want("one waits in the queue", 1)
	if !g.wait(5 * time.Second) {
		t.Fatal("the guest is not woken")
	}
	conn, _, err := g.accept()
	must(t, err)
	want("it is accepted", 1)

	native, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", g.port))
	must(t, err)
	defer native.Close()
	want("a native one waits in the kernel's queue", 2)

	// What the guest has dialled is no reason to wait.
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	out, err := net.Dial("tcp4", ln.Addr().String())
	must(t, err)
	defer out.Close()
	raw, err := out.(*net.TCPConn).SyscallConn()
	must(t, err)
	raw.Control(func(fd uintptr) {
		cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE)
		must(t, err)
		l.Remember(cookie, netip.AddrPortFrom(overlay, 0), peer, unix.AF_INET) // as a direct one is
	})
	want("the guest has dialled as well", 2)

	conn.Close()
	far.Close()
	native.Close()
	g.close() // resets what it did not accept
	want("all have ended", 0)
}
