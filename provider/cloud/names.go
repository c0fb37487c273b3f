// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"fmt"
	"strings"
)

// DefaultPrefix of the names of roles, groups, functions and layers.
const DefaultPrefix = "boxer-"

// Network is what a network is on AWS: the settings it was made with and what
// they led to. It is its record, an SSM parameter, which nodes and other states
// read; the secret is not in it.
type Network struct {
	Name           string `json:"name"`
	Made           string `json:"made,omitempty"` // tells who made it
	CIDR           string `json:"cidr"`
	Port           int    `json:"port"`
	SecretVersion  int64  `json:"secret_version,omitempty"` // 0: the secret was generated
	RuntimeVersion string `json:"runtime_version"`
	Upgrading      string `json:"upgrading,omitempty"` // while not all of it runs RuntimeVersion
	Region         string `json:"region,omitempty"`

	Prefix   string   `json:"prefix"`
	RolePath string   `json:"role_path,omitempty"`
	Boundary string   `json:"boundary,omitempty"` // the permissions boundary of roles
	LogDays  int      `json:"log_days,omitempty"` // retention of logs; 0: for ever
	VPC      string   `json:"vpc,omitempty"`      // empty in the configuration: the default VPC
	Subnets  []string `json:"subnets,omitempty"`  // empty: those of the VPC that have public addresses
	Ingress  []string `json:"ingress,omitempty"`  // who may reach the overlay port

	Seeds      int    `json:"seeds"`
	SeedType   string `json:"seed_type,omitempty"`
	SeedArch   string `json:"seed_arch,omitempty"` // amd64 or arm64, by the type
	SeedSubnet string `json:"seed_subnet,omitempty"`

	Group     string           `json:"group,omitempty"`     // id of the security group
	Endpoints []string         `json:"endpoints,omitempty"` // host:port of the seeds, seed-0 first
	Layers    map[string]Layer `json:"layers,omitempty"`    // by architecture: amd64, arm64

	Tags map[string]string `json:"-"` // the user's; the parameter has them
}

// Layer is one version of the layer.
type Layer struct {
	ARN    string `json:"arn"`    // with its version
	SHA256 string `json:"sha256"` // hexadecimal
}

// SecretName is the SSM parameter of a network's secret.
func SecretName(network string) string { return "/boxer/" + network + "/secret" }

// RecordName is the SSM parameter of a network's record.
func RecordName(network string) string { return "/boxer/" + network + "/network" }

// RoleName is the role and instance profile of a part: PartSeed, PartVM, PartFunction. An
// account has one set of roles for all its regions.
func (n *Network) RoleName(part string) string {
	if n.Region == "" { // made before its record had one
		return n.own() + part
	}
	return n.own() + part + "_" + n.Region
}

// GroupName is the security group.
func (n *Network) GroupName() string { return n.Prefix + n.Name }

// PublishName is the security group that opens what a node publishes. No network's
// group has a slash in its name.
func (n *Network) PublishName(node string) string { return n.Prefix + n.Name + "/" + node }

// own begins the names of what only this network has. No name of a network or node has an
// underscore, so what a policy allows of "shop" it does not allow of "shop-test".
func (n *Network) own() string { return n.Prefix + n.Name + "_" }

// FunctionPrefix is before the name of a node in that of its Lambda function.
func (n *Network) FunctionPrefix() string { return n.own() }

// FunctionName is the Lambda function of a node.
func (n *Network) FunctionName(node string) string { return n.FunctionPrefix() + node }

// MaxFunctionName is how long Lambda lets the name of a function be.
const MaxFunctionName = 64

// CheckFunctionName refuses a node whose function would have too long a name.
func (n *Network) CheckFunctionName(node string) error {
	if name := n.FunctionName(node); len(name) > MaxFunctionName {
		return fmt.Errorf("its Lambda function %s would have %d characters, and Lambda takes %d: choose a shorter name for the node, the network, or as name_prefix",
			name, len(name), MaxFunctionName)
	}
	return nil
}

// LogGroup is where the function of a node logs.
func (n *Network) LogGroup(node string) string { return "/aws/lambda/" + n.FunctionName(node) }

// InstanceName is what the console shows of an instance.
func (n *Network) InstanceName(slot string) string { return n.Name + "/" + slot }

// LayerName is the layer of an architecture.
func (n *Network) LayerName(arch string) string { return n.Prefix + "runtime-" + arch }

// SecretRef is how a node's document names the secret.
func (n *Network) SecretRef(region string) string { return "ssm:" + region + SecretName(n.Name) }

// InvokeTarget is where seeds launch functions, in a node's document.
func (n *Network) InvokeTarget(region string) string {
	return "lambda:" + region + "/" + n.FunctionPrefix()
}

// Site is where nodes reach each other by their private addresses.
func (n *Network) Site() string { return n.VPC + "/" + n.Group }

// path of the network's roles, as IAM wants it.
func (n *Network) path() string {
	if n.RolePath == "" {
		return "/"
	}
	return "/" + strings.Trim(n.RolePath, "/") + "/"
}
