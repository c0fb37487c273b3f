// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

const (
	certLife  = 24 * time.Hour
	certSkew  = time.Hour // clocks of nodes may differ by this much
	certRenew = time.Hour
	alpn      = "boxer/1"
	alpnSeeds = "boxer-seeds/1" // streams of the seeds' log
)

// identity proves the knowledge of the network secret. The secret gives, by
// HKDF, the key of a certificate authority; whoever knows it can mint itself a
// certificate, so holding a valid one is the proof, in both directions.
type identity struct {
	network string
	ca      ed25519.PrivateKey
	root    *x509.Certificate
	roots   *x509.CertPool

	fixed *tls.Certificate // of a join token; then there is no ca

	mu     sync.Mutex
	leaf   *tls.Certificate
	minted time.Time
}

func newIdentity(network string, secret []byte) (*identity, error) {
	if len(secret) == 0 {
		return nil, errors.New("the network secret is empty")
	}
	seed, err := hkdf.Key(sha256.New, secret, nil, "boxer network ca v1", ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the network key: %w", err)
	}
	id := &identity{network: network, ca: ed25519.NewKeyFromSeed(seed)}
	root := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "boxer network"},
		NotBefore:             time.Unix(0, 0),
		NotAfter:              time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, id.ca.Public(), id.ca)
	if err != nil {
		return nil, fmt.Errorf("make the network certificate: %w", err)
	}
	if id.root, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make the network certificate: %w", err)
	}
	id.roots = x509.NewCertPool()
	id.roots.AddCert(id.root)
	return id, nil
}

// certificate is this process's own, minted again before it grows old.
func (id *identity) certificate() (*tls.Certificate, error) {
	if id.fixed != nil {
		return id.fixed, nil
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	now := time.Now()
	if id.leaf != nil && now.Sub(id.minted).Abs() < certRenew {
		return id.leaf, nil
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := id.template(now.Add(certLife))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, id.root, public, id.ca)
	if err != nil {
		return nil, err
	}
	id.leaf = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
	id.minted = now
	return id.leaf, nil
}

// template of a member's certificate.
func (id *identity) template(until time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: id.network},
		DNSNames:     []string{id.network},
		NotBefore:    time.Now().Add(-certSkew),
		NotAfter:     until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, err
}

// verify accepts a peer that knows the secret, or has a token made with it, may
// play its role, and means the same network.
func (id *identity) verify(state tls.ConnectionState, role x509.ExtKeyUsage) error {
	if len(state.PeerCertificates) == 0 {
		return remoteErrorf(CodeWrongSecret, "the other side showed no certificate")
	}
	if state.NegotiatedProtocol == alpnSeeds {
		role = x509.ExtKeyUsageServerAuth // only seeds speak it, to seeds
	}
	leaf := state.PeerCertificates[0]
	if name := leaf.Subject.CommonName; name != id.network {
		return remoteErrorf(CodeUnknownNetwork,
			"unknown network: the other side is of network %q, not %q: check the seed address and the network's name", name, id.network)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		DNSName: id.network, Roots: id.roots, KeyUsages: []x509.ExtKeyUsage{role},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return remoteErrorf(CodeRefused, "certificate valid from %s to %s only: set the clocks of both machines right",
			leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	}
	return remoteErrorf(CodeWrongSecret, "wrong secret: the other side of network %q uses another one: check the secret file of this node", id.network)
}

// config for a connection to a peer in this role.
func (id *identity) config(peer x509.ExtKeyUsage, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protocols,
		SessionTicketsDisabled: true, // every connection proves itself anew
		// Names of hosts mean nothing here: verify does all the checking.
		InsecureSkipVerify: true,
		ClientAuth:         tls.RequireAnyClientCert,
		VerifyConnection:   func(state tls.ConnectionState) error { return id.verify(state, peer) },
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return id.certificate()
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.certificate()
		},
	}
}
