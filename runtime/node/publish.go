// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// firstPublished is where systemd's socket activation begins to count.
const firstPublished = 3

// publish serves the listeners that were opened outside and handed in; without any a VM
// opens them itself. On a seed, one for the overlay port is another way into it.
func (n *node) publish(ctx context.Context) error {
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid := os.Getenv("LISTEN_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		count = 0 // meant for another process
	}
	if len(n.cfg.Publish) == 0 {
		return nil
	}
	if count == 0 && n.cfg.Kind == config.KindVM {
		return n.publishHere(ctx)
	}
	if count < len(n.cfg.Publish) {
		return fmt.Errorf("publish: %d ports, but %d listeners were handed in (LISTEN_FDS): the platform must open them", len(n.cfg.Publish), count)
	}
	for i, p := range n.cfg.Publish {
		fd := firstPublished + i
		unix.CloseOnExec(fd) // not for the guest
		ln, err := net.FileListener(os.NewFile(uintptr(fd), fmt.Sprintf("publish-%d", p.Port)))
		if err != nil {
			return fmt.Errorf("publish port %d: descriptor %d: %w", p.Port, fd, err)
		}
		if tcp, ok := ln.(*net.TCPListener); ok && n.seed != nil && p.Port == n.cfg.Port {
			n.task(func() error { return n.transport.Serve(ctx, tcp) })
			continue
		}
		n.servePublished(ctx, ln, p)
	}
	return nil
}

// publishHere opens the ports on a machine of the node's own. Where a port is the
// guest's as well its listener is there for everybody, as far as the machine's firewall
// lets them through.
func (n *node) publishHere(ctx context.Context) error {
	for _, p := range n.cfg.Publish {
		if p.HostPort == 0 || p.HostPort == p.Port {
			continue
		}
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort(p.HostAddress, strconv.Itoa(p.HostPort)))
		if err != nil {
			return fmt.Errorf("publish port %d: %w: stop what uses it, or choose another host_port", p.Port, err)
		}
		n.servePublished(ctx, ln, p)
	}
	return nil
}

func (n *node) servePublished(ctx context.Context, ln net.Listener, p config.Publish) {
	var from []netip.Prefix
	for _, cidr := range p.CIDRs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil { // checked with the document
			from = append(from, prefix)
		}
	}
	n.task(func() error { return n.transport.Publish(ctx, ln, uint16(p.Port), from...) })
}
