// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// knock dials the overlay port of v and sends b.
func (v *node) knock(b []byte) *net.TCPConn {
	v.t.Helper()
	conn, err := net.Dial("tcp", v.Self().UnderlayAddress.String())
	must(v.t, err)
	v.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = conn.Write(b)
	must(v.t, err)
	return conn.(*net.TCPConn)
}

// silent checks that a connection is closed without a byte.
func silent(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(conn); len(b) != 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("%s: read %q, %v; want it closed in silence", what, b, err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

var stranger = netip.MustParseAddrPort("100.80.7.7:4000")

func TestOnlyProvenConnectionsReachTheGuest(t *testing.T) {
	n := newNetwork(t)
	v := n.node()
	arrivals := v.listen(80)
	good := preface{kind: kindDirect, id: 9, src: stranger, dst: v.port(80)}

	frame := good.fresh().seal(*v.key.Load())
	conn := v.knock(append(frame, "first"...)) // the guest's bytes may come along
	a := receive(t, arrivals)
	if a.local != v.port(80) || a.peer != stranger {
		t.Errorf("arrived at %s from %s", a.local, a.peer)
	}
	var b [5]byte
	if _, err := io.ReadFull(a.conn, b[:]); err != nil || string(b[:]) != "first" {
		t.Errorf("guest read %q, %v", b, err)
	}
	talk(t, conn, a.conn)

	silent(t, "replay", v.knock(frame))
	silent(t, "wrong secret", v.knock(good.fresh().seal(cluster.PrefaceKey([]byte("another secret")))))
	tampered := good.fresh().seal(*v.key.Load())
	tampered[43]++ // the port
	silent(t, "tampered", v.knock(tampered))
	late := good.fresh()
	late.time = late.time.Add(-maxSkew - time.Second)
	silent(t, "out of time", v.knock(late.seal(*v.key.Load())))
	astray := good.fresh()
	astray.dst = stranger
	silent(t, "for another node", v.knock(astray.seal(*v.key.Load())))
	if _, err := v.knock(astray.fresh().seal(*v.key.Load())).Read(b[:]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("for another node: %v, want ECONNRESET", err)
	}
	silent(t, "not a preface", v.knock([]byte("GET / HTTP/1.0\r\n\r\n")))
	silent(t, "relay half at a node that relays nothing", v.knock(preface{kind: kindRelayActive}.fresh().seal(*v.key.Load())))
	silent(t, "dial-back nobody waits for", v.knock(preface{kind: kindDialBack, dst: v.port(1)}.fresh().seal(*v.key.Load())))
	half := v.knock(good.fresh().seal(*v.key.Load())[:50])
	half.CloseWrite()
	silent(t, "half a preface", half)

	conn = v.knock(preface{kind: kindDirect, src: stranger, dst: v.port(81)}.fresh().seal(*v.key.Load()))
	if _, err := conn.Read(b[:]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("nobody listens: %v, want ECONNRESET", err)
	}
	select {
	case a := <-arrivals:
		t.Errorf("another connection reached the guest: %+v", a)
	default:
	}
}

func TestSourcePortIsThatOfTheConnectionIfUnknown(t *testing.T) {
	v := newNetwork(t).node()
	arrivals := v.listen(80)
	conn := v.knock(preface{kind: kindDirect, src: netip.AddrPortFrom(stranger.Addr(), 0), dst: v.port(80)}.fresh().seal(*v.key.Load()))
	want := netip.AddrPortFrom(stranger.Addr(), conn.LocalAddr().(*net.TCPAddr).AddrPort().Port())
	if a := receive(t, arrivals); a.peer != want {
		t.Errorf("peer %s, want %s", a.peer, want)
	}
}

// Its far end takes a connection for made: a shortage of descriptors is waited out,
// by so many as there are some for.
func TestArrivalsWaitForDescriptors(t *testing.T) {
	v := newNetwork(t).node()
	v.listen(80)
	knock := func() net.Conn {
		return v.knock(preface{kind: kindDirect, src: stranger, dst: v.port(80)}.fresh().seal(*v.key.Load()))
	}
	v.Layer.short = make(chan struct{}, 1)
	v.short.Store(2)
	knock()
	receive(t, v.ports[80])
	eventually(t, "it waits no more", func() bool { return len(v.Layer.short) == 0 })
	v.Layer.short <- struct{}{}
	v.short.Store(1)
	if _, err := knock().Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one more: %v, want ECONNRESET", err)
	}
}

func TestControlConnectionsAreHandedOnUnread(t *testing.T) {
	v := newNetwork(t).node()
	v.knock([]byte{firstTLS, 3, 1, 0, 0})
	select {
	case conn := <-v.control:
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		var b [5]byte
		if _, err := io.ReadFull(conn, b[:]); err != nil || b != [5]byte{firstTLS, 3, 1} {
			t.Errorf("read %v, %v", b, err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not handed on")
	}
}

// Silent strangers fill the places of the unproven; the oldest of them makes
// room, and who proves itself is served all the same.
func TestSilentStrangersKeepNobodyOut(t *testing.T) {
	const most = 8
	v := newNetwork(t).node(func(_ *cluster.Member, o *Options) { o.unproven = most })
	v.listen(80)
	var strangers []net.Conn
	for range 2 * most {
		conn, err := net.Dial("tcp", v.Self().UnderlayAddress.String())
		must(t, err)
		defer conn.Close()
		strangers = append(strangers, conn)
	}
	strangers[0].SetDeadline(time.Now().Add(2 * time.Second)) // they have 5 s while there is room
	// A reset, as when this process dies: what it has is not served yet.
	if n, err := strangers[0].Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the oldest stranger: %d bytes, %v", n, err)
	}
	v.knock(preface{kind: kindDirect, src: stranger, dst: v.port(80)}.fresh().seal(*v.key.Load()))
	receive(t, v.ports[80])
}

func TestOverlayListenerIsDualStack(t *testing.T) {
	ln, err := ListenOverlay(context.Background(), ":0")
	must(t, err)
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	for _, ip := range []string{"127.0.0.1", "::1"} {
		conn, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(ip), port).String())
		if err != nil {
			t.Errorf("%s: %v", ip, err)
			continue
		}
		conn.Close()
	}
}

func TestPublishedPortWaitsForItsListener(t *testing.T) {
	n := newNetwork(t)
	v := n.node()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- v.Publish(ctx, ln, 80) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	time.Sleep(100 * time.Millisecond)
	a := receive(t, v.listen(80))
	if a.local != v.port(80) || a.peer != conn.LocalAddr().(*net.TCPAddr).AddrPort() {
		t.Errorf("arrived at %s from %s", a.local, a.peer)
	}
	talk(t, conn, a.conn)
	cancel()
	must(t, <-done)
	// Dialling it would not do: another program may have got the port meanwhile.
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
}

func TestListeningIsAnswered(t *testing.T) {
	v := newNetwork(t).node()
	v.listen(80)
	var answer listeningAnswer
	must(t, v.Call(context.Background(), v.id, methodListening, listeningCall{Port: 80}, &answer))
	if !answer.Listening {
		t.Error("port 80 is said not to be listened on")
	}
	for method, handler := range v.Handlers() {
		for _, in := range []string{"", "[]", `{"session":"AAAA"}`} {
			if _, err := handler(context.Background(), 1, []byte(in)); err == nil && method != methodListening {
				t.Errorf("%s accepts %q", method, in)
			}
		}
	}
}
