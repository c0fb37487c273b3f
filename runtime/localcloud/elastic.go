// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// An elastic network, for tests, has the addresses of EC2: hosts know a private one,
// and the router translates a public one to it and back, one to one. What is outside
// the site, functions too, reaches only the public one. The two have their lower half
// in common, so a few rules do for all hosts.
const (
	otherSite    = "vpc2" // where hosts are that are not in vmSite
	otherBlock   = 0x2000 // what is added to their addresses,
	privateBlock = 0x4000 // and to those of hosts without a public one
	elasticMark  = 1      // of packets that were sent to a public address
)

var (
	elasticHosts   = netip.MustParsePrefix("100.64.0.0/17") // all, inside
	otherHosts     = netip.MustParsePrefix("100.64.32.0/19")
	privateHosts   = netip.MustParsePrefix("100.64.64.0/19")
	publicHosts    = netip.MustParsePrefix("198.19.0.0/18")
	elasticGateway = netip.MustParseAddr("198.19.255.1") // of private hosts
)

// elasticBlock is where a host's address is, for what its document says.
func elasticBlock(n config.Node) int {
	switch {
	case n.PublicAddress == config.PublicNone:
		return privateBlock
	case n.Site == otherSite:
		return otherBlock
	}
	return 0
}

// publicOf is the address outside of a host that has one.
func publicOf(private netip.Addr) netip.Addr {
	b, p := private.As4(), publicHosts.Addr().As4()
	return netip.AddrFrom4([4]byte{p[0], p[1], b[2], b[3]})
}

// makeElastic fills in what a node of an elastic network knows of its addresses: as
// on EC2 the private one is the kernel's to tell.
func makeElastic(n *config.Node, private netip.Addr) {
	if n.UnderlayAddress = ""; n.PublicAddress != config.PublicNone {
		n.PublicAddress = publicOf(private).String()
	}
}

// ruleElastic writes the router's rules.
func (r *router) ruleElastic() error {
	c, err := nftables.New(nftables.WithNetNSFd(int(r.ns)))
	if err != nil {
		return fmt.Errorf("public addresses: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "elastic"})
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, at *nftables.ChainPriority) func(...[]expr.Any) {
		made := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: at})
		return func(parts ...[]expr.Any) { c.AddRule(&nftables.Rule{Table: table, Chain: made, Exprs: join(parts...)}) }
	}
	const filter, nat = nftables.ChainTypeFilter, nftables.ChainTypeNAT

	mark := chain("mark", filter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	mark(within(destinationAddress, publicHosts), setMark())

	destination := chain("destination", nat, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	destination(within(destinationAddress, publicHosts), turnInto(expr.NATTypeDestNAT, destinationAddress, elasticHosts.Addr()))

	source := chain("source", nat, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, leaves := range [][]expr.Any{marked(expr.CmpOpEq), without(destinationAddress, elasticHosts)} {
		source(leaves, within(sourceAddress, privateHosts), []expr.Any{
			&expr.Immediate{Register: 1, Data: elasticGateway.AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
		})
		source(leaves, within(sourceAddress, elasticHosts), turnInto(expr.NATTypeSourceNAT, sourceAddress, publicHosts.Addr()))
	}

	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	forward := chain("forward", filter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	inside := join(stateIs(expr.CtStateBitNEW), marked(expr.CmpOpNeq), within(destinationAddress, elasticHosts))
	forward(inside, without(sourceAddress, elasticHosts), drop)
	forward(inside, within(sourceAddress, otherHosts), without(destinationAddress, otherHosts), drop)
	forward(inside, without(sourceAddress, otherHosts), within(destinationAddress, otherHosts), drop)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("public addresses: write the router's rules: %w", err)
	}
	return nil
}

func within(offset uint32, p netip.Prefix) []expr.Any { return comparePrefix(offset, p, expr.CmpOpEq) }
func without(offset uint32, p netip.Prefix) []expr.Any {
	return comparePrefix(offset, p, expr.CmpOpNeq)
}

func comparePrefix(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: ipNet(p).Mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Addr().AsSlice()},
	}
}

// turnInto gives an address the upper half of another one.
func turnInto(kind expr.NATType, offset uint32, upper netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0, 0, 0xff, 0xff}, Xor: upper.AsSlice()},
		&expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}
}

func setMark() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(elasticMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

func marked(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(elasticMark)},
	}
}
