// SPDX-License-Identifier: Apache-2.0

// Package ipc speaks with the process monitors of this node: frames of
// lib/wire.h over an abstract unix socket, one connection per request, with
// descriptors passed along. Both ends prove a token of this node.
package ipc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
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

// Limits of a server: connections at a time, those of them that have not proven
// themselves, and how long one may take for each of its steps.
const (
	maxConns    = 1024
	maxUnproven = 512
	stepTimeout = 10 * time.Second
)

// Serve answers process monitors until ctx ends; it closes ln and returns when
// every connection is done. It returns nil after ctx ended.
func Serve(ctx context.Context, ln *net.UnixListener, tokens Tokens, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()

	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	slots := make(chan struct{}, maxConns)
	unproven := &doorstep{most: maxUnproven}
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("serve process monitors: %w", err)
		}
		place := unproven.enter(conn)
		running.Go(func() {
			defer func() { <-slots }()
			proven := sync.OnceFunc(func() { unproven.leave(place) })
			defer proven()
			defer conn.Close()
			// Ends reads and writes at once, also those that come later.
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s := session{conn: conn, tokens: tokens, h: h, proven: proven}
			s.run(ctx)
		})
	}
}

// accept waits out a shortage of descriptors or memory.
func accept(ctx context.Context, ln *net.UnixListener) (*net.UnixConn, error) {
	for {
		conn, err := ln.AcceptUnix()
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) &&
			!errors.Is(err, syscall.ENOBUFS) && !errors.Is(err, syscall.ENOMEM) && !errors.Is(err, syscall.ECONNABORTED) {
			return nil, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
