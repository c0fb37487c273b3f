// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/path"
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
	return stringCheck{"Invalid transport", "native, direct, punch or relay", config.CheckTransport}
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
		"The first element names the program, the others are its arguments: write command = [\"redis-server\", \"--port\", \"6379\"].")
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

// keyCheck holds the keys of a map to a rule, each at its own place.
type keyCheck struct {
	summary string
	check   func(string) error
}

func validKeys(summary string, check func(string) error) validator.Map {
	return keyCheck{summary, check}
}

func (keyCheck) Description(context.Context) string { return "keys that are valid" }

func (v keyCheck) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v keyCheck) ValidateMap(_ context.Context, req validator.MapRequest, resp *validator.MapResponse) {
	for key := range req.ConfigValue.Elements() {
		if err := v.check(key); err != nil {
			resp.Diagnostics.AddAttributeError(req.Path.AtMapKey(key), v.summary, sentence(err.Error()))
		}
	}
}

// maxFilesSize leaves room for the rest of a launch event (1 MB on Lambda).
const maxFilesSize = 256 << 10

// validFiles looks at all files together.
type validFiles struct{}

func (validFiles) Description(context.Context) string {
	return fmt.Sprintf("at most %d KB in all, and no file below another", maxFilesSize>>10)
}

func (v validFiles) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (validFiles) ValidateMap(_ context.Context, req validator.MapRequest, resp *validator.MapResponse) {
	files, size := stringsOf(req.ConfigValue), 0
	for name, content := range files {
		size += len(name) + len(content)
	}
	if size > maxFilesSize {
		resp.Diagnostics.AddAttributeError(req.Path, "Files too large",
			fmt.Sprintf("The files have %d bytes in all, the limit is %d: put large ones into source_dir or package.", size, maxFilesSize))
	}
	if err := config.CheckFiles(files); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid files", sentence(err.Error()))
	}
}

// minSecret is what supervisors take for a secret.
const minSecret = 16

func validSecret() validator.String {
	return stringCheck{"Invalid secret", "16 characters or more", func(secret string) error {
		if n := len(strings.TrimSpace(secret)); n < minSecret {
			return fmt.Errorf("the secret has %d characters without the white space around it: use %d or more, at random", n, minSecret)
		}
		return nil
	}}
}

// notWithPackage: one attribute says what is in /var/task.
type notWithPackage struct{}

func (notWithPackage) Description(context.Context) string { return "not together with package" }

func (v notWithPackage) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (notWithPackage) ValidateString(ctx context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	var other types.String
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("package"), &other)...)
	if stated(req.ConfigValue) && stated(other) {
		resp.Diagnostics.AddAttributeError(req.Path, "Two sources",
			"source_dir and package both say what the guest finds in /var/task: keep one of them.")
	}
}
