// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
	"github.com/boxer-overlay/boxer/runtime/node"
)

func forwardCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "forward NAME [ADDRESS:]PORT:PORT",
		Short: "Make a TCP port of a node reachable from this machine, until Ctrl-C",
		Long: `Make a TCP port of a node reachable from this machine, until Ctrl-C: the first
port is opened here (0: any that is free), on 127.0.0.1 unless another address is
given, the second is the node's. It needs no published port, and reaches functions
behind NAT as well.

NAME is a node's (store, logic-0, node-7) or a service's: its holders then take
turns. A node that is replaced meanwhile is found again.`,
		Example: `  boxer forward db 5432:5432 &
  psql -h 127.0.0.1
  boxer forward logic-0 127.0.0.1:9000:8080`,
		Args:              exactArgs(2),
		ValidArgsFunction: first(g.reachable),
		RunE: func(c *cobra.Command, args []string) error {
			if err := g.forward(c.Context(), c.OutOrStdout(), args[0], args[1]); err != nil {
				return fmt.Errorf("forward %s %s: %w", args[0], args[1], err)
			}
			return nil
		},
	}
}

// forwarding is what `forward --json` prints once it is ready.
type forwarding struct {
	Address string `json:"address"` // of this machine
	Name    string `json:"name"`
	Port    uint16 `json:"port"`
}

// parseForward reads [ADDRESS:]PORT:PORT.
func parseForward(spec string) (local string, port uint16, err error) {
	bad := fmt.Errorf("%q: want [ADDRESS:]PORT:PORT, as in 15432:5432 or 127.0.0.1:15432:5432", spec)
	i := strings.LastIndexByte(spec, ':')
	if i < 0 {
		return "", 0, bad
	}
	p, err := strconv.ParseUint(spec[i+1:], 10, 16)
	if err != nil || p == 0 {
		return "", 0, bad
	}
	host, here := "127.0.0.1", spec[:i]
	if strings.Contains(here, ":") {
		if host, here, err = net.SplitHostPort(here); err != nil {
			return "", 0, bad
		}
	}
	if _, err := strconv.ParseUint(here, 10, 16); err != nil {
		return "", 0, bad
	}
	return net.JoinHostPort(host, here), uint16(p), nil
}

// listenHere opens the near end.
func listenHere(ctx context.Context, address string) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another program: stop it, or choose another port (0: any that is free)", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s may not be opened by this user: choose a port from 1024 up", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s is not an address of this machine: choose one that is (ip addr), or leave it out for 127.0.0.1", address)
	}
	return ln, err
}

func (g *globals) forward(ctx context.Context, out io.Writer, name, spec string) error {
	local, port, err := parseForward(spec)
	if err != nil {
		return err
	}
	info, err := g.running(ctx)
	if err != nil {
		return err
	}
	ln, err := listenHere(ctx, local)
	if err != nil {
		return err
	}
	defer ln.Close()
	f, err := openForwarder(ctx, info)
	if err != nil {
		return err
	}
	defer f.Close()
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := f.Check(asking, name, port); err != nil {
		return err
	}
	if g.json {
		err = printJSON(out, forwarding{ln.Addr().String(), name, port})
	} else {
		_, err = fmt.Fprintf(out, "%s leads to port %d of %s (Ctrl-C ends it)\n", ln.Addr(), port, name)
	}
	if err != nil {
		return err
	}
	return g.serveForward(ctx, info.Name, f, ln, name, port)
}

// openForwarder joins the network as a node that only forwards.
func openForwarder(ctx context.Context, info localcloud.NetworkInfo) (*node.Forwarder, error) {
	slot := "forward-" + launch.Token()[:6]
	n := asClient(info, config.Node{Kind: config.KindClient, Slot: slot, Name: slot, LaunchToken: launch.Token()})
	secret, err := launch.Secret(info)
	if err != nil {
		return nil, err
	}
	return node.NewForwarder(ctx, node.Options{Config: n, Secret: secret, Version: version, Logger: clientLog()})
}

// serveForward forwards until ctx or the network ends.
func (g *globals) serveForward(ctx context.Context, network string, f *node.Forwarder, ln net.Listener, name string, port uint16) error {
	serving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		tick := time.NewTicker(watchTick)
		defer tick.Stop()
		for {
			select {
			case <-serving.Done():
				return
			case <-tick.C:
				if err := g.gone(network); err != nil {
					cancel(err)
				}
			}
		}
	}()
	err := f.Serve(serving, ln, name, port, func(from net.Addr, err error) {
		fmt.Fprintf(os.Stderr, "boxer: forward: a connection from %s is reset: %v\n", from, err)
	})
	if ctx.Err() != nil {
		return nil
	}
	if cause := context.Cause(serving); cause != nil {
		return cause
	}
	return err
}
