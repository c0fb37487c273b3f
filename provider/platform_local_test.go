// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// What a resource declares stands in the document of each of its slots.
func TestSpecBecomesADocument(t *testing.T) {
	spec := nodeSpec{
		Network: "shop", Name: "logic", Service: "front", Kind: config.KindFunction, Command: []string{"serve", "80"},
		WaitFor: map[string]int{"store": 1}, Transports: []string{"direct", "relay"},
	}
	got, err := spec.node(launch.Want{Slot: "logic-1", Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Node{
		Version: config.Version, Network: "shop", Name: "logic", Service: "front", Slot: "logic-1", LaunchToken: "t", Kind: config.KindFunction,
		Argv: []string{"serve", "80"}, WaitFor: map[string]int{"store": 1}, Transports: []string{"direct", "relay"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
