// SPDX-License-Identifier: Apache-2.0

// Package ipc speaks with the process monitors of this node: frames of
// lib/wire.h over an abstract unix socket, one connection per request, with
// descriptors passed along. Both ends prove a token of this node.
package ipc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
)

// Tokens are what monitor and supervisor prove to each other.
type Tokens struct{ Monitor, Supervisor Token }

// NewTokens makes fresh ones.
func NewTokens() Tokens {
	var t Tokens
	rand.Read(t.Monitor[:]) // never fails
	rand.Read(t.Supervisor[:])
	return t
}

// Environment is the value of BOXER_IPC for a server that listens at name.
func (t Tokens) Environment(name string) string {
	return name + "/" + hex.EncodeToString(t.Monitor[:]) + "/" + hex.EncodeToString(t.Supervisor[:])
}

// Listen opens the abstract unix socket name (without a leading @ or NUL; no
// slashes).
func Listen(name string) (*net.UnixListener, error) {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: "@" + name, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for process monitors at abstract socket %q: %w", name, err)
	}
	return ln, nil
}

// Serve answers process monitors until ctx ends; it closes ln and returns when
// every connection is done. It returns nil after ctx ended.
func Serve(ctx context.Context, ln *net.UnixListener, tokens Tokens, h Handler) error {
	panic("not yet")
}
