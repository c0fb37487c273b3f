// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	tokenPrefix  = "boxer-join-1."
	tokenScheme  = "boxer-join" // of the URI in a token's certificate
	kindByToken  = "client"     // what joins with a token
	tokenMinLife = time.Minute
	// TokenMaxLife is how long before its use a token can be made.
	TokenMaxLife = 24 * time.Hour
	// tokenTail: so long after its last moment of use a token's node may still
	// come back after it lost the seed.
	tokenTail = 24 * time.Hour
)

// Token lets its holder join one network as one client, once, without the
// network's secret. It is a certificate with its key that says what it is for,
// signed by the key that the secret gives; the seed holds the node to it.
type Token struct {
	Network     string    `json:"network"`
	Seeds       []string  `json:"seeds"` // host:port
	Port        uint16    `json:"port"`  // the network's overlay port
	Slot        string    `json:"slot"`
	Service     string    `json:"service"`
	Expires     time.Time `json:"expires"` // the join must come before
	LaunchToken string    `json:"launch_token"`
	Certificate []byte    `json:"certificate"` // DER
	Key         []byte    `json:"key"`         // Ed25519 seed
	Authority   []byte    `json:"authority"`   // DER: who signs the network's seeds
}

// NewToken makes a token from the network's secret. Network, Seeds, Port, Slot
// and Expires of t are set by the caller, Service if it is not the slot.
func NewToken(secret []byte, t Token) (Token, error) {
	now := time.Now()
	if life := t.Expires.Sub(now); life < tokenMinLife-time.Second || life > TokenMaxLife+time.Second {
		return t, fmt.Errorf("a join token for %s: want %s to %s", life.Round(time.Second), tokenMinLife, TokenMaxLife)
	}
	if t.Service == "" {
		t.Service = t.Slot
	}
	authority, err := newIdentity(t.Network, secret)
	if err != nil {
		return t, err
	}
	t.LaunchToken, t.Expires = rand.Text(), t.Expires.UTC().Truncate(time.Second)
	b := binding{slot: t.Slot, service: t.Service, launch: launchHash(t.LaunchToken), issued: now, until: t.Expires}
	template, err := authority.template(t.Expires.Add(tokenTail))
	if err != nil {
		return t, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} // it is no seed
	template.URIs = []*url.URL{b.uri()}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return t, err
	}
	t.Key, t.Authority = private.Seed(), authority.root.Raw
	t.Certificate, err = x509.CreateCertificate(rand.Reader, template, authority.root, public, authority.ca)
	return t, err
}

// String is the token as it is handed on, one word.
func (t Token) String() string {
	data, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings and bytes only
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseToken reads what String wrote. What the token promises is the seed's to check.
func ParseToken(text string) (Token, error) {
	var t Token
	body, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return t, fmt.Errorf("not a join token: it begins with %s", tokenPrefix)
	}
	data, err := base64.RawURLEncoding.DecodeString(body)
	if err == nil {
		err = json.Unmarshal(data, &t)
	}
	if err == nil && (t.Network == "" || t.Slot == "" || len(t.Seeds) == 0 || len(t.Key) != ed25519.SeedSize) {
		err = errors.New("a part of it is missing")
	}
	if err != nil {
		return t, errors.New("the join token is damaged: copy the whole of it, one line without spaces")
	}
	return t, nil
}

// tokenIdentity proves what a token says, and knows no secret.
func tokenIdentity(t *Token) (*identity, error) {
	root, err := x509.ParseCertificate(t.Authority)
	if err != nil {
		return nil, fmt.Errorf("join token: %w", err)
	}
	id := &identity{network: t.Network, root: root, roots: x509.NewCertPool()}
	id.roots.AddCert(root)
	id.fixed = &tls.Certificate{Certificate: [][]byte{t.Certificate}, PrivateKey: ed25519.NewKeyFromSeed(t.Key)}
	return id, nil
}

// binding is what a token's certificate allows its node.
type binding struct {
	slot, service, launch string
	issued, until         time.Time
}

func (b binding) uri() *url.URL {
	return &url.URL{Scheme: tokenScheme, RawQuery: url.Values{
		"slot": {b.slot}, "service": {b.service}, "launch": {b.launch},
		"issued": {strconv.FormatInt(b.issued.UnixMilli(), 10)}, "until": {strconv.FormatInt(b.until.Unix(), 10)},
	}.Encode()}
}

// bindingOf reads what the peer's certificate, which was verified, binds it to;
// nil: to nothing, as it knows the secret. What is not understood is refused.
func bindingOf(state tls.ConnectionState) (*binding, error) {
	uris := state.PeerCertificates[0].URIs
	if len(uris) == 0 {
		return nil, nil
	}
	q := uris[0].Query()
	issued, err1 := strconv.ParseInt(q.Get("issued"), 10, 64)
	until, err2 := strconv.ParseInt(q.Get("until"), 10, 64)
	b := &binding{
		slot: q.Get("slot"), service: q.Get("service"), launch: q.Get("launch"),
		issued: time.UnixMilli(issued), until: time.Unix(until, 0),
	}
	if err := errors.Join(err1, err2); err != nil || len(uris) > 1 || uris[0].Scheme != tokenScheme || b.slot == "" || b.launch == "" {
		return nil, errors.New("a join token of another version")
	}
	return b, nil
}

// check refuses what goes beyond the token. A nil binding binds to nothing.
func (b *binding) check(method string, h Hello) error {
	switch {
	case b == nil:
		return nil
	case method != methodJoin:
		return remoteErrorf(CodeRefused, "a join token is for joining only, not to %s", method)
	case h.Slot != b.slot || h.Service != b.service:
		return remoteErrorf(CodeRefused, "this join token is for %q of service %q, not for %q of service %q", b.slot, b.service, h.Slot, h.Service)
	case h.Kind != kindByToken:
		return remoteErrorf(CodeRefused, "this join token is for a node of kind %s, not %s", kindByToken, h.Kind)
	case h.Succeeds != "":
		return remoteErrorf(CodeRefused, "a join token lets nobody succeed a node that runs")
	case launchHash(h.LaunchToken) != b.launch:
		return remoteErrorf(CodeRefused, "this join token is for another launch of %q", b.slot)
	}
	return nil
}

// first holds a token to its one use: before it ends, and by the next holder of
// its slot. That a launch which has ended does not come back, checkLaunch sees to.
func (b *binding) first(sl *slot) error {
	const remedy = "make a new one"
	switch {
	case b == nil || sl != nil && sl.Launch == b.launch: // it is back
		return nil
	case time.Now().After(b.until):
		return remoteErrorf(CodeRefused, "this join token for %q was good until %s: %s", b.slot, b.until.UTC().Format(time.RFC3339), remedy)
	case sl != nil && sl.Taken.After(b.issued):
		return remoteErrorf(CodeRefused, "slot %q was given to another node since this join token was made: %s", b.slot, remedy)
	}
	return nil
}

func launchHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// PrefaceKey authenticates the prefaces of data connections among members.
func PrefaceKey(secret []byte) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "boxer preface v1", sha256.Size)
	if err != nil {
		panic(err) // only for absurd lengths
	}
	return key
}
