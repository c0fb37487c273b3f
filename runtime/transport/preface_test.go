// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/rs/zerolog"
)

func example() preface {
	return preface{kind: kindRelayActive, id: 7, src: netip.MustParseAddrPort("100.80.0.7:4000"),
		dst: netip.MustParseAddrPort("100.80.0.9:80"), session: session{1, 2, 3}}.fresh()
}

func TestPrefaceReadsBack(t *testing.T) {
	key := cluster.PrefaceKey(secret)
	p := example()
	p.time, p.flags = time.UnixMilli(p.time.UnixMilli()), probeDial
	b := p.seal(key)
	got, err := open(key, b)
	if err != nil || got != p {
		t.Errorf("%+v became %+v, %v", p, got, err)
	}
	// Where other readers expect the fields.
	if string(b[:4]) != "BXP1" || b[4] != 1 || b[5] != 3 || binary.BigEndian.Uint32(b[36:]) != 0x64500007 || binary.BigEndian.Uint16(b[42:]) != 80 {
		t.Errorf("layout % x", b)
	}
	for i := range b {
		b[i] ^= 1
		if _, err := open(key, b); err == nil {
			t.Errorf("byte %d is not protected", i)
		}
		b[i] ^= 1
	}
	if example().nonce == p.nonce {
		t.Error("two prefaces with one nonce")
	}
}

func TestNoncesAreAdmittedOnceAndBounded(t *testing.T) {
	n := newNonces()
	n.most = 100
	now := time.Now()
	nonce := func(i int) (b [16]byte) {
		binary.BigEndian.PutUint64(b[:], uint64(i))
		return b
	}
	check := func(i int, at, now time.Time, want error) {
		t.Helper()
		if err := n.admit(nonce(i), at, now); !errors.Is(err, want) {
			t.Errorf("nonce %d: %v, want %v", i, err, want)
		}
	}
	check(1, now, now, nil)
	check(1, now, now, errReplay)
	check(2, now.Add(maxSkew+time.Second), now, errTime)
	check(2, now.Add(-maxSkew-time.Second), now, errTime)
	check(2, now.Add(maxSkew), now, nil)
	check(1, now, now.Add(maxSkew-nonceSpan), errReplay) // as long as its time is accepted
	for i := range 500 {
		later := now.Add(time.Duration(i) * time.Second)
		check(100+i, later, later, nil)
		if n.count > n.most {
			t.Fatalf("%d nonces kept", n.count)
		}
	}
	// Under pressure what was forgotten is too old, never new.
	end := now.Add(499 * time.Second)
	for i := range 80 {
		check(1000+i, end, end, nil)
	}
	check(100+400, now.Add(400*time.Second), end, errTime)
	// And a flood within one bucket is refused, not let in unchecked.
	refused := 0
	for i := range 200 {
		if n.admit(nonce(5000+i), end, end) != nil {
			refused++
		}
	}
	if refused == 0 || n.count > n.most {
		t.Errorf("%d refused, %d kept", refused, n.count)
	}
}

// A clock that was an hour ahead and is set right keeps prefaces out for a while: some of
// this time may have been seen.
func TestNoncesWhenTheClockIsSetBack(t *testing.T) {
	n := newNonces()
	now := time.Now()
	must(t, n.admit([16]byte{1}, now, now))
	ahead := now.Add(time.Hour)
	must(t, n.admit([16]byte{2}, ahead, ahead))
	for after := time.Duration(0); ; after += nonceSpan {
		at := now.Add(after)
		err := n.admit([16]byte{3, byte(after / nonceSpan)}, at, at)
		if n.admit([16]byte{1}, now, at) == nil {
			t.Fatalf("a replay is let in after %v", after)
		}
		switch {
		case err == nil && after <= maxSkew:
			t.Fatalf("let in after %v", after)
		case err == nil:
			return
		case after > 2*maxSkew:
			t.Fatalf("kept out after %v: %v", after, err)
		}
	}
}

func FuzzOpenPreface(f *testing.F) {
	key := cluster.PrefaceKey(secret)
	f.Add(example().seal(key))
	f.Add(example().seal(key)[:95])
	f.Add(make([]byte, prefaceSize))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, b := range [][]byte{in, resealed(key, in)} {
			p, err := open(key, b)
			if err != nil {
				continue
			}
			q, err := open(key, p.seal(key))
			if err != nil || q != p {
				t.Errorf("%+v became %+v, %v", p, q, err)
			}
		}
	})
}

// FuzzGreet gives the overlay port whatever comes first on a connection.
func FuzzGreet(f *testing.F) {
	key := cluster.PrefaceKey(secret)
	f.Add([]byte{firstTLS, 3, 1}, false)
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"), false)
	f.Add([]byte{}, false)
	for _, k := range []kind{kindDirect, kindDialBack, kindRelayActive, kindRelayPassive, kindProbe, 9} {
		p := example()
		p.kind = k
		f.Add(append(p.seal(key), "hello"...), true)
		f.Add(p.seal(key)[:95], false)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer ln.Close()
	f.Fuzz(func(t *testing.T, in []byte, known bool) {
		v := &node{network: &network{t: t, by: map[uint32]*node{}}, id: 1, ports: map[uint16]chan arrived{}}
		v.on = []cluster.Member{{ID: 1, OverlayAddress: netip.MustParseAddr("100.80.0.9")}}
		l := New(Options{Secret: secret, Members: v, Control: v, Sockets: v, Reach: reachAny, Relay: true,
			ServeControl: func(c net.Conn) { c.Close() }, Logger: zerolog.Nop()})
		far, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Skip(err)
		}
		defer reset(far.(*net.TCPConn))
		near, err := ln.Accept()
		if err != nil {
			t.Skip(err)
		}
		if known && len(in) >= prefaceSize {
			fresh := append([]byte(nil), in...)
			binary.BigEndian.PutUint64(fresh[8:], uint64(time.Now().UnixMilli()))
			in = append(resealed(key, fresh[:64]), fresh[prefaceSize:]...)
		}
		far.Write(in)
		far.(*net.TCPConn).CloseWrite()
		fd, err := plain(near.(*net.TCPConn), false)
		if err != nil {
			t.Skip(err)
		}
		for end := time.Now().Add(5 * time.Second); !l.greet(fd); {
			if time.Now().After(end) {
				t.Fatal("a connection that has ended is waited for")
			}
		}
		l.Close()
	})
}

// FuzzCalls gives a supervisor whatever an authenticated peer asks of it; this
// one can dial nobody.
func FuzzCalls(f *testing.F) {
	f.Add(methodListening, []byte(`{"port":80}`))
	f.Add(methodDialBack, []byte(`{"session":"AAECAwQFBgcICQoLDA0ODw==","port":80,"from":"100.80.0.2:9","endpoint":"127.0.0.1:1"}`))
	f.Add(methodRelay, []byte(`{"session":"AAECAwQFBgcICQoLDA0ODw==","port":80,"from":"100.80.0.2:9","relay":1}`))
	f.Add(methodRelay, []byte(`{"session":null,"from":""}`))
	f.Fuzz(func(t *testing.T, method string, in []byte) {
		v := &node{network: &network{t: t, by: map[uint32]*node{}}, id: 1, ports: map[uint16]chan arrived{80: nil, 81: make(chan arrived)}}
		v.on = []cluster.Member{{ID: 1, OverlayAddress: netip.MustParseAddr("100.80.0.9")}}
		l := New(Options{Secret: secret, Members: v, Control: v, Sockets: v, Reach: "seeds", Logger: zerolog.Nop()})
		defer l.Close()
		if h := l.Handlers()[method]; h != nil {
			if answer, err := h(t.Context(), 2, in); err == nil {
				if _, err := json.Marshal(answer); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// resealed gives what the fuzzer made a right code, so that parsing is tried
// too.
func resealed(key, in []byte) []byte {
	b := make([]byte, prefaceSize)
	copy(b, in)
	copy(b[64:], code(key, b[:64]))
	return b
}
