// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// maskOf is what the ports of a place differ in inside and outside: few bits, so
// that they stay in their block (portsOfPlace), and others for each place.
func maskOf(at int) uint16 { return 0x155 ^ uint16(at)<<9 }

// exclusive: a port inside always has the same one outside, another.
func exclusive(kind string) bool {
	switch kind {
	case NATCone, NATRestricted, NATRestrictedRST, NATForgetful, NATShared, NATSharedHairpin, NATHairpin:
		return true
	}
	return false
}

// rule writes the NAT's rules, all at once.
func (n *nat) rule() error {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.ns)))
	if err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "boxer"}
	if n.ruled {
		c.DelTable(table)
	}
	c.AddTable(table)
	n.ruleSource(c, table)
	n.ruleDestination(c, table)
	n.ruleFilters(c, table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nat: write its rules (is the kernel built with nf_tables and masquerading?): %w", err)
	}
	n.ruled = true
	return nil
}

// ruleSource: what goes out comes from the NAT.
func (n *nat) ruleSource(c *nftables.Conn, table *nftables.Table) {
	chain := c.AddChain(&nftables.Chain{Name: "source", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	if exclusive(n.kind) {
		for at := range n.places() {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
				isTCP(), addressIs(sourceAddress, insideAddress(at)), n.translate(expr.NATTypeSourceNAT, 0, maskOf(at), n.public))})
		}
	}
	symmetric := n.kind == NATSymmetric || n.kind == NATSymmetricRST
	c.AddRule(&nftables.Rule{Table: table, Chain: chain,
		Exprs: append(interfaceIs(expr.MetaKeyOIFNAME, natOutsideCable), &expr.Masq{FullyRandom: symmetric})})
}

func (n *nat) places() int {
	if shares(n.kind) {
		return sharedPlaces
	}
	return 1
}

// ruleDestination: what comes to a port outside goes to the one inside; from
// anybody, or from behind this very NAT.
func (n *nat) ruleDestination(c *nftables.Conn, table *nftables.Table) {
	if n.kind != NATCone && n.kind != NATSharedHairpin && n.kind != NATHairpin {
		return
	}
	chain := c.AddChain(&nftables.Chain{Name: "destination", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	if n.kind == NATCone {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
			interfaceIs(expr.MetaKeyIIFNAME, natOutsideCable), isTCP(), n.translate(expr.NATTypeDestNAT, 2, maskOf(0), insideAddress(0)))})
		return
	}
	if n.kind == NATHairpin {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
			isTCP(), addressIs(destinationAddress, n.public), cameNotBy(natOutsideCable),
			n.translate(expr.NATTypeDestNAT, 2, maskOf(0), insideAddress(0)))})
		return
	}
	for at := range n.places() {
		block := uint16(firstPortsOfPlace + at*portsOfPlace)
		for _, ports := range [][]expr.Any{portIs(0xffff-(portsOfPlace-1), block), portIs(0xffff, n.r.port^maskOf(at))} {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
				isTCP(), addressIs(destinationAddress, n.public), cameNotBy(natOutsideCable), ports,
				n.translate(expr.NATTypeDestNAT, 2, maskOf(at), insideAddress(at)))})
		}
	}
}

// ruleFilters: nothing gets in uninvited, but into a cone.
func (n *nat) ruleFilters(c *nftables.Conn, table *nftables.Table) {
	drop := nftables.ChainPolicyDrop
	for name, hook := range map[string]*nftables.ChainHook{"forward": nftables.ChainHookForward, "input": nftables.ChainHookInput} {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop})
		add := func(parts ...[]expr.Any) {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(parts...)})
		}
		add(dropMail())
		add(stateIs(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
		if n.kind == NATForgetful {
			add(isTCP(), stateIs(expr.CtStateBitINVALID), resets())
		}
		add(cameNotBy(natOutsideCable), accept())
		switch {
		case n.kind == NATCone && name == "forward":
			add(isTCP(), accept())
		case n.kind == NATRestrictedRST || n.kind == NATSymmetricRST:
			add(isTCP(), resets())
		}
	}
}

// dropUninvited lets in what answers only, also from the other end of a hairpin: a
// NAT's own rules cannot drop that and remember it as on its way out.
func dropUninvited(sandbox side) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(sandbox.ns)))
	if err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "boxer"})
	chain := c.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
		cameNotBy("lo"), stateIs(expr.CtStateBitNEW), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nat: filter its hairpin: %w", err)
	}
	return nil
}

// block lets nothing pass, or undoes that. Callers hold mu.
func (n *nat) block(cut bool) error {
	if n.cut == cut {
		return nil
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(n.ns)))
	if err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "cut"}
	if cut {
		drop := nftables.ChainPolicyDrop
		c.AddTable(table)
		c.AddChain(&nftables.Chain{Name: "all", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw, Policy: &drop})
	} else {
		c.DelTable(table)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nat: cut its link: %w", err)
	}
	n.cut = cut
	return nil
}

// translate sets the port at an offset of the TCP header to itself with some
// bits turned, and the address.
func (n *nat) translate(kind expr.NATType, offset uint32, mask uint16, to netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xff}, Xor: port(mask)},
		&expr.Immediate{Register: 2, Data: to.AsSlice()},
		&expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: 2, RegProtoMin: 1},
	}
}

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

func join(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Offsets in the IPv4 header.
const (
	sourceAddress      = 12
	destinationAddress = 16
)

func addressIs(offset uint32, a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

// portIs compares some bits of the destination port.
func portIs(bits, p uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: port(bits), Xor: port(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: port(p)},
	}
}

func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	return compareInterface(key, name, expr.CmpOpEq)
}

func cameNotBy(name string) []expr.Any {
	return compareInterface(expr.MetaKeyIIFNAME, name, expr.CmpOpNeq)
}

func compareInterface(key expr.MetaKey, name string, op expr.CmpOp) []expr.Any {
	padded := make([]byte, 16)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: padded},
	}
}

func isTCP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func resets() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

// dropMail drops connections to port 25, which Lambda blocks.
func dropMail() []expr.Any {
	return join(isTCP(), portIs(0xffff, 25), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
}

func stateIs(any uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(any), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}
