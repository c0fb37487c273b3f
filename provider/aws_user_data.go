// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// planUserData measures the user-data that the instance will boot with, and refuses
// what EC2 would.
func (m *vmNodeModel) planUserData(ctx context.Context, diags *diag.Diagnostics) {
	m.UserDataSize = types.Int64Unknown()
	var ignored diag.Diagnostics // an element that is not known yet
	spec := m.spec(ctx, &ignored)
	if ignored.HasError() || len(spec.Command) == 0 || !known(m.Name, m.Service, m.Environment, m.WorkingDir, m.User, m.Files, m.Remap,
		m.WaitFor, m.Restart, m.Publish, m.Transports, m.UserData, m.SourceDir, m.Package, m.InstanceType, m.Architecture) {
		return
	}
	size, err := plannedUserData(spec)
	if err != nil {
		diags.AddAttributeError(path.Root("user_data"), "Invalid user data", sentence(err.Error()))
		return
	}
	m.UserDataSize = types.Int64Value(int64(size))
}

// vmDocument is what a VM node on AWS is told to be.
func vmDocument(spec nodeSpec, n *cloud.Network, region, token string) (config.Node, error) {
	doc, err := spec.node(launch.Want{Slot: spec.Name, Token: token})
	if err != nil {
		return doc, err
	}
	place(&doc, n, region)
	onInstance(&doc, n)
	return config.New(doc)
}

// instanceStateDir is where a node keeps on its own disk what must outlive its supervisor.
const instanceStateDir = "/var/lib/boxer"

// onInstance says what a node with an instance of its own does there by itself. It is
// published to others, so the address of a laptop's own loopback stands for all.
func onInstance(doc *config.Node, n *cloud.Network) {
	doc.Site, doc.PublicAddress, doc.StateDir = n.Site(), config.PublicEC2, instanceStateDir
	if doc.User == "" {
		doc.User = layer.GuestUser
	}
	doc.Publish = slices.Clone(doc.Publish)
	for i := range doc.Publish {
		if doc.Publish[i].HostAddress == defaultHostAddress {
			doc.Publish[i].HostAddress = ""
		}
	}
}

// place says where a node on AWS finds its network.
func place(doc *config.Node, n *cloud.Network, region string) {
	doc.SecretRef, doc.SeedEndpoints, doc.Port = n.SecretRef(region), n.Endpoints, n.Port
}

// bootData is what the instance of a VM node boots with. contents is what its source_dir
// or package holds, none if the URL is empty.
func bootData(spec nodeSpec, n *cloud.Network, region, token string, contents cloud.Layer, variables map[string]string) ([]byte, error) {
	doc, err := vmDocument(spec, n, region, token)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	brings := n.Layers[spec.AWS.architecture()]
	vm := layer.VM{Layer: layer.Fetch{URL: brings.ARN, SHA256: brings.SHA256}, Region: region, Node: string(text), Variables: variables}
	if contents.ARN != "" {
		vm.Task = layer.Fetch{URL: contents.ARN, SHA256: contents.SHA256}
	}
	return layer.UserData(vm, []byte(spec.AWS.UserData))
}

// Values as long, and as hard to compress, as those that are known only at apply.
const (
	anyHash    = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	anyOther   = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
	anyAccount = "407218536942"
)

// plannedUserData is the size of the user-data as far as the plan can know it.
func plannedUserData(spec nodeSpec) (int, error) {
	const region = "ap-southeast-1"
	spec.Network = "some-network-of-mine" // the name may come with the apply
	arn := func(name string) string {
		return "arn:aws:lambda:" + region + ":" + anyAccount + ":layer:" + name + ":17"
	}
	n := &cloud.Network{
		Name: spec.Network, Prefix: cloud.DefaultPrefix, Port: config.DefaultPort, VPC: "vpc-0c1f7e4a92b8d6530", Group: "sg-0b7d92e6a41f8c35d",
		Endpoints: []string{"203.0.113.101:7717", "198.51.100.72:7717", "192.0.2.184:7717"},
	}
	n.Layers = map[string]cloud.Layer{spec.AWS.architecture(): {ARN: arn(n.LayerName(spec.AWS.architecture())), SHA256: anyHash}}
	var contents cloud.Layer
	if spec.SourceDir != "" || spec.Package != "" {
		contents = cloud.Layer{ARN: arn(n.ContentsName(spec.Name)), SHA256: anyOther}
	}
	data, err := bootData(spec, n, region, "5feceb66ffc86f38d952786c6d696c79", contents, nil)
	return len(data), err
}
