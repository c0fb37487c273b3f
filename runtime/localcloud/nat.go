// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Cables of a NAT, as its rules name them.
const (
	natOutsideCable = "pub"
	natInsideCable  = "in"
)

// addSandbox connects a new function sandbox behind a NAT of its own: the
// sandbox has the same inner address as all others, connections it makes come
// from the NAT's public address, and nothing gets in that did not go out first.
// Relaxed: any port may be listened on.
func (r *router) addSandbox(relaxed bool) (*place, error) {
	index, err := r.nats.take()
	if err != nil {
		return nil, err
	}
	p := &place{address: addressAt(natBase, index)}
	var nat, sandbox side
	cable := fmt.Sprintf("fn%d", index)
	p.release = sync.OnceFunc(func() {
		r.unplug(cable)
		sandbox.close()
		nat.close()
		r.nats.release(index)
	})
	nat.ns, sandbox.ns = netns.None(), netns.None()
	if nat, err = r.addNAT(cable, index, p.address); err == nil {
		sandbox, err = addInside(nat, index, relaxed)
	}
	if err != nil {
		p.release()
		return nil, err
	}
	p.ns = sandbox.ns
	return p, nil
}

func (r *router) addNAT(cable string, index int, public netip.Addr) (side, error) {
	nat, err := newNamespace(map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/default/disable_ipv6": "1",
	})
	if err != nil {
		return side{ns: netns.None()}, err
	}
	err = connect(
		plug{side: r.side, name: cable, mac: mac(2, index, 1), route: netip.PrefixFrom(public, 32), peer: public},
		plug{side: nat, name: natOutsideCable, mac: mac(2, index, 2),
			address: netip.PrefixFrom(public, 32), gateway: routerAddress, peer: routerAddress})
	if err == nil {
		err = masquerade(nat.ns)
	}
	return nat, err
}

func addInside(nat side, index int, relaxed bool) (side, error) {
	sysctls := map[string]string{"net/ipv4/ip_unprivileged_port_start": "1024", "net/ipv6/conf/default/disable_ipv6": "1"}
	if relaxed {
		sysctls["net/ipv4/ip_unprivileged_port_start"] = "0"
	}
	sandbox, err := newNamespace(sysctls)
	if err != nil {
		return side{ns: netns.None()}, err
	}
	return sandbox, connect(
		plug{side: nat, name: natInsideCable, mac: mac(3, index, 1), address: natInside, peer: sandboxInside.Addr()},
		plug{side: sandbox, name: "eth0", mac: mac(3, index, 2),
			address: sandboxInside, gateway: natInside.Addr(), peer: natInside.Addr()})
}

// masquerade writes the NAT's rules, all at once.
func masquerade(ns netns.NsHandle) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	drop := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "boxer"})
	source := c.AddChain(&nftables.Chain{Name: "source", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	c.AddRule(&nftables.Rule{Table: table, Chain: source,
		Exprs: append(interfaceIs(expr.MetaKeyOIFNAME, natOutsideCable), &expr.Masq{})})
	for name, hook := range map[string]*nftables.ChainHook{"forward": nftables.ChainHookForward, "input": nftables.ChainHookInput} {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dropMail()})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: acceptEstablished()})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain,
			Exprs: append(interfaceIs(expr.MetaKeyIIFNAME, natInsideCable), &expr.Verdict{Kind: expr.VerdictAccept})})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nat: write its rules (is the kernel built with nf_tables and masquerading?): %w", err)
	}
	return nil
}

func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, 16)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

// dropMail drops connections to port 25, which Lambda blocks.
func dropMail() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 25}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func acceptEstablished() []expr.Any {
	const established = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(established), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}
