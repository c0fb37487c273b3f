// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Kinds of NAT that a function can be put behind (docs/nat.md).
const (
	NATMasquerade     = "masquerade"     // Linux's: the port stays, nothing uninvited gets in
	NATFirewall       = "firewall"       // the same rules: it keeps ports and lets nothing in
	NATCone           = "cone"           // one port outside for each inside, and anybody reaches it
	NATRestricted     = "restricted"     // the same port for all, but only who was written to reaches it
	NATRestrictedRST  = "restricted-rst" // and others are reset
	NATSymmetric      = "symmetric"      // a port at random for each connection
	NATSymmetricRST   = "symmetric-rst"
	NATForgetful      = "forgetful"      // restricted, and connections are forgotten after a few seconds
	NATShared         = "shared"         // restricted, one for all functions of this kind
	NATSharedHairpin  = "shared-hairpin" // and these reach each other through it
	NATHairpin        = "hairpin"        // restricted, and a function reaches itself like that, too
	forgetfulSeconds  = "4"              // 350 s on AWS
	sharedPlaces      = 8                // functions behind one NAT
	natOutsideCable   = "pub"            // as its rules name it
	natInsideCable    = "in"             // and a number
	portsOfPlace      = 0x1000           // local ports that a place behind a shared NAT chooses from,
	firstPortsOfPlace = 0x8000           // the first of them here
)

var natKinds = []string{
	NATMasquerade, NATFirewall, NATCone, NATRestricted, NATRestrictedRST, NATSymmetric, NATSymmetricRST,
	NATForgetful, NATShared, NATSharedHairpin, NATHairpin,
}

// CheckNAT tells whether there is such a kind; the empty one is NATMasquerade.
func CheckNAT(kind string) error {
	if kind != "" && !slices.Contains(natKinds, kind) {
		return fmt.Errorf("NAT %q: want one of %s", kind, strings.Join(natKinds, ", "))
	}
	return nil
}

// Things that may happen to a NAT (Client.DisturbNAT).
const (
	NATFlush   = "flush"   // it forgets all connections
	NATCut     = "cut"     // nothing passes
	NATMend    = "mend"    // things pass again
	NATReplace = "replace" // another one stands there, with another address
)

// nat is one NAT: a namespace between the router and sandboxes.
type nat struct {
	side
	r     *router
	kind  string
	cable string // the router's end

	mu     sync.Mutex
	index  int // of its public address
	public netip.Addr
	inside [sharedPlaces]bool // places that are taken
	ruled  bool               // its rules were written
	cut    bool
}

// addSandbox connects a new function sandbox behind a NAT of its own, or one of a
// shared kind: the sandbox has the same inner address as all others, connections
// it makes come from the NAT's public address, and what gets in is up to the
// kind. Relaxed: any port may be listened on.
func (r *router) addSandbox(kind string, relaxed bool) (*place, error) {
	n, err := r.findNAT(kind)
	if err != nil {
		return nil, err
	}
	at, err := n.takePlace()
	if err != nil {
		r.leaveNAT(n)
		return nil, err
	}
	sandbox, err := n.addInside(at, relaxed)
	p := &place{ns: sandbox.ns, nat: n, address: n.address(), inside: insideAddress(at)}
	p.release = sync.OnceFunc(func() {
		n.givePlace(at)
		sandbox.close()
		r.leaveNAT(n)
	})
	if err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

func shares(kind string) bool { return kind == NATShared || kind == NATSharedHairpin }

// findNAT makes a NAT, or finds the one that is shared; leaveNAT is its end.
func (r *router) findNAT(kind string) (*nat, error) {
	if !shares(kind) {
		return r.addNAT(kind)
	}
	r.sharing.Lock()
	defer r.sharing.Unlock()
	if r.shared[kind] == nil {
		n, err := r.addNAT(kind)
		if err != nil {
			return nil, err
		}
		r.shared[kind] = n
	}
	r.users[kind]++
	return r.shared[kind], nil
}

func (r *router) leaveNAT(n *nat) {
	if shares(n.kind) {
		r.sharing.Lock()
		defer r.sharing.Unlock()
		if r.users[n.kind]--; r.users[n.kind] > 0 {
			return
		}
		delete(r.shared, n.kind)
	}
	n.close()
}

func (r *router) addNAT(kind string) (*nat, error) {
	index, err := r.nats.take()
	if err != nil {
		return nil, err
	}
	n := &nat{r: r, kind: kind, cable: fmt.Sprintf("fn%d", index), index: index, public: addressAt(natBase, index)}
	n.side, err = newNamespace(map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/default/disable_ipv6": "1",
	})
	if err == nil {
		err = connect(
			plug{side: r.side, name: n.cable, mac: mac(2, index, 1), route: netip.PrefixFrom(n.public, 32), peer: n.public},
			plug{side: n.side, name: natOutsideCable, mac: mac(2, index, 2),
				address: netip.PrefixFrom(n.public, 32), gateway: routerAddress, peer: routerAddress})
	}
	if err == nil {
		err = n.rule()
	}
	if err == nil && kind == NATForgetful {
		err = n.forgetSoon()
	}
	if err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *nat) close() {
	n.r.unplug(n.cable)
	n.side.close()
	n.r.nats.release(n.index)
}

func (n *nat) address() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.public
}

func (n *nat) takePlace() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, taken := range n.inside {
		if !taken {
			n.inside[i] = true
			return i, nil
		}
	}
	return 0, fmt.Errorf("%d functions are behind the %s NAT already: delete some", sharedPlaces, n.kind)
}

// givePlace takes the cable away as well.
func (n *nat) givePlace(at int) {
	if link, err := n.h.LinkByName(fmt.Sprint(natInsideCable, at)); err == nil {
		_ = n.h.LinkDel(link)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inside[at] = false
}

// insideAddress is that of the sandbox at a place; its gateway is the one before.
func insideAddress(at int) netip.Addr { return addressAt(sandboxInside.Addr(), 4*at) }

func (n *nat) addInside(at int, relaxed bool) (side, error) {
	sysctls := map[string]string{"net/ipv4/ip_unprivileged_port_start": "1024", "net/ipv6/conf/default/disable_ipv6": "1"}
	if relaxed {
		sysctls["net/ipv4/ip_unprivileged_port_start"] = "0"
	}
	if shares(n.kind) { // the port outside is a function of the one inside: the places' must differ
		first := firstPortsOfPlace + at*portsOfPlace
		sysctls["net/ipv4/ip_local_port_range"] = fmt.Sprintf("%d %d", first, first+portsOfPlace-1)
	}
	sandbox, err := newNamespace(sysctls)
	if err != nil {
		return side{ns: netns.None()}, err
	}
	inside := insideAddress(at)
	gateway := inside.Prev()
	bits := sandboxInside.Bits()
	if n.kind == NATHairpin {
		if err := dropUninvited(sandbox); err != nil {
			return sandbox, err
		}
	}
	return sandbox, connect(
		plug{side: n.side, name: fmt.Sprint(natInsideCable, at), mac: mac(3, n.index, byte(2*at+1)), address: netip.PrefixFrom(gateway, bits), peer: inside},
		plug{side: sandbox, name: "eth0", mac: mac(3, n.index, byte(2*at+2)),
			address: netip.PrefixFrom(inside, bits), gateway: gateway, peer: gateway})
}

// forgetSoon makes the NAT forget connections that are silent, and reset those
// that speak later, as AWS's gateway does.
func (n *nat) forgetSoon() error {
	sysctls := map[string]string{"net/netfilter/nf_conntrack_tcp_loose": "0"}
	for _, state := range []string{"established", "syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "unacknowledged"} {
		sysctls["net/netfilter/nf_conntrack_tcp_timeout_"+state] = forgetfulSeconds
	}
	return inNamespace(n.ns, func() error { return writeSysctls(sysctls) })
}

// disturb does one of the things that may happen.
func (n *nat) disturb(what string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch what {
	case NATFlush:
		return n.flush()
	case NATCut:
		return n.block(true)
	case NATMend:
		return n.block(false)
	case NATReplace:
		return n.replace()
	}
	return badRequest{fmt.Errorf("NAT: %q: want %s, %s, %s or %s", what, NATFlush, NATCut, NATMend, NATReplace)}
}

func (n *nat) flush() error {
	h, err := netlink.NewHandleAt(n.ns, unix.NETLINK_NETFILTER)
	if err == nil {
		defer h.Close()
		err = h.ConntrackTableFlush(netlink.ConntrackTable)
	}
	if err != nil {
		return fmt.Errorf("flush the connections of a NAT: %w", err)
	}
	return nil
}

// replace gives the NAT another address and nothing to remember. Callers hold mu.
func (n *nat) replace() error {
	index, err := n.r.nats.take()
	if err != nil {
		return err
	}
	public, old := addressAt(natBase, index), n.public
	outside, err := n.h.LinkByName(natOutsideCable)
	if err == nil {
		err = n.h.AddrAdd(outside, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(public, 32))})
	}
	if err == nil {
		err = plug{side: n.r.side, name: n.cable, route: netip.PrefixFrom(public, 32), peer: public}.setUp(outside.Attrs().HardwareAddr)
	}
	if err != nil {
		n.r.nats.release(index)
		return fmt.Errorf("replace a NAT: %w", err)
	}
	freed := n.index
	n.index, n.public = index, public
	err = errors.Join(n.leave(outside, old), n.rule(), n.flush())
	n.r.nats.release(freed)
	return err
}

// leave takes an address off the outside.
func (n *nat) leave(outside netlink.Link, old netip.Addr) error {
	prefix := ipNet(netip.PrefixFrom(old, 32))
	err := n.h.AddrDel(outside, &netlink.Addr{IPNet: prefix})
	if cable, e := n.r.h.LinkByName(n.cable); e == nil {
		err = errors.Join(err, n.r.h.RouteDel(&netlink.Route{LinkIndex: cable.Attrs().Index, Dst: prefix, Scope: netlink.SCOPE_LINK}))
	}
	return err
}
