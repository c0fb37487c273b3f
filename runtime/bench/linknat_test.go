// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// The functions and their NATs, which are what nodes know as restricted: a port
// stays, and only who was written to gets in. The near one has the near end's
// address, the far one an own.
const (
	natHost    = "10.90.0.4"
	nearBox    = "10.91.0.2"
	nearRouter = "10.91.0.1"
	farBox     = "10.92.0.2"
	farRouter  = "10.92.0.1"
)

// measurePunch starts two functions and lets the near one measure.
func (w *linkWorld) measurePunch(link *delayer) error {
	near, err := w.behind(w.near, nearHost, nearBox, nearRouter)
	if err != nil {
		return err
	}
	far, err := w.behind(w.far, natHost, farBox, farRouter)
	if err != nil {
		return err
	}
	sides := threeSides(farHost, "fn", w.CPU)
	script := w.Plan.script("punch over the link")
	script.await(sides[0], boxerPort)
	script.settle()
	script.paused(linkPunchBlocks, "link.punch", "", sides)
	script.paused(linkColdBlocks, "link.cold", "PROBE_BIND=1 ", sides)
	if err := w.serve(); err != nil {
		return err
	}
	if err := link.delay(linkDelay); err != nil {
		return err
	}
	server := fmt.Sprintf("exec %s/probe serve %d\n", w.Dir, boxerPort)
	err = errors.Join(
		w.start(far, config.Node{Kind: config.KindFunction, Slot: "fn", UnderlayAddress: farBox, Port: boxPort}, server),
		w.start(near, config.Node{Kind: config.KindFunction, Slot: "near", UnderlayAddress: nearBox, Port: boxPort,
			WaitFor: map[string]int{"far": 1, "fn": 1}}, script.text(w.Dir)))
	if err != nil {
		return err
	}
	return w.await("near")
}

// behind makes a namespace whose connections come from the address outside of
// the namespace at, which routes and translates.
func (w *linkWorld) behind(at netns.NsHandle, outside, inside, router string) (netns.NsHandle, error) {
	box, err := netns.New() // this thread is there now
	if err != nil {
		return box, fmt.Errorf("make the namespace behind a NAT: %w", err)
	}
	if err := netns.Set(at); err != nil {
		return box, err
	}
	err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "box0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(box)})
	err = errors.Join(err, up("box0", router), os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644), translate(at, outside, inside), netns.Set(box))
	if err == nil {
		err = errors.Join(up("lo"), up("eth0", inside), netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(router)}))
	}
	if err = errors.Join(err, netns.Set(w.near)); err != nil {
		return box, fmt.Errorf("the NAT at %s: %w", outside, err)
	}
	return box, nil
}

// translate writes the NAT's rules.
func translate(at netns.NsHandle, outside, inside string) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(at)))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "nat"})
	// The seed and the server are where the far NAT is: what goes no further is
	// translated as well.
	for name, hook := range map[string]*nftables.ChainHook{"source": nftables.ChainHookPostrouting, "here": nftables.ChainHookInput} {
		source := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: hook, Priority: nftables.ChainPriorityNATSource})
		c.AddRule(&nftables.Rule{Table: table, Chain: source, Exprs: append(addressIs(12, inside),
			&expr.Immediate{Register: 1, Data: netip.MustParseAddr(outside).AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1})})
	}
	// What is left after translation is for nobody inside.
	input := c.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: append(addressIs(16, outside),
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW)},
		&expr.Verdict{Kind: expr.VerdictDrop})})
	return c.Flush()
}

// addressIs compares the address at an offset of the IPv4 header.
func addressIs(offset uint32, a string) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: netip.MustParseAddr(a).AsSlice()},
	}
}
