// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func joinError(t *testing.T, change func(*Options), o Options) error {
	t.Helper()
	change(&o)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	s, err := Join(ctx, o)
	if err == nil {
		s.Close()
		t.Fatal("the join succeeded")
	}
	return err
}

func TestErrorsNameTheCauseAndTheRemedy(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := free.Addr().String()
	free.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()

	for _, tt := range []struct {
		name   string
		change func(*Options)
		is     error
		want   string
	}{
		{"wrong secret", func(o *Options) { o.Secret = []byte("quite another secret") }, ErrWrongSecret,
			`join network "shop": seed ` + seed.address + `: wrong secret: the other side of network "shop" uses another one: check the secret file of this node`},
		{"unknown network", func(o *Options) { o.Network = "blog" }, ErrUnknownNetwork,
			`join network "blog": seed ` + seed.address + `: unknown network: the other side is of network "shop", not "blog": check the seed address and the network's name`},
		{"dead seed", func(o *Options) { o.Seeds = []string{dead} }, ErrUnreachable,
			`join network "shop": seed ` + dead + `: connection refused: no seed is running there; start the network or check the address (unreachable)`},
		{"silent seed", func(o *Options) { o.Seeds = []string{mute.Addr().String()} }, ErrUnreachable,
			`join network "shop": seed ` + mute.Addr().String() + `: connected, but the seed did not answer in time: it may be stopped or overloaded; try again (unreachable)`},
		{"two dead seeds", func(o *Options) { o.Seeds = []string{dead, dead} }, ErrUnreachable, "(unreachable); seed " + dead},
		{"no seed", func(o *Options) { o.Seeds = nil }, nil, `join network "shop": no seed address given`},
		{"bad name", func(o *Options) { o.Hello.Slot = "node-3"; o.Hello.Name = "" }, nil, `"node-3" cannot be a name in the network`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := joinError(t, tt.change, seed.options("a"))
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is not %v", err, tt.is)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("message:\n%s\nwant:\n%s", err, tt.want)
			}
			if bytes.Contains([]byte(err.Error()), testSecret) {
				t.Error("the message holds the secret")
			}
		})
	}
}

func TestSecondSeedOfTheListIsTried(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	o := seed.options("a")
	o.Seeds = []string{"127.0.0.1:1", seed.address}
	if s := join(t, o); s.SeedEndpoint() != seed.address {
		t.Errorf("joined through %s", s.SeedEndpoint())
	}
}

// A dialer that does not check the seed's certificate must still not get in.
func TestSeedRefusesAStrangersCertificate(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	stranger, err := newIdentity("shop", []byte("quite another secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, certified := range []bool{true, false} {
		config := stranger.config(x509.ExtKeyUsageServerAuth, alpn)
		config.VerifyConnection = nil
		if !certified {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{}, nil
			}
		}
		conn, err := tls.Dial("tcp", seed.address, config)
		if err != nil {
			continue
		}
		frame, _ := encodeFrame(message{ID: 1, Method: methodObserve, Body: []byte(`{"protocol":1,"network":"shop"}`)})
		_, _ = conn.Write(frame)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n > 0 {
			t.Errorf("a stranger (certificate: %v) was answered", certified)
		} else if err := describeHandshake(err); certified && !errors.Is(err, ErrWrongSecret) {
			t.Errorf("the refusal reads %v", err)
		}
		conn.Close()
	}
}

func TestRepeatedFailuresAreBlocked(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	for range failuresBurst {
		conn, err := net.Dial("tcp", seed.address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	seed.failures.mu.Lock()
	for _, l := range seed.failures.sources {
		l.ReserveN(time.Now(), 3) // so that a slow machine sees the block too
	}
	seed.failures.mu.Unlock()
	err := joinError(t, func(*Options) {}, seed.options("a"))
	if !strings.Contains(err.Error(), "after too many failed attempts") {
		t.Errorf("a blocked source is told %v", err)
	}
	eventually(t, "the block ends", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		s, err := Join(ctx, seed.options("a"))
		if err == nil {
			s.Close()
		}
		return err == nil
	})
}

func TestSourcesAreBounded(t *testing.T) {
	f := newFailureLimit()
	a := addrOf(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)})
	for range 2 * maxSources {
		f.record(a)
		a = a.Next()
	}
	if len(f.sources) > maxSources {
		t.Errorf("%d sources are remembered", len(f.sources))
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, m := range []message{
		{Method: methodPing}, {ID: 1, Method: methodJoin, Body: []byte(`{"protocol":1}`)},
		{ID: 1, Reply: true, Error: remoteErrorf(CodeRefused, "no")},
	} {
		frame, err := encodeFrame(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
		f.Add(frame[:len(frame)-1])
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		frame, err := encodeFrame(m)
		if err != nil {
			return // grew beyond the limit by escaping
		}
		again, err := readFrame(bytes.NewReader(frame))
		if err != nil || again.ID != m.ID || again.Method != m.Method || again.Reply != m.Reply {
			t.Errorf("%+v came back as %+v, %v", m, again, err)
		}
	})
}

// FuzzMessages gives a seed and a session whatever an authenticated peer could send.
func FuzzMessages(f *testing.F) {
	f.Add(methodJoin, []byte(`{"protocol":1,"network":"shop","hello":{"slot":"a","name":"a","service":"a","launch_token":"t"},"status":{"state":"starting"}}`))
	f.Add(methodDelta, []byte(`{"begin":true,"end":true,"members":[{"id":1},3,null],"left":[1]}`))
	f.Add(methodCall, []byte(`{"to":1,"method":"x","timeout_ms":-1}`))
	f.Add(methodStatus, []byte(`{"state":"running"}`))
	f.Add(methodReport, []byte(`[{"to":1}]`))
	f.Fuzz(func(t *testing.T, method string, body []byte) {
		seed, err := NewSeed(SeedOptions{Network: "shop", Secret: testSecret, CIDR: testOptions(t).CIDR, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer seed.Close()
		local, remote := net.Pipe()
		defer local.Close()
		defer remote.Close()
		l := newLink(local, time.Hour, time.Hour, nil)
		m := message{ID: 1, Method: method, Body: body}
		seed.handle(l, addrOf(nil), m)
		seed.handle(l, addrOf(nil), message{ID: 2, Method: methodObserve, Body: []byte(`{"protocol":1,"network":"shop"}`)})
		seed.handle(l, addrOf(nil), m)
		var set memberSet
		set.init()
		var d delta
		if json := readAnswer(message{Body: body}, method, &d); json == nil {
			set.apply(l, d)
		}
	})
}
