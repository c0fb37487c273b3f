// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"fmt"
	"net/netip"

	fwfunction "github.com/hashicorp/terraform-plugin-framework/function"
	fwprovider "github.com/hashicorp/terraform-plugin-framework/provider"

	"github.com/boxer-overlay/boxer/runtime/config"
)

var _ fwprovider.ProviderWithFunctions = (*boxerProvider)(nil)

// Functions calculate with overlay networks. They need no configuration of the
// provider and ask nobody.
func (p *boxerProvider) Functions(context.Context) []func() fwfunction.Function {
	return []func() fwfunction.Function{
		func() fwfunction.Function { return overlayAddress{} },
		overlayContains,
		overlayOverlaps,
	}
}

const cidrParameter = "IPv4 network, such as the `cidr` of a `boxer_network`."

type overlayAddress struct{}

func (overlayAddress) Metadata(_ context.Context, _ fwfunction.MetadataRequest, resp *fwfunction.MetadataResponse) {
	resp.Name = "overlay_address"
}

func (overlayAddress) Definition(_ context.Context, _ fwfunction.DefinitionRequest, resp *fwfunction.DefinitionResponse) {
	resp.Definition = fwfunction.Definition{
		Summary: "The n-th address that a network can give to a node",
		MarkdownDescription: "Returns the n-th address of an overlay network that a node can have; the first is number 1. " +
			"A negative number counts from the end: -1 is the last. The first and the last address of the range belong to no node. " +
			"A network gives a new slot the lowest address that is free, so the first belongs to its first seed.",
		Parameters: []fwfunction.Parameter{
			fwfunction.StringParameter{Name: "cidr", MarkdownDescription: cidrParameter},
			fwfunction.Int64Parameter{Name: "number", MarkdownDescription: "Which address: 1 is the first, -1 the last."},
		},
		Return: fwfunction.StringReturn{},
	}
}

func (overlayAddress) Run(ctx context.Context, req fwfunction.RunRequest, resp *fwfunction.RunResponse) {
	var cidr string
	var number int64
	if resp.Error = req.Arguments.Get(ctx, &cidr, &number); resp.Error != nil {
		return
	}
	network, fault := parseOverlay(0, cidr)
	if fault != nil {
		resp.Error = fault
		return
	}
	size := int64(1) << (32 - network.Bits())
	offset := number
	if number < 0 {
		offset = size - 1 + number
	}
	if offset < 1 || offset > size-2 {
		resp.Error = fwfunction.NewArgumentFuncError(1, fmt.Sprintf(
			"%s has addresses for %d nodes, so there is no number %d: use 1 to %d, or -1 to -%d from its end", cidr, size-2, number, size-2, size-2))
		return
	}
	first := network.Addr().As4()
	value := uint32(first[0])<<24 | uint32(first[1])<<16 | uint32(first[2])<<8 | uint32(first[3])
	value += uint32(offset)
	address := netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)})
	resp.Error = resp.Result.Set(ctx, address.String())
}

// overlayQuestion is a function that says yes or no of an overlay network and
// something else.
type overlayQuestion struct {
	name, summary, description string
	other                      fwfunction.StringParameter
	answer                     func(network netip.Prefix, other string) (bool, error)
}

func overlayContains() fwfunction.Function {
	return overlayQuestion{
		name:    "overlay_cidr_contains",
		summary: "Whether an address lies in an overlay network",
		description: "Returns whether an address lies in an overlay network: whether guests reach it over the overlay. " +
			"An IPv6 address never does, unless it is an IPv4 address in IPv6 form.",
		other: fwfunction.StringParameter{Name: "address", MarkdownDescription: "IP address to look for."},
		answer: func(network netip.Prefix, text string) (bool, error) {
			address, err := netip.ParseAddr(text)
			if err != nil {
				return false, fmt.Errorf("%q is not an IP address: write one such as 100.80.0.7, without a prefix length", text)
			}
			return network.Contains(address.Unmap()), nil
		},
	}
}

func overlayOverlaps() fwfunction.Function {
	return overlayQuestion{
		name:    "overlay_cidr_overlaps",
		summary: "Whether an overlay network shares addresses with another network",
		description: "Returns whether an overlay network has an address in common with another network, such as that of a VPC. " +
			"Where they overlap guests reach the overlay's node, and not the machine of the same address.",
		other: fwfunction.StringParameter{Name: "other", MarkdownDescription: "IPv4 or IPv6 network to compare with."},
		answer: func(network netip.Prefix, text string) (bool, error) {
			other, err := netip.ParsePrefix(text)
			if err != nil {
				return false, fmt.Errorf("%q is not a network: write its first address and its prefix length, such as 10.0.0.0/16", text)
			}
			return network.Overlaps(other), nil
		},
	}
}

func (q overlayQuestion) Metadata(_ context.Context, _ fwfunction.MetadataRequest, resp *fwfunction.MetadataResponse) {
	resp.Name = q.name
}

func (q overlayQuestion) Definition(_ context.Context, _ fwfunction.DefinitionRequest, resp *fwfunction.DefinitionResponse) {
	resp.Definition = fwfunction.Definition{
		Summary: q.summary, MarkdownDescription: q.description,
		Parameters: []fwfunction.Parameter{fwfunction.StringParameter{Name: "cidr", MarkdownDescription: cidrParameter}, q.other},
		Return:     fwfunction.BoolReturn{},
	}
}

func (q overlayQuestion) Run(ctx context.Context, req fwfunction.RunRequest, resp *fwfunction.RunResponse) {
	var cidr, other string
	if resp.Error = req.Arguments.Get(ctx, &cidr, &other); resp.Error != nil {
		return
	}
	network, fault := parseOverlay(0, cidr)
	if fault != nil {
		resp.Error = fault
		return
	}
	answer, err := q.answer(network, other)
	if err != nil {
		resp.Error = fwfunction.NewArgumentFuncError(1, err.Error())
		return
	}
	resp.Error = resp.Result.Set(ctx, answer)
}

// parseOverlay reads the argument at position as boxer_network reads its cidr.
// Terraform puts the full stop behind the messages of functions.
func parseOverlay(position int64, cidr string) (netip.Prefix, *fwfunction.FuncError) {
	if err := checkOverlay(cidr); err != nil {
		return netip.Prefix{}, fwfunction.NewArgumentFuncError(position, err.Error())
	}
	network, err := netip.ParsePrefix(cidr)
	if err != nil {
		return network, fwfunction.NewArgumentFuncError(position, err.Error())
	}
	return network, nil
}

// checkOverlay asks for the seed's own rule, with an otherwise valid document.
func checkOverlay(cidr string) error {
	if cidr == "" { // which a document takes for the default
		return fmt.Errorf("the CIDR is empty: write a network such as %s", config.DefaultCIDR)
	}
	_, err := config.New(config.Node{Kind: config.KindSeed, Network: "check", Slot: "seed-0", SecretRef: "file:/", CIDR: cidr})
	return err
}
