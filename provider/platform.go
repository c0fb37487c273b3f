// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// errGone: the platform positively knows that the object does not exist (any
// more). Only this drops a resource from Terraform's state.
var errGone = errors.New("gone")

// platform is where networks and nodes live. Delete methods succeed when there
// is nothing to delete; methods that look something up fail with errGone.
type platform interface {
	// MachineID names the machine that the platform's objects live on.
	MachineID() (string, error)

	CreateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error)
	Network(ctx context.Context, name string) (networkStatus, error)
	DeleteNetwork(ctx context.Context, name string) error
	// Members are all live members, by id; none while the network does not run.
	Members(ctx context.Context, network string) ([]cluster.Member, error)

	// JoinToken makes a token that lets one client join; see cluster.Token.
	JoinToken(ctx context.Context, network, slot, service string, expires time.Time) (cluster.Token, error)

	StartVM(ctx context.Context, spec nodeSpec) (launch.Want, error)
	VM(ctx context.Context, network, name string) (launchID string, err error)
	DeleteVM(ctx context.Context, network, name string) error

	CreateFunction(ctx context.Context, spec nodeSpec) error
	StartReplica(ctx context.Context, spec nodeSpec, slot string) (launch.Want, error)
	StopReplica(ctx context.Context, network, name, slot string) error
	RunningReplicas(ctx context.Context, network, name string) (slots []string, err error)
	DeleteFunction(ctx context.Context, network, name string) error

	// Await returns the members of all launches, in their order, once every
	// guest runs. It fails with a *launch.Failure when one cannot.
	Await(ctx context.Context, network string, launches []launch.Want) ([]cluster.Member, error)
}

type networkSpec struct {
	Name, CIDR string
	Port       int
}

type networkStatus struct {
	CIDR          string
	Port          int
	SeedEndpoints []string
	SecretRef     string
}

// nodeSpec is what one VM node or function node resource declares.
type nodeSpec struct {
	Network, Name, Service, Kind string
	Command                      []string
	SourceDir                    string // "": none; else absolute
	WaitFor                      map[string]int
	Transports                   []string // none: all
	Publish                      []config.Publish
	MemoryMB, EphemeralMB        int // functions only
	TimeoutS                     int // functions only
}

// explained is an error with what to do about it.
type explained struct {
	cause  error
	remedy string
}

func (e *explained) Error() string { return e.cause.Error() + ". " + e.remedy }
func (e *explained) Unwrap() error { return e.cause }
