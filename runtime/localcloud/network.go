// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The underlay is a routed star: every host hangs on a cable of its own from
// the router (the namespace of the daemon), with a /32 address. A bridge would
// do, until the neighbour table that all namespaces share overflows at 1,024
// entries. All neighbours are known and set for good, which keeps them out of
// that count altogether.
var (
	routerAddress = netip.MustParseAddr("169.254.1.1") // every host's next hop
	hostBase      = netip.MustParseAddr("100.64.1.0")
	natBase       = netip.MustParseAddr("100.64.128.0")
	sandboxInside = netip.MustParsePrefix("169.254.100.6/30") // the same in every sandbox
)

// hostCount and natCount are how many addresses the two ranges have.
const (
	hostCount = 126 << 8
	natCount  = 127 << 8
	seedIndex = 1 // of seed-0's host; the other seeds follow
)

// addressAt is base + index.
func addressAt(base netip.Addr, index int) netip.Addr {
	b := base.As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += uint32(index)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// indexes hands out numbers from 1 up, the longest unused first: an address
// that just became free may still have connections on their way to it.
type indexes struct {
	mu   sync.Mutex
	size int
	last int
	used map[int]bool
}

func newIndexes(size int) *indexes { return &indexes{size: size, used: map[int]bool{}} }

func (x *indexes) take() (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for range x.size {
		x.last = x.last%x.size + 1
		if !x.used[x.last] {
			x.used[x.last] = true
			return x.last, nil
		}
	}
	return 0, fmt.Errorf("all %d underlay addresses are in use: delete some nodes", x.size)
}

func (x *indexes) release(i int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.used, i)
}

// side is one end of a cable: a network namespace and how to talk to it.
type side struct {
	ns netns.NsHandle
	h  *netlink.Handle
}

func openSide(ns netns.NsHandle) (side, error) {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return side{ns: ns}, fmt.Errorf("open network namespace: %w", err)
	}
	return side{ns, h}, nil
}

func (s side) close() {
	if s.h != nil {
		s.h.Close()
	}
	if s.ns.IsOpen() {
		_ = s.ns.Close()
	}
}

// inNamespace runs f on a thread that is in ns. Go starts threads from a clean
// one, so a thread that cannot go back is thrown away.
func inNamespace(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		err = f()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// newNamespace makes a network namespace with loopback up and the given sysctls.
func newNamespace(sysctls map[string]string) (side, error) {
	done := make(chan error, 1)
	ns := netns.None()
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		if ns, err = netns.New(); err == nil {
			err = writeSysctls(sysctls)
		}
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	err := <-done
	if err != nil {
		if ns.IsOpen() {
			_ = ns.Close()
		}
		return side{ns: netns.None()}, fmt.Errorf("make network namespace: %w", err)
	}
	s, err := openSide(ns)
	if err == nil {
		err = s.loopbackUp()
	}
	if err != nil {
		s.close()
		return side{ns: netns.None()}, err
	}
	return s, nil
}

func (s side) loopbackUp() error {
	lo, err := s.h.LinkByName("lo")
	if err == nil {
		err = s.h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}

// noIPv6 keeps the kernel from sending router solicitations and the like over
// cables; loopback keeps ::1.
var noIPv6 = map[string]string{"net/ipv6/conf/default/disable_ipv6": "1"}

// writeSysctls sets sysctls of the calling thread's network namespace.
func writeSysctls(values ...map[string]string) error {
	for _, m := range values {
		for name, value := range m {
			err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
			if errors.Is(err, os.ErrNotExist) && name == "net/ipv6/conf/default/disable_ipv6" {
				continue // a kernel without IPv6
			}
			if err != nil {
				return fmt.Errorf("set %s to %s: %w", name, value, err)
			}
		}
	}
	return nil
}

// plug says how one end of a cable is set up.
type plug struct {
	side
	name    string
	mac     net.HardwareAddr
	address netip.Prefix // none: not valid
	gateway netip.Addr   // default route over this cable, none: not valid
	route   netip.Prefix // what is behind the cable, none: not valid
	peer    netip.Addr   // the neighbour at the other end
}

// mac is a locally administered address that is unique per cable and end.
func mac(kind byte, index int, end byte) net.HardwareAddr {
	return net.HardwareAddr{0x02, kind, byte(index >> 16), byte(index >> 8), byte(index), end}
}

// connect lays a cable between two namespaces.
func connect(a, b plug) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.HardwareAddr = a.name, a.mac
	veth := &netlink.Veth{
		LinkAttrs: attributes, PeerName: b.name, PeerHardwareAddr: b.mac, PeerNamespace: netlink.NsFd(int(b.ns)),
	}
	if err := a.h.LinkAdd(veth); err != nil {
		return fmt.Errorf("lay cable %s: %w", a.name, err)
	}
	if err := b.setUp(a.mac); err != nil {
		return err
	}
	return a.setUp(b.mac)
}

func (p plug) setUp(peerMAC net.HardwareAddr) error {
	link, err := p.h.LinkByName(p.name)
	if err != nil {
		return fmt.Errorf("cable %s: %w", p.name, err)
	}
	if p.address.IsValid() {
		if err := p.h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p.address)}); err != nil {
			return fmt.Errorf("cable %s: address %s: %w", p.name, p.address, err)
		}
	}
	if err := p.h.LinkSetUp(link); err != nil {
		return fmt.Errorf("cable %s: bring up: %w", p.name, err)
	}
	neighbour := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: p.peer.AsSlice(), HardwareAddr: peerMAC,
	}
	if err := p.h.NeighSet(neighbour); err != nil {
		return fmt.Errorf("cable %s: neighbour %s: %w", p.name, p.peer, err)
	}
	if p.gateway.IsValid() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: p.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
		if err := p.h.RouteAdd(route); err != nil {
			return fmt.Errorf("cable %s: default route: %w", p.name, err)
		}
	}
	if p.route.IsValid() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(p.route), Scope: netlink.SCOPE_LINK}
		if err := p.h.RouteReplace(route); err != nil {
			return fmt.Errorf("cable %s: route %s: %w", p.name, p.route, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// router is the middle of the star.
type router struct {
	side
	hosts, nats *indexes
	seeds       int
	port        uint16 // the overlay port

	sharing sync.Mutex // of the NATs that several functions are behind, by kind
	shared  map[string]*nat
	users   map[string]int
}

// newRouter turns the calling process's network namespace into the router.
func newRouter(seeds int, port uint16) (*router, error) {
	// Unreachable addresses answer at once and always, whatever the rate.
	err := writeSysctls(noIPv6, map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/icmp_ratelimit": "0"})
	if err != nil {
		return nil, err
	}
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	s, err := openSide(ns)
	if err != nil {
		_ = ns.Close()
		return nil, err
	}
	r := &router{side: s, hosts: newIndexes(hostCount - 1), nats: newIndexes(natCount - 1), seeds: seeds, port: port,
		shared: map[string]*nat{}, users: map[string]int{}}
	for range seeds {
		_, _ = r.hosts.take() // the first, from seedIndex on, are kept for the seeds
	}
	if err = s.loopbackUp(); err == nil {
		var lo netlink.Link
		if lo, err = s.h.LinkByName("lo"); err == nil {
			err = s.h.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(routerAddress, 32))})
		}
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("router: %w", err)
	}
	return r, nil
}

// place is where a host or sandbox sits in the star.
type place struct {
	ns      netns.NsHandle // the namespace its processes live in
	address netip.Addr     // what others see its connections come from
	inside  netip.Addr     // its own, behind a NAT
	nat     *nat           // nil: none
	release func()         // takes the cables and the address back
}

// addHost connects a new VM host.
func (r *router) addHost() (*place, error) { return r.addHostIn(0) }

// addHostIn connects one at an address of a block (elasticBlock).
func (r *router) addHostIn(block int) (*place, error) {
	index, err := r.hosts.take()
	if err != nil {
		return nil, err
	}
	return r.plugHost(index, block)
}

// addSeed connects a seed's host, always at the address every node knows it by.
func (r *router) addSeed(number int) (*place, error) {
	return r.plugHost(seedIndex+number, 0)
}

func (r *router) plugHost(index, block int) (*place, error) {
	p := &place{address: addressAt(hostBase, index+block)}
	s, err := newNamespace(map[string]string{
		"net/ipv4/ip_unprivileged_port_start": "0", // a VM's guests may take port 80
		"net/ipv6/conf/default/disable_ipv6":  "1",
	})
	if err == nil {
		p.ns = s.ns
		err = connect(
			plug{side: r.side, name: fmt.Sprintf("vm%d", index), mac: mac(1, index, 1),
				route: netip.PrefixFrom(p.address, 32), peer: p.address},
			plug{side: s, name: "eth0", mac: mac(1, index, 2),
				address: netip.PrefixFrom(p.address, 32), gateway: routerAddress, peer: routerAddress})
	}
	p.release = sync.OnceFunc(func() {
		r.unplug(fmt.Sprintf("vm%d", index))
		s.close()
		if index >= seedIndex+r.seeds {
			r.hosts.release(index)
		}
	})
	if err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

// unplug removes a cable now: the kernel would take it away some time after the
// last process of its namespace.
func (r *router) unplug(name string) {
	if link, err := r.h.LinkByName(name); err == nil {
		_ = r.h.LinkDel(link)
	}
}
