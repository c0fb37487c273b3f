// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// TestBootstrapUserData: the same node has the same user data, and is the same launch.
func TestBootstrapUserData(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL", "")
	l := cloud.Layer{ARN: "arn:aws:lambda:us-east-1:123456789012:layer:boxer-runtime-amd64:1", SHA256: strings.Repeat("a", 64)}
	node, err := config.New(config.Node{Network: "shop", Kind: config.KindVM, Slot: "web", Argv: []string{"nginx"},
		SecretRef: "ssm:us-east-1/boxer/shop/secret", SeedEndpoints: []string{"192.0.2.1:7717"}})
	if err != nil {
		t.Fatal(err)
	}
	made := func(n config.Node) ([]byte, config.Node) {
		t.Helper()
		data, err := bootstrapUserData(n, l, "us-east-1", []byte("#!/bin/sh\ndnf install -y nginx\n"))
		if err != nil {
			t.Fatal(err)
		}
		vm, own, err := layer.DecodeUserData(data)
		if err != nil || vm.Layer.URL != l.ARN || !strings.Contains(string(own), "dnf") {
			t.Fatalf("%+v, %q, %v", vm, own, err)
		}
		var document config.Node
		if err := json.Unmarshal([]byte(vm.Node), &document); err != nil {
			t.Fatal(err)
		}
		return data, document
	}
	first, document := made(node)
	again, _ := made(node)
	if !bytes.Equal(first, again) || len(document.LaunchToken) != 32 {
		t.Errorf("two reads differ, or no launch: %+v", document)
	}
	other := node
	other.Argv = []string{"nginx", "-t"}
	if _, changed := made(other); changed.LaunchToken == document.LaunchToken {
		t.Error("another node is the same launch")
	}
}

// TestBootstrapOnLocal: there is nothing to attach to.
func TestBootstrapOnLocal(t *testing.T) {
	w := newCloud(t).workspace()
	w.configure(`data "boxer_node_bootstrap" "web" {
  network_id = "shop"
  name       = "web"
  kind       = "vm"
  command    = ["nginx"]
}
`)
	found := w.errors("plan")
	if len(found) != 1 || found[0].Summary != "Nothing to attach to" || !strings.Contains(found[0].Detail, "boxer_vm_node") {
		t.Errorf("%v", found)
	}
}
