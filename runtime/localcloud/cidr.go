// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// reserved are networks an overlay must not overlap, whatever the machine has.
var reserved = []takenPrefix{
	{netip.MustParsePrefix("100.64.0.0/16"), "the local cloud's own network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/3"), "multicast and reserved addresses"},
	{netip.MustParsePrefix("0.0.0.0/8"), "addresses that mean no host"},
}

// checkCIDR reports why cidr cannot be an overlay on this machine.
func checkCIDR(cidr string) error {
	p, err := netip.ParsePrefix(cidr)
	if err != nil || !p.Addr().Is4() || p != p.Masked() || p.Bits() < 8 || p.Bits() > 28 {
		return fmt.Errorf("cidr %q: want an IPv4 network between /8 and /28, such as %s", cidr, config.DefaultCIDR)
	}
	taken, err := machinePrefixes()
	if err != nil {
		return err
	}
	taken = append(slices.Clone(reserved), taken...)
	for _, t := range taken {
		if t.prefix.Overlaps(p) {
			return fmt.Errorf("cidr %s overlaps %s (%s): choose another private network, such as %s",
				cidr, t.prefix, t.what, suggestCIDR(taken))
		}
	}
	return nil
}

type takenPrefix struct {
	prefix netip.Prefix
	what   string
}

// machinePrefixes are the IPv4 addresses and routes of this machine, default
// routes (and the halves VPNs cut them into) excepted.
func machinePrefixes() ([]takenPrefix, error) {
	var taken []takenPrefix
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	for _, a := range addresses {
		taken = appendTaken(taken, a.IPNet, "an address of this machine, "+a.IP.String())
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list the routes of this machine: %w", err)
	}
	for _, r := range routes {
		if r.Table == unix.RT_TABLE_LOCAL { // repeats the addresses
			continue
		}
		taken = appendTaken(taken, r.Dst, "a route of this machine")
	}
	return taken, nil
}

func appendTaken(taken []takenPrefix, n *net.IPNet, what string) []takenPrefix {
	if n == nil {
		return taken
	}
	ip, ok := netip.AddrFromSlice(n.IP.To4())
	bits, _ := n.Mask.Size()
	if !ok || bits <= 1 {
		return taken
	}
	return append(taken, takenPrefix{netip.PrefixFrom(ip, bits).Masked(), what})
}

// suggestCIDR is the first free of a few networks.
func suggestCIDR(taken []takenPrefix) string {
	for _, candidate := range []string{config.DefaultCIDR, "100.96.0.0/16", "10.128.0.0/16", "172.20.0.0/16", "192.168.192.0/20"} {
		p, free := netip.MustParsePrefix(candidate), true
		for _, t := range taken {
			free = free && !t.prefix.Overlaps(p)
		}
		if free {
			return candidate
		}
	}
	return config.DefaultCIDR
}
