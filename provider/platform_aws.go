// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// awsPlatform runs VM nodes on EC2 and function nodes on Lambda. It keeps nothing
// on this machine: what a network is, its record on AWS says.
type awsPlatform struct {
	cloud  *cloud.Client
	layers LayerSource
}

func newAWSPlatform(client *cloud.Client, layers LayerSource) *awsPlatform {
	return &awsPlatform{cloud: client, layers: layers}
}

// seedStateDir is where a seed keeps what it has promised, on its own disk.
const seedStateDir = "/var/lib/boxer"

// OnAWS tells this platform from others; see onAWS.
func (p *awsPlatform) OnAWS() bool { return true }

// MachineID is the account and the region: elsewhere this state describes nothing.
func (p *awsPlatform) MachineID() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return p.cloud.Place(ctx)
}

func (p *awsPlatform) CreateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error) {
	n := p.networkOf(spec)
	made, err := p.cloud.Create(ctx, p.design(n, spec))
	if errors.Is(err, cloud.ErrExists) {
		return networkStatus{}, p.networkExists(spec.Name)
	}
	status := p.statusOf(n)
	status.Made = made
	return status, err
}

// networkOf is the record of a network as it is declared.
func (p *awsPlatform) networkOf(spec networkSpec) *cloud.Network {
	return &cloud.Network{
		Name: spec.Name, CIDR: spec.CIDR, Port: spec.Port, SecretVersion: spec.SecretVersion, RuntimeVersion: spec.RuntimeVersion,
		Prefix: spec.AWS.NamePrefix, RolePath: spec.AWS.RolePath, Boundary: spec.AWS.PermissionsBoundary, LogDays: spec.AWS.LogRetentionDays,
		VPC: spec.AWS.VPC, Subnets: spec.AWS.Subnets, Ingress: spec.AWS.SeedIngress,
		Seeds: spec.Seeds, SeedType: spec.AWS.SeedInstanceType, SeedArch: archOf(spec.AWS.SeedInstanceType), SeedSubnet: spec.AWS.SeedSubnet,
		Tags: spec.Tags,
	}
}

func (p *awsPlatform) design(n *cloud.Network, spec networkSpec) *cloud.Design {
	return &cloud.Design{Network: n, Secret: spec.Secret, Zip: p.layers, UserData: p.seedUserData}
}

// seedUserData is what a seed's instance boots with.
func (p *awsPlatform) seedUserData(n *cloud.Network, number int) ([]byte, error) {
	node := config.Node{
		Network: n.Name, Kind: config.KindSeed, Slot: cloud.SeedSlot(number), CIDR: n.CIDR, Port: n.Port, StateDir: seedStateDir,
		SecretRef: n.SecretRef(p.cloud.Region), Invoke: n.InvokeTarget(p.cloud.Region), Site: n.Site(),
	}
	host, _, err := net.SplitHostPort(n.Endpoints[number])
	if err != nil {
		return nil, err
	}
	node.PublicAddress = host
	if len(n.Endpoints) > 1 { // one alone knows itself
		node.SeedEndpoints = n.Endpoints
	}
	if node, err = config.New(node); err != nil {
		return nil, err
	}
	document, err := json.Marshal(node)
	if err != nil {
		return nil, err
	}
	l := n.Layers[n.SeedArch]
	return layer.UserData(layer.VM{
		Layer: layer.Fetch{URL: l.ARN, SHA256: l.SHA256}, Region: p.cloud.Region, Node: string(document), Variables: nodeVariables(),
	}, nil)
}

// nodeVariables are the endpoints that this process was told by its environment:
// nodes ask the same AWS.
func nodeVariables() map[string]string {
	variables := map[string]string{}
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_LAMBDA"} {
		if value := os.Getenv(name); value != "" {
			variables[name] = value
		}
	}
	return variables
}

func (p *awsPlatform) statusOf(n *cloud.Network) networkStatus {
	var arns []string
	for _, arch := range slices.Sorted(maps.Keys(n.Layers)) {
		arns = append(arns, n.Layers[arch].ARN)
	}
	return networkStatus{
		CIDR: n.CIDR, Port: n.Port, SecretVersion: n.SecretVersion, RuntimeVersion: n.RuntimeVersion, Upgrading: n.Upgrading, Tags: n.Tags,
		Seeds: n.Seeds, SeedEndpoints: n.Endpoints, SecretRef: n.SecretRef(p.cloud.Region), LayerARNs: arns,
		AWS: awsNetwork{
			VPC: n.VPC, Subnets: n.Subnets, RolePath: n.RolePath, PermissionsBoundary: n.Boundary, NamePrefix: n.Prefix,
			LogRetentionDays: n.LogDays, SeedInstanceType: n.SeedType, SeedSubnet: n.SeedSubnet, SeedIngress: n.Ingress,
		},
	}
}

func (p *awsPlatform) Network(ctx context.Context, name string) (networkStatus, error) {
	n, err := p.record(ctx, name)
	if err != nil {
		return networkStatus{}, err
	}
	status := p.statusOf(n)
	status.Drift, err = p.cloud.Drift(ctx, n)
	return status, lookProblemOnAWS(err)
}

// record is the network as its record on AWS says; errGone: there is none.
func (p *awsPlatform) record(ctx context.Context, network string) (*cloud.Network, error) {
	n, err := p.cloud.Network(ctx, network)
	if errors.Is(err, cloud.ErrNotFound) {
		return nil, errGone
	}
	return n, lookProblemOnAWS(err)
}

// lookProblemOnAWS tells errors that say nothing about what there is from others.
func lookProblemOnAWS(err error) error {
	if err != nil && cloud.Passing(err) {
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	return err
}

// UpdateNetwork changes what can be changed in place, and puts right what somebody
// changed by hand. Its nodes take over another runtime with it.
func (p *awsPlatform) UpdateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error) {
	has, err := p.record(ctx, spec.Name)
	if errors.Is(err, errGone) {
		return networkStatus{}, &explained{fmt.Errorf("the record of network %q is gone", spec.Name),
			"Somebody deleted it after the plan: run terraform apply again, which makes the network anew from what is left."}
	}
	if err != nil {
		return networkStatus{}, err
	}
	n := p.networkOf(spec)
	if has.SeedArch != "" && n.SeedArch != has.SeedArch {
		return networkStatus{}, &explained{fmt.Errorf("seeds of type %s are %s, and the disks of those there are boot on %s", n.SeedType, n.SeedArch, has.SeedArch),
			"Choose a type of that architecture, or make the network anew with \"terraform apply -replace\". Nothing was changed."}
	}
	n.Made, n.Region, n.VPC, n.Group, n.Endpoints, n.Layers = has.Made, has.Region, has.VPC, has.Group, has.Endpoints, has.Layers
	design := p.design(n, spec)
	n.Upgrading = has.Upgrading
	if n.RuntimeVersion != has.RuntimeVersion || has.Upgrading != "" && n.RuntimeVersion == spec.Carried {
		n.RuntimeVersion, design.Upgrade = has.RuntimeVersion, n.RuntimeVersion
	}
	err = p.cloud.Change(ctx, design)
	return p.statusOf(n), err
}

func (p *awsPlatform) DeleteNetwork(ctx context.Context, name string) error {
	return p.cloud.Delete(ctx, name)
}

func (p *awsPlatform) networkExists(name string) error {
	place, err := p.MachineID()
	if err != nil {
		place = p.cloud.Region
	}
	return &explained{
		fmt.Errorf("network %q exists in %s and was created outside this configuration", name, place),
		fmt.Sprintf("Import it with \"terraform import ADDRESS %s\" (ADDRESS is this resource's), destroy it where it was made, "+
			"or choose another name.", name)}
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}
