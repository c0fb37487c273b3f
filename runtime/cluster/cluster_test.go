// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

var testSecret = []byte("a secret of twenty-nine bytes")

// testSeed is a seed behind a real listener on loopback.
type testSeed struct {
	*Seed
	address  string
	listener net.Listener
	accepted sync.WaitGroup
}

func testOptions(t *testing.T) SeedOptions {
	return SeedOptions{
		Network: "shop", Secret: testSecret, CIDR: netip.MustParsePrefix("100.80.0.0/16"),
		StatePath: filepath.Join(t.TempDir(), "seed.json"),
		Lease:     time.Second, Heartbeat: 100 * time.Millisecond, Silence: 3 * time.Second,
		Logger: zerolog.New(zerolog.NewTestWriter(t)),
	}
}

func startSeed(t *testing.T, o SeedOptions, address string) *testSeed {
	t.Helper()
	if os.Getenv("BOXER_SEED_LOG") == "" {
		o.Logger = zerolog.Nop()
	}
	seed, err := NewSeed(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &testSeed{Seed: seed}
	if s.listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	s.address = s.listener.Addr().String()
	s.accepted.Add(1)
	go func() {
		defer s.accepted.Done()
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			go func() {
				defer s.accepted.Done()
				s.ServeConn(conn)
			}()
		}
	}()
	t.Cleanup(s.stop)
	return s
}

func (s *testSeed) stop() {
	_ = s.listener.Close()
	_ = s.Close()
	s.accepted.Wait()
}

func (s *testSeed) options(slot string) Options {
	return Options{
		Network: "shop", Secret: testSecret, Seeds: []string{s.address}, Logger: zerolog.Nop(),
		Heartbeat: 100 * time.Millisecond, Silence: 3 * time.Second,
		Hello: Hello{Slot: slot, Kind: "vm", Version: "test", Port: 7717, UnderlayAddress: netip.MustParseAddr("127.0.0.1")},
	}
}

func join(t *testing.T, o Options) *Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := Join(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func stateOf(s *Session, id uint32) string {
	m, ok := s.Member(id)
	if !ok {
		return "absent"
	}
	return m.State
}
