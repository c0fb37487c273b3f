// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// stringCheck makes a validator of a function that says what is wrong.
type stringCheck struct {
	summary, description string
	check                func(string) error
}

func (v stringCheck) Description(context.Context) string         { return v.description }
func (v stringCheck) MarkdownDescription(context.Context) string { return v.description }

func (v stringCheck) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if err := v.check(req.ConfigValue.ValueString()); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, v.summary, sentence(err.Error()))
	}
}

func validName() validator.String {
	return stringCheck{"Invalid name", "a DNS label: 1 to 63 lower-case letters, digits and dashes", config.CheckName}
}

// validWaitKey also takes the key that counts all nodes.
func validWaitKey() validator.String {
	return stringCheck{"Invalid name", "the name of a service, or nodes", func(name string) error {
		if name == config.WaitNodes {
			return nil
		}
		return config.CheckName(name)
	}}
}

func validTransport() validator.String {
	return stringCheck{"Invalid transport", "native, direct or relay", config.CheckTransport}
}

func validCIDR() validator.String {
	return stringCheck{"Invalid CIDR", "an IPv4 network between /8 and /28", func(cidr string) error {
		if cidr == "" {
			return fmt.Errorf("the CIDR is empty: write a network such as %s, or leave the attribute out", config.DefaultCIDR)
		}
		return checkOverlay(cidr)
	}}
}

func validAddress() validator.String {
	return stringCheck{"Invalid address", "an IP address of this machine", func(address string) error {
		if _, err := netip.ParseAddr(address); err != nil {
			return fmt.Errorf("%q is not an IP address: write one such as 127.0.0.1 (only this machine) or 0.0.0.0 (every address of it)", address)
		}
		return nil
	}}
}

// validCommand wants a program to run in the first place of the list.
type validCommand struct{}

func (validCommand) Description(context.Context) string {
	return "a program and its arguments"
}

func (v validCommand) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (validCommand) ValidateList(_ context.Context, req validator.ListRequest, resp *validator.ListResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	elements := req.ConfigValue.Elements()
	if len(elements) > 0 {
		program, ok := elements[0].(types.String)
		if ok && (program.IsUnknown() || program.ValueString() != "") {
			return
		}
	}
	resp.Diagnostics.AddAttributeError(req.Path, "No command to run",
		"The first element names the program, the others are its arguments: command = [\"redis-server\", \"--port\", \"6379\"].")
}

// distinctHostPorts refuses a list that opens one port of this machine twice.
type distinctHostPorts struct{}

func (distinctHostPorts) Description(context.Context) string {
	return "every host address and port at most once"
}

func (v distinctHostPorts) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (distinctHostPorts) ValidateList(ctx context.Context, req validator.ListRequest, resp *validator.ListResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	seen := map[string]int{}
	for i, element := range req.ConfigValue.Elements() {
		object, ok := element.(types.Object)
		if !ok || object.IsNull() || object.IsUnknown() {
			continue
		}
		address, _ := object.Attributes()["host_address"].(types.String)
		port, _ := object.Attributes()["host_port"].(types.Int64)
		if address.IsUnknown() || port.IsUnknown() || port.IsNull() {
			continue
		}
		host := address.ValueString()
		if address.IsNull() {
			host = defaultHostAddress
		}
		key := net.JoinHostPort(host, strconv.FormatInt(port.ValueInt64(), 10))
		if first, taken := seen[key]; taken {
			resp.Diagnostics.AddAttributeError(req.Path.AtListIndex(i).AtName("host_port"), "Host port published twice",
				fmt.Sprintf("%s is already published by element %d of this list: choose another host_port.", key, first))
		}
		seen[key] = i
	}
}
