// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"testing"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// TestVMDocument: what the platform does for a node on a laptop, the node does on an
// instance, and its document says so.
func TestVMDocument(t *testing.T) {
	spec := nodeSpec{Network: "shop", Name: "web", Kind: config.KindVM, Command: []string{"web"}, Publish: []config.Publish{
		{Port: 80, HostPort: 8080, HostAddress: defaultHostAddress}, {Port: 81, HostPort: 8081, HostAddress: "10.0.0.7"},
	}}
	network := &cloud.Network{Name: "shop", Endpoints: []string{"192.0.2.1:7717"}, Port: 7717}
	doc, err := vmDocument(spec, network, "eu-west-1", "token")
	if err != nil {
		t.Fatal(err)
	}
	if doc.StateDir != "/var/lib/boxer" || doc.User != layer.GuestUser || doc.LaunchToken != "token" || doc.PublicAddress != config.PublicEC2 {
		t.Errorf("%+v", doc)
	}
	if doc.Publish[0].HostAddress != "" || doc.Publish[1].HostAddress != "10.0.0.7" {
		t.Errorf("published at %+v", doc.Publish)
	}
	if spec.Publish[0].HostAddress != defaultHostAddress {
		t.Error("the declaration was changed")
	}
	spec.User = "www-data"
	if doc, err = vmDocument(spec, network, "eu-west-1", "token"); err != nil || doc.User != "www-data" {
		t.Errorf("%q %v", doc.User, err)
	}
}
