// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// call is an output that shows what a function returns.
func call(name, expression string) string {
	return fmt.Sprintf("output %q { value = provider::boxer::%s }\n", name, expression)
}

func TestFunctions(t *testing.T) {
	cases := map[string]any{
		`overlay_address("100.80.0.0/16", 1)`:                         "100.80.0.1",
		`overlay_address("100.80.0.0/16", 256)`:                       "100.80.1.0",
		`overlay_address("100.80.0.0/16", -1)`:                        "100.80.255.254",
		`overlay_address("100.80.0.0/28", 14)`:                        "100.80.0.14",
		`overlay_address("100.80.0.0/28", -14)`:                       "100.80.0.1",
		`overlay_address("10.0.0.0/8", 16777214)`:                     "10.255.255.254",
		`overlay_cidr_contains("100.80.0.0/16", "100.80.9.9")`:        true,
		`overlay_cidr_contains("100.80.0.0/16", "100.81.0.0")`:        false,
		`overlay_cidr_contains("100.80.0.0/16", "::1")`:               false,
		`overlay_cidr_contains("100.80.0.0/16", "::ffff:100.80.0.1")`: true,
		`overlay_cidr_overlaps("100.80.0.0/16", "100.80.3.0/24")`:     true,
		`overlay_cidr_overlaps("100.80.0.0/16", "100.64.0.0/10")`:     true,
		`overlay_cidr_overlaps("100.80.0.0/16", "10.0.0.0/8")`:        false,
		`overlay_cidr_overlaps("100.80.0.0/16", "fd00::/8")`:          false,
	}
	w := newWorkspace(t)
	var config strings.Builder
	for expression := range cases {
		config.WriteString(call(outputName(expression), expression))
	}
	w.configure(config.String())
	w.apply()
	var outputs map[string]struct{ Value any }
	if err := json.Unmarshal([]byte(w.must("output", "-json")), &outputs); err != nil {
		t.Fatal(err)
	}
	for expression, want := range cases {
		if diff := cmp.Diff(want, outputs[outputName(expression)].Value); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", expression, diff)
		}
	}
}

// outputName makes a name of an expression.
func outputName(expression string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, expression)
}

func TestFunctionErrors(t *testing.T) {
	cases := map[string]string{}
	for name, expression := range map[string]string{
		"address beyond":       `overlay_address("100.80.0.0/28", 15)`,
		"address zero":         `overlay_address("100.80.0.0/28", 0)`,
		"address beyond start": `overlay_address("100.80.0.0/28", -15)`,
		"cidr host bits":       `overlay_address("100.80.0.1/16", 1)`,
		"cidr empty":           `overlay_address("", 1)`,
		"cidr ipv6":            `overlay_cidr_contains("fd00::/64", "fd00::1")`,
		"contains no address":  `overlay_cidr_contains("100.80.0.0/16", "100.80.0.0/24")`,
		"overlaps no network":  `overlay_cidr_overlaps("100.80.0.0/16", "10.0.0.1")`,
	} {
		cases[name] = call("result", expression)
	}
	newWorkspace(t).refuses("function", cases)
}
