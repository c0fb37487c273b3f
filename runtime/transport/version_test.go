// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/rs/zerolog"
)

// The words of version 1 have no other bytes than before words had versions.
func TestWords(t *testing.T) {
	if version != 1 || start != 0x01 || paired != 0x02 {
		t.Errorf("version %d, start %#x, paired %#x", version, start, paired)
	}
	for _, test := range []struct {
		said byte
		want string // "": it is understood
	}{
		{start, ""}, {paired, "began with byte 0x2"}, {0x11, "speaks version 2, this node version 1"}, {0xff, "speaks version 16"},
		{otherwise, "of another version"}, {0x1f, "speaks version 2"}, {0, "began with byte 0x0"},
	} {
		err := understand(test.said, start)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%#x: %v, want %q", test.said, err, test.want)
		}
	}
}

// nextVersion is p as a later release may say it.
func (v *node) nextVersion(p preface) []byte {
	key := *v.key.Load()
	b := p.fresh().seal(key)
	b[4] = version + 1
	return append(b[:64], code(key, b[:64])...)
}

// Who meets in another version is told so; where a guest would read it nothing is said.
func TestAnotherVersionIsTold(t *testing.T) {
	n := newNetwork(t)
	s, v := n.node(seed), n.node()
	v.listen(80)
	half := v.nextVersion(preface{kind: kindRelayActive, id: v.id, src: v.port(1), dst: v.port(80)})
	if b, err := io.ReadAll(s.knock(half)); err != nil || !bytes.Equal(b, []byte{otherwise}) {
		t.Errorf("a relay says %x, %v; want %#x", b, err, otherwise)
	}
	silent(t, "the same again", s.knock(half))
	silent(t, "a direct one", v.knock(v.nextVersion(preface{kind: kindDirect, id: v.id, src: stranger, dst: v.port(80)})))

	answer, err := v.asked(s, methodRelay, meetCall{Session: make([]byte, 16), Port: 80, From: s.port(1), Relay: s.id, Version: version + 1})
	if err != nil || answer.Status != statusUnable || !strings.Contains(answer.Reason, "speaks version 2, this node version 1") {
		t.Errorf("asked to meet: %+v, %v", answer, err)
	}
}

// A relay of another release is left for one that is understood, and the log says why.
func TestRelayOfAnotherVersion(t *testing.T) {
	n := newNetwork(t)
	s := n.node(seed)
	ln, _ := listenOn(t, "127.0.0.1")
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func(c net.Conn) {
				defer c.Close()
				_, _ = io.ReadFull(c, make([]byte, prefaceSize))
				_, _ = c.Write([]byte{otherwise + 0x10})
			}(conn)
		}
	}()
	later := RelayNode{ID: 101, Endpoint: ln.Addr().String()}
	both := []RelayNode{later, {ID: s.id, Endpoint: s.Self().UnderlayAddress.String(), Load: 1000}}
	var log bytes.Buffer
	relays := func(_ *cluster.Member, o *Options) { o.Relays = func() []RelayNode { return both } }
	a := n.node(behindNAT, relays, func(_ *cluster.Member, o *Options) { o.Logger = zerolog.New(zerolog.SyncWriter(&log)) })
	b := n.node(behindNAT, relays)
	b.listen(80)
	_, err := a.meet(t.Context(), a.Self(), b.Self(), a.port(4321), b.port(80), later)
	if !errors.Is(err, errVersion) || !errors.Is(err, errRelay) {
		t.Errorf("met there: %v", err)
	}
	if !strings.Contains(log.String(), "version 2") {
		t.Errorf("the log does not say why: %s", log.String())
	}
	f, err := a.reachRelay(t.Context(), a.Self(), b.Self(), a.port(4321), b.port(80))
	if err != nil {
		t.Fatal(err)
	}
	f.conn.Close()
}
