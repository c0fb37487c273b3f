// SPDX-License-Identifier: Apache-2.0

// Package config is the one document that configures a node: the launch event
// of a function and the /etc/boxer/node.json of a VM (INTERFACES, "the launch
// event", version 1).
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// Version is the document version this build writes and accepts.
const Version = 1

// Kinds of node.
const (
	KindVM        = "vm"
	KindFunction  = "function"
	KindContainer = "container"
	KindClient    = "client"
	KindSeed      = "seed"
)

// Restart policies of a guest.
const (
	RestartNo        = "no"
	RestartOnFailure = "on-failure"
	RestartAlways    = "always"
)

// What a node can dial by itself.
const (
	ReachAny   = "any"   // every underlay address of the network
	ReachSeeds = "seeds" // only the seed endpoints it was given (a laptop)
)

// Transports a node can be restricted to, as far as what its guest dials is
// concerned.
const (
	TransportNative = "native" // the kernel connects to a node of the same site
	TransportDirect = "direct" // to the peer's overlay port, nobody in between
	TransportPunch  = "punch"  // past NATs, or dialled back: nobody in between
	TransportRelay  = "relay"  // held, and met at a third node
)

// Defaults of the network (INTERFACES, "Identity").
const (
	DefaultCIDR = "100.80.0.0/16"
	DefaultPort = 7717
)

// SecretToken is the secret reference of a client that has a join token instead.
const SecretToken = "token"

// MetricsOff says that nobody may ask the supervisor for its metrics.
const MetricsOff = "off"

// WaitNodes is the key of WaitFor that counts all nodes (seeds excepted)
// instead of the holders of one service.
const WaitNodes = "nodes"

// Publish makes a port of the guest reachable from outside the overlay. The
// listener is opened outside and handed in, in the order of this list, by the
// systemd socket-activation convention (LISTEN_FDS, descriptors from 3 up). A VM that
// has a machine of its own, and was handed none, opens them itself.
type Publish struct {
	Port        int    `json:"port"`
	HostPort    int    `json:"host_port"`
	HostAddress string `json:"host_address,omitempty"` // default 127.0.0.1; on a machine of its own any

	// CIDRs are where connections may come from; empty: from anywhere.
	CIDRs []string `json:"cidrs,omitempty"`
}

// Node configures one node. Unknown fields of the document are ignored.
type Node struct {
	Version       int               `json:"version"`
	Network       string            `json:"network"`
	Kind          string            `json:"kind"`
	SeedEndpoints []string          `json:"seed_endpoints,omitempty"` // host:port
	SecretRef     string            `json:"secret_ref"`               // file:/path, a 0600 file; ssm:REGION/NAME
	LaunchToken   string            `json:"launch_token,omitempty"`   // one use, bound to the slot
	Succeeds      string            `json:"succeeds,omitempty"`       // functions: launch id of the slot's holder, which this node follows
	Standby       bool              `json:"standby,omitempty"`        // functions: stands in for the slot's own node, which has the slot again when it comes back
	Name          string            `json:"name,omitempty"`           // resource name; default: the slot
	Slot          string            `json:"slot"`
	Service       string            `json:"service,omitempty"` // default: the name
	Argv          []string          `json:"argv,omitempty"`
	Env           map[string]string `json:"env,omitempty"`
	WorkingDir    string            `json:"working_dir,omitempty"`
	User          string            `json:"user,omitempty"`     // of the guest: a name or number; empty: the supervisor's
	Files         map[string]string `json:"files,omitempty"`    // path -> content, put in place by the platform
	Remap         map[string]string `json:"remap,omitempty"`    // path -> path
	WaitFor       map[string]int    `json:"wait_for,omitempty"` // service -> count, or nodes -> n
	Restart       string            `json:"restart,omitempty"`  // default no
	Publish       []Publish         `json:"publish,omitempty"`
	Transports    []string          `json:"transports,omitempty"` // what the guest's connections may use; empty: all

	// DeadlineMarginMS is how long before the platform's deadline a function
	// node begins to drain, in milliseconds (default 5000).
	DeadlineMarginMS int `json:"deadline_margin_ms,omitempty"`

	Site            string `json:"site,omitempty"`             // nodes of one site reach each other natively; empty: behind NAT
	UnderlayAddress string `json:"underlay_address,omitempty"` // IPv4 of the node; empty: found by asking the kernel
	PublicAddress   string `json:"public_address,omitempty"`   // IPv4 where others than its site dial it, ec2 (what the instance's metadata say) or none; empty: the underlay address
	Port            int    `json:"port,omitempty"`             // overlay port, default 7717
	Reach           string `json:"reach,omitempty"`            // any (default) or seeds
	CIDR            string `json:"cidr,omitempty"`             // seeds only: the overlay CIDR
	StateDir        string `json:"state_dir,omitempty"`        // seeds: what must survive a restart; others: run files

	// Invoke is where a seed launches functions, the Lambda Invoke API: unix:/path, or
	// lambda:REGION/PREFIX. Empty: it launches none.
	Invoke string `json:"invoke,omitempty"`

	// Load asks the supervisor to tell the network what its guest has to do.
	Load bool `json:"load,omitempty"`

	// Metrics is where the supervisor serves GET /metrics: host:port, unix:/path or
	// "off". Empty: metrics.sock in its run directory, and off on functions.
	Metrics string `json:"metrics,omitempty"`

	// A node that is plain processes of its machine, beside other nodes.
	Shared bool     `json:"shared,omitempty"` // UnderlayAddress is its own on a loopback that the others use as well
	Root   string   `json:"root,omitempty"`   // the directory its own places are below
	Places []string `json:"places,omitempty"` // those places, as the guest names them: /opt, /var/task
}

// isLabel: a DNS label, so that every name can be looked up (RFC 1123 2.1). Regular
// expressions would be made anew by every supervisor that starts.
func isLabel(name string) bool {
	odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	return name != "" && len(name) <= 63 && strings.IndexFunc(name, odd) < 0 && name[0] != '-' && name[len(name)-1] != '-'
}

// isNodeID: the canonical name of a node, which no slot may take.
func isNodeID(name string) bool {
	number, ok := strings.CutPrefix(name, "node-")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// isLaunchID: the form of cluster.LaunchID.
func isLaunchID(id string) bool {
	return len(id) == 12 && strings.Trim(id, "0123456789abcdef") == ""
}

// CheckName reports why name cannot be the name of a network, slot or service.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty: use 1 to 63 lower-case letters, digits and dashes")
	case !isLabel(name):
		return fmt.Errorf("name %q: use 1 to 63 lower-case letters, digits and dashes, with a letter or digit at both ends", name)
	case isNodeID(name):
		return fmt.Errorf("name %q: node-<number> is the canonical name of a node; choose another", name)
	case name == "localhost" || name == WaitNodes:
		return fmt.Errorf("name %q is reserved; choose another", name)
	}
	return nil
}

// CheckTransport reports why name cannot stand in Transports.
func CheckTransport(name string) error {
	switch name {
	case TransportNative, TransportDirect, TransportPunch, TransportRelay:
		return nil
	}
	return fmt.Errorf("transport %q: want native, direct, punch or relay", name)
}

// Parse reads a document, fills in defaults and checks it.
func Parse(data []byte) (Node, error) {
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Node{}, fmt.Errorf("node configuration: not JSON: %w", err)
	}
	if head.Version == nil || *head.Version != Version {
		got := "none"
		if head.Version != nil {
			got = fmt.Sprint(*head.Version)
		}
		return Node{}, fmt.Errorf("node configuration: version %s is not supported (this build reads version %d): use the same Boxer release on both sides", got, Version)
	}
	var n Node
	if err := json.Unmarshal(data, &n); err != nil {
		return Node{}, fmt.Errorf("node configuration: %w", err)
	}
	n.fillDefaults()
	if err := n.Check(); err != nil {
		return Node{}, fmt.Errorf("node configuration: %w", err)
	}
	return n, nil
}

// Load reads the document at path.
func Load(path string) (Node, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Node{}, fmt.Errorf("node configuration: %w", err)
	}
	return Parse(data)
}

// New returns n with its version and defaults filled in, checked.
func New(n Node) (Node, error) {
	n.Version = Version
	n.fillDefaults()
	return n, n.Check()
}

func (n *Node) fillDefaults() {
	if n.Name == "" {
		n.Name = n.Slot
	}
	if n.Service == "" {
		n.Service = n.Name
	}
	if n.Restart == "" {
		n.Restart = RestartNo
	}
	if n.Port == 0 {
		n.Port = DefaultPort
	}
	if n.Reach == "" {
		n.Reach = ReachAny
	}
	if n.CIDR == "" && n.Kind == KindSeed {
		n.CIDR = DefaultCIDR
	}
	if n.DeadlineMarginMS == 0 {
		n.DeadlineMarginMS = 5000
	}
}

// Check reports the first thing wrong with the document.
func (n *Node) Check() error {
	// In this order: the name and the service are the slot's by default.
	for _, field := range [][2]string{{"network", n.Network}, {"slot", n.Slot}, {"name", n.Name}, {"service", n.Service}} {
		if err := CheckName(field[1]); err != nil {
			return fmt.Errorf("%s: %w", field[0], err)
		}
	}
	switch n.Kind {
	case KindVM, KindFunction, KindContainer, KindClient:
		if len(n.Argv) == 0 || n.Argv[0] == "" {
			return errors.New("argv: no command to run")
		}
		if len(n.SeedEndpoints) == 0 {
			return errors.New("seed_endpoints: none given")
		}
	case KindSeed:
		if err := n.checkSeeds(); err != nil {
			return err
		}
		prefix, err := netip.ParsePrefix(n.CIDR)
		if err != nil || !prefix.Addr().Is4() || prefix != prefix.Masked() || prefix.Bits() > 28 || prefix.Bits() < 8 {
			return fmt.Errorf("cidr %q: want an IPv4 network between /8 and /28, such as %s", n.CIDR, DefaultCIDR)
		}
	default:
		return fmt.Errorf("kind %q: want vm, function, container, client or seed", n.Kind)
	}
	if err := n.checkSecretRef(); err != nil {
		return err
	}
	if n.Succeeds != "" && (n.Kind != KindFunction || !isLaunchID(n.Succeeds)) {
		return fmt.Errorf("succeeds %q: want the launch id of a running node (12 digits, 0 to f), for a function", n.Succeeds)
	}
	if n.Standby && n.Kind != KindFunction {
		return fmt.Errorf("standby: a %s cannot stand in for another node: only a function can", n.Kind)
	}
	if err := CheckRestart(n.Restart); err != nil {
		return err
	}
	switch n.Reach {
	case ReachAny, ReachSeeds:
	default:
		return fmt.Errorf("reach %q: want any or seeds", n.Reach)
	}
	for _, name := range n.Transports {
		if err := CheckTransport(name); err != nil {
			return fmt.Errorf("transports: %w", err)
		}
	}
	if n.Port < 1 || n.Port > 65535 {
		return fmt.Errorf("port %d: want 1 to 65535", n.Port)
	}
	if n.UnderlayAddress != "" {
		if a, err := netip.ParseAddr(n.UnderlayAddress); err != nil || !a.Is4() {
			return fmt.Errorf("underlay_address %q: want an IPv4 address", n.UnderlayAddress)
		}
	}
	if err := n.checkMetrics(); err != nil {
		return err
	}
	if err := n.checkPublicAddress(); err != nil {
		return err
	}
	if err := n.checkInvoke(); err != nil {
		return err
	}
	if a, _ := netip.ParseAddr(n.UnderlayAddress); n.Shared && !a.IsLoopback() {
		return fmt.Errorf("shared: underlay_address %q: want one of this machine's loopback", n.UnderlayAddress)
	}
	for name, count := range n.WaitFor {
		if name != WaitNodes {
			if err := CheckName(name); err != nil {
				return fmt.Errorf("wait_for: %w", err)
			}
		}
		if count < 1 {
			return fmt.Errorf("wait_for: %s = %d: want 1 or more", name, count)
		}
	}
	for _, p := range n.Publish {
		if p.Port < 1 || p.Port > 65535 || p.HostPort < 0 || p.HostPort > 65535 {
			return fmt.Errorf("publish %d to host port %d: want ports from 1 to 65535", p.Port, p.HostPort)
		}
		for _, cidr := range p.CIDRs {
			if err := CheckSource(cidr); err != nil {
				return fmt.Errorf("publish %d: %w", p.Port, err)
			}
		}
	}
	return n.checkGuest()
}

// MetricsListener is where metrics are served, and whether somebody asked for it.
func (n *Node) MetricsListener() (at string, asked bool) {
	if n.Metrics == "" && n.Kind == KindFunction {
		return MetricsOff, false
	}
	return n.Metrics, n.Metrics != ""
}

func (n *Node) checkMetrics() error {
	path, isPath := strings.CutPrefix(n.Metrics, "unix:")
	if n.Metrics == "" || n.Metrics == MetricsOff || isPath && strings.HasPrefix(path, "/") {
		return nil
	}
	if _, port, err := net.SplitHostPort(n.Metrics); err != nil || port == "" || isPath {
		return fmt.Errorf("metrics %q: want host:port (127.0.0.1:9717), unix:/path or off", n.Metrics)
	}
	return nil
}

// checkSeeds: a seed is the only one, or one of three that know each other.
func (n *Node) checkSeeds() error {
	if err := CheckSeedCount(max(1, len(n.SeedEndpoints))); err != nil {
		return fmt.Errorf("seed_endpoints: %w", err)
	}
	if len(n.SeedEndpoints) < 2 {
		return nil
	}
	if n.StateDir == "" {
		return errors.New("state_dir: a seed of several must keep what it promised the others")
	}
	_, err := n.SeedNumber()
	return err
}

// CheckSeedCount reports why a network cannot have so many seeds of its own.
func CheckSeedCount(count int) error {
	if count != 1 && count != 3 {
		return fmt.Errorf("%d seeds: want 1 or 3: of three one may be away, while of two a majority would need both", count)
	}
	return nil
}

// SeedNumber is the place of a seed's own endpoint among SeedEndpoints: its
// slot is seed-<number>.
func (n *Node) SeedNumber() (int, error) {
	for i := range n.SeedEndpoints {
		if n.Slot == fmt.Sprintf("seed-%d", i) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("slot %q: want seed-0 to seed-%d, in the order of seed_endpoints", n.Slot, len(n.SeedEndpoints)-1)
}

// Secret reads the file that SecretRef points to, which must not be readable by
// others.
func (n *Node) Secret() ([]byte, error) {
	path, isFile := strings.CutPrefix(n.SecretRef, "file:")
	if !isFile {
		return nil, fmt.Errorf("network secret: %q is no file of this machine", n.SecretRef)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("network secret: %w: put the file back, or delete the network and create it again", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("network secret %s: mode %04o lets others read it; run chmod 600 on it", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("network secret: %w", err)
	}
	return CheckSecret(path, string(data))
}

// CheckSecret is the secret in what was read at a place: surrounding white space is
// dropped; at least 16 bytes.
func CheckSecret(place, text string) ([]byte, error) {
	secret := []byte(strings.TrimSpace(text))
	if len(secret) < 16 {
		return nil, fmt.Errorf("network secret %s: %d bytes are too few; want 16 or more", place, len(secret))
	}
	return secret, nil
}
