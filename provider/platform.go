// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// errGone: the platform positively knows that the object does not exist (any
// more). Only this drops a resource from Terraform's state.
var errGone = errors.New("gone")

// errUnreachable: what exists cannot be told now. State stays as it is.
var errUnreachable = errors.New("not reachable")

// platform is where networks and nodes live. Delete methods succeed when there
// is nothing to delete; methods that look something up fail with errGone.
type platform interface {
	// MachineID names the machine that the platform's objects live on.
	MachineID() (string, error)

	CreateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error)
	Network(ctx context.Context, name string) (networkStatus, error)
	// UpdateNetwork changes what can be changed in place: tags and runtime version.
	UpdateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error)
	DeleteNetwork(ctx context.Context, name string) error
	// Members are all live members, by id; none while the network does not run.
	Members(ctx context.Context, network string) ([]cluster.Member, error)

	// JoinToken makes a token that lets one client join; see cluster.Token.
	JoinToken(ctx context.Context, network, slot, service string, expires time.Time) (cluster.Token, error)

	StartVM(ctx context.Context, spec nodeSpec) (launch.Want, error)
	// UpdateVM changes what a VM node runs, by the same launch. Its guest is
	// started again if that is needed, or if again says so.
	UpdateVM(ctx context.Context, spec nodeSpec, again bool) error
	VM(ctx context.Context, network, name string) (vmStatus, error)
	DeleteVM(ctx context.Context, network, name string) error

	CreateFunction(ctx context.Context, spec nodeSpec) error
	StartReplica(ctx context.Context, spec nodeSpec, slot string) (launch.Want, error)
	StopReplica(ctx context.Context, network, name, slot string) error
	// UpdateFunction changes what the next replicas run; those that run go on.
	UpdateFunction(ctx context.Context, spec nodeSpec) error
	Function(ctx context.Context, network, name string) (functionStatus, error)
	// Keep has the network's controller keep count replicas of what spec says, from
	// those that run, by its policy; -1: as many as it keeps. It says what to wait for.
	Keep(ctx context.Context, spec nodeSpec, count int) ([]launch.Want, error)
	// Release ends that, and leaves them as they are. It says how many there were to
	// be, -1 if none were kept.
	Release(ctx context.Context, network, name string) (was int, err error)
	DeleteFunction(ctx context.Context, network, name string) error

	// Watching has Await see, with the context that it returns, what becomes of launches
	// from now on, until the returned function is called.
	Watching(ctx context.Context, network string) (context.Context, func())
	// Await returns the members of all launches, in their order, once every
	// guest runs. It fails with a *launch.Failure when one cannot.
	Await(ctx context.Context, network string, launches []launch.Want) ([]cluster.Member, error)
}

type networkSpec struct {
	Name, CIDR     string
	Port           int
	Seeds          int
	Secret         string // "": generated
	SecretVersion  int64
	RuntimeVersion string
	Carried        string // the runtime version that this provider has layers of
	Tags           map[string]string
	AWS            awsNetwork
}

// awsNetwork is what a network declares that only aws has.
type awsNetwork struct {
	VPC                                       string
	Subnets                                   []string
	RolePath, PermissionsBoundary, NamePrefix string
	LogRetentionDays                          int
	SeedInstanceType, SeedSubnet              string
	SeedIngress                               []string
}

type networkStatus struct {
	CIDR           string
	Port           int
	SecretVersion  int64 // 0: the secret was generated
	RuntimeVersion string
	Upgrading      string // the version that an upgrade which did not end was to
	Tags           map[string]string

	Made          bool // of a failed create: something is there
	Seeds         int  // 0: as many as have endpoints
	SeedEndpoints []string
	SecretRef     string
	LayerARNs     []string
	AWS           awsNetwork
	Drift         []string // what somebody changed by hand; an update puts it right
	Notice        string   // what users should know of how it was made
}

// nodeSpec is what one VM node or function node resource declares.
type nodeSpec struct {
	Network, Name, Service, Kind string
	Command                      []string
	Environment, Files, Remap    map[string]string
	WorkingDir, User, Restart    string
	SourceDir, Package           string // at most one is given, absolute
	CodeSHA256                   string // of its contents
	KeepSource                   bool   // updates: the contents stay
	WaitFor                      map[string]int
	Transports                   []string // none: all
	Publish                      []config.Publish
	Tags                         map[string]string
	MemoryMB, EphemeralMB        int  // functions only
	TimeoutS                     int  // functions only
	JoinOnly                     bool // do not wait for the guest
	Policy                       policy
	AWS                          awsNode // what only AWS understands
}

// sameGuest: a guest of one is as good as one of the other.
func (s nodeSpec) sameGuest(other nodeSpec) bool {
	for _, spec := range []*nodeSpec{&s, &other} {
		spec.SourceDir, spec.Package, spec.KeepSource, spec.JoinOnly, spec.Tags = "", "", false, false, nil
		spec.Policy, spec.AWS = policy{}, awsNode{}
	}
	return reflect.DeepEqual(s, other)
}

// vmStatus is what a platform knows of a VM node.
type vmStatus struct {
	LaunchID string
	Spec     nodeSpec
	AWS      *awsVM // nil on other platforms
	Notice   string // what is not as it should be, and no change
}

// functionStatus is what a platform knows of a function node.
type functionStatus struct {
	Running []string // slots of the replicas that run
	Stale   []string // those of them that run an earlier configuration
	Kept    *policy  // what the controller was told; nil: it keeps none
	Spec    nodeSpec
	AWS     *awsFunction // nil on other platforms
	Unknown string       // why Running and Stale are not known now; "": they are
}

// explained is an error with what to do about it.
type explained struct {
	cause  error
	remedy string
}

func (e *explained) Error() string { return e.cause.Error() + ". " + e.remedy }
func (e *explained) Unwrap() error { return e.cause }
