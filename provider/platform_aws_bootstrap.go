// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
)

var _ bootstrapper = (*awsPlatform)(nil)

// Bootstrap says what makes an instance or a function of somebody else's the node.
func (p *awsPlatform) Bootstrap(ctx context.Context, node config.Node, arch string, own []byte) (bootstrap, error) {
	n, err := p.record(ctx, node.Network)
	if err != nil {
		return bootstrap{}, err
	}
	l, ok := n.Layers[arch]
	if !ok {
		return bootstrap{}, fmt.Errorf("network %q has no layer for %s", n.Name, arch)
	}
	node.SecretRef, node.SeedEndpoints, node.Port = n.SecretRef(p.cloud.Region), n.Endpoints, n.Port
	part := cloud.PartFunction
	if node.Kind == config.KindVM {
		part = cloud.PartVM
		onInstance(&node, n)
	}
	if node, err = config.New(node); err != nil {
		return bootstrap{}, err
	}
	found := bootstrap{LayerARN: l.ARN, Variables: nodeVariables(), SecurityGroup: n.Group, Role: n.RoleName(part)}
	if node.Kind == config.KindFunction {
		event, err := json.Marshal(node)
		found.Event = string(event)
		return found, err
	}
	found.Profile = found.Role
	found.UserData, err = bootstrapUserData(node, l, p.cloud.Region, own)
	return found, err
}

// bootstrapUserData is the same for the same node. So is its launch: an instance that is
// started again, or made anew of it, is the node that it was.
func bootstrapUserData(node config.Node, l cloud.Layer, region string, own []byte) ([]byte, error) {
	document, err := json.Marshal(node)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(document)
	node.LaunchToken = hex.EncodeToString(sum[:16])
	if document, err = json.Marshal(node); err != nil {
		return nil, err
	}
	return layer.UserData(layer.VM{Layer: layer.Fetch{URL: l.ARN, SHA256: l.SHA256}, Region: region, Node: string(document), Variables: nodeVariables()}, own)
}
