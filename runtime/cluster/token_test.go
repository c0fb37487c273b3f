// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// token for a slot of the test's network.
func (s *testSeed) token(t *testing.T, slot string) Token {
	t.Helper()
	token, err := NewToken(testSecret, Token{Network: "shop", Seeds: []string{s.address}, Slot: slot, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// withToken are the options of a client that knows no secret.
func withToken(token Token) Options {
	return Options{
		Network: token.Network, Token: &token, Seeds: token.Seeds, Logger: zerolog.Nop(),
		Heartbeat: 100 * time.Millisecond, Silence: 3 * time.Second,
		Hello: Hello{Slot: token.Slot, Service: token.Service, Kind: "client", Version: "test", Reach: "seeds", LaunchToken: token.LaunchToken},
	}
}

func refused(t *testing.T, o Options, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := Join(ctx, o)
	if err == nil {
		s.Close()
		t.Fatalf("joined; want %q", want)
	}
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestTokenJoins(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	token := seed.token(t, "visitor")
	text := token.String()
	if strings.Contains(text, "\n") || strings.Contains(text, " ") {
		t.Errorf("the token is more than one word: %q", text)
	}
	data, err := json.Marshal(token)
	if err != nil || bytes.Contains(data, testSecret) {
		t.Errorf("the token holds the secret (%v)", err)
	}
	copied, err := ParseToken(" " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	s := join(t, withToken(copied))
	if self := s.Self(); self.Slot != "visitor" || self.Service != "visitor" || self.Kind != "client" {
		t.Errorf("joined as %+v", self)
	}
	if !bytes.Equal(s.PrefaceKey(), PrefaceKey(testSecret)) {
		t.Error("the seed did not tell the key of the prefaces")
	}
	if other := join(t, seed.options("store")); other.PrefaceKey() != nil {
		t.Error("the seed tells the key to who can derive it")
	}
}

// The token is used up by a node that leaves in order, and by that alone: what
// lost the seed comes back with it, also after a restart of the seed.
func TestTokenIsForOneLaunch(t *testing.T) {
	options := testOptions(t)
	seed := startSeed(t, options, "127.0.0.1:0")
	token := seed.token(t, "visitor")
	first := join(t, withToken(token))
	id := first.Self().ID
	first.Close() // without a word
	seed.stop()
	seed = startSeed(t, options, seed.address)
	again := join(t, withToken(token))
	if again.Self().ID != id {
		t.Errorf("node %d came back as %d", id, again.Self().ID)
	}
	if err := again.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, withToken(token), "has ended already")
	seed.stop()
	seed = startSeed(t, options, seed.address)
	refused(t, withToken(token), "has ended already")

	// The slot's next holder makes the seed forget the launch, not the token's time.
	next := join(t, withToken(seed.token(t, "visitor")))
	if err := next.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, withToken(token), "given to another node since this join token was made")
}

func TestTokenAllowsNoMore(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	token := seed.token(t, "visitor")
	for want, change := range map[string]func(*Options){
		`for "visitor" of service "visitor", not for "store"`: func(o *Options) { o.Hello.Slot = "store" },
		`not for "visitor" of service "db"`:                   func(o *Options) { o.Hello.Service = "db" },
		"for a node of kind client, not seed":                 func(o *Options) { o.Hello.Kind = "seed" },
		`another launch of "visitor"`:                         func(o *Options) { o.Hello.LaunchToken = "made up" },
	} {
		o := withToken(token)
		change(&o)
		refused(t, o, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if s, err := Observe(ctx, withToken(token)); err == nil {
		s.Close()
		t.Error("a token lets its holder observe")
	} else if !errors.Is(err, ErrRefused) {
		t.Errorf("observing: %v", err)
	}
	join(t, withToken(token)) // the refusals have not used it up
}

// Whoever may connect may wake what it connects to.
func TestATokenStartsWhatIsUsed(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	o := seed.options("seed-0")
	o.Hello.Kind = kindSeed
	o.Handlers = map[string]Handler{}
	for _, method := range []string{WakeMethod, ControlPrefix + "remove"} {
		o.Handlers[method] = func(context.Context, uint32, json.RawMessage) (any, error) { return "done", nil }
	}
	leader := join(t, o)
	runs(t, leader)
	visitor := join(t, withToken(seed.token(t, "visitor")))
	eventually(t, "the seed runs", func() bool { return stateOf(visitor, leader.Self().ID) == StateRunning })
	var out string
	if err := visitor.CallLeader(t.Context(), WakeMethod, nil, &out); err != nil || out != "done" {
		t.Errorf("waking: %q, %v", out, err)
	}
	if err := visitor.CallLeader(t.Context(), ControlPrefix+"remove", nil, &out); !errors.Is(err, ErrRefused) {
		t.Errorf("removing: %v", err)
	}
}

// Only the network's own secret makes tokens, and what they say is signed.
func TestForgedTokens(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	forged, err := NewToken([]byte("quite another secret"), Token{Network: "shop", Seeds: []string{seed.address}, Slot: "visitor", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	forged.Authority = seed.token(t, "visitor").Authority // it believes the seed
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if s, err := Join(ctx, withToken(forged)); err == nil {
		s.Close()
		t.Error("a token of another secret was accepted")
	} else if !errors.Is(err, ErrWrongSecret) {
		t.Errorf("a token of another secret: %v", err)
	}
}

// Whoever holds a token cannot play the seed with it.
func TestTokenIsNoSeed(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	token := seed.token(t, "visitor")
	impostor := startSeed(t, testOptions(t), "127.0.0.1:0")
	id, err := tokenIdentity(&token)
	if err != nil {
		t.Fatal(err)
	}
	impostor.identity.fixed = id.fixed
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if s, err := Join(ctx, impostor.options("store")); err == nil {
		s.Close()
		t.Error("a node joined a seed that has only a token")
	} else if !errors.Is(err, ErrWrongSecret) {
		t.Errorf("joining it: %v", err)
	}
}

func TestTokenExpires(t *testing.T) {
	var b *binding
	if err := b.first(nil); err != nil {
		t.Errorf("no binding: %v", err)
	}
	b = &binding{slot: "visitor", launch: "l", issued: time.Now().Add(-time.Hour), until: time.Now().Add(-time.Second)}
	if err := b.first(nil); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "was good until") {
		t.Errorf("after its end: %v", err)
	}
	if err := b.first(&slot{tenant: tenant{Launch: "l"}}); err != nil {
		t.Errorf("coming back after its end: %v", err)
	}
	for _, life := range []time.Duration{-time.Hour, time.Second, TokenMaxLife + time.Minute} {
		if _, err := NewToken(testSecret, Token{Network: "shop", Slot: "visitor", Expires: time.Now().Add(life)}); err == nil {
			t.Errorf("a token for %s was made", life)
		}
	}
}

func TestDamagedTokens(t *testing.T) {
	token := Token{Network: "shop", Slot: "a", Seeds: []string{"s:1"}, Key: make([]byte, 32)}.String()
	if _, err := ParseToken(token); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"":                            "not a join token",
		"secret":                      "not a join token",
		token[:len(token)-9]:          "damaged",
		tokenPrefix + "e30":           "damaged",
		token[:20] + " " + token[20:]: "damaged",
	} {
		if _, err := ParseToken(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
}
