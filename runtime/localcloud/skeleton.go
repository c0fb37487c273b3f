// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"errors"

	"github.com/boxer-overlay/boxer/runtime/config"
)

var errSkeleton = errors.New("localcloud: not built yet")

// Store is a state directory.
type Store struct{}

// DefaultStateDir is BOXER_STATE_DIR, else $XDG_STATE_HOME/boxer, else ~/.local/state/boxer.
func DefaultStateDir() (string, error) { return "", errSkeleton }

// Open opens, or makes, a state directory.
func Open(stateDir string, rt Runtime) (*Store, error) { return nil, errSkeleton }

// Dir is the state directory.
func (s *Store) Dir() string { return "" }

// MachineID identifies this machine.
func (s *Store) MachineID() (string, error) { return "", errSkeleton }

// CreateNetwork makes a network and starts its daemon and seed.
func (s *Store) CreateNetwork(ctx context.Context, spec NetworkSpec) (NetworkInfo, error) {
	return NetworkInfo{}, errSkeleton
}

// Network describes a network, ErrNotFound if there is none.
func (s *Store) Network(name string) (NetworkInfo, error) { return NetworkInfo{}, errSkeleton }

// Networks lists the networks by name.
func (s *Store) Networks() ([]NetworkInfo, error) { return nil, errSkeleton }

// DeleteNetwork stops everything of a network and removes it; idempotent.
func (s *Store) DeleteNetwork(ctx context.Context, name string) error { return errSkeleton }

// Connect returns a client, starting the daemon again if it died.
func (s *Store) Connect(ctx context.Context, name string) (*Client, error) { return nil, errSkeleton }

// Client talks to the daemon of one network.
type Client struct{}

// Info describes the client's network.
func (c *Client) Info() NetworkInfo { return NetworkInfo{} }

// Close drops idle connections.
func (c *Client) Close() {}

// CreateHost starts a VM host; ErrExists while one of that slot runs.
func (c *Client) CreateHost(ctx context.Context, spec HostSpec) (Host, error) {
	return Host{}, errSkeleton
}

// Host describes a host, ErrNotFound if there is none.
func (c *Client) Host(ctx context.Context, slot string) (Host, error) { return Host{}, errSkeleton }

// Hosts lists the hosts by slot, the seed included.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) { return nil, errSkeleton }

// DeleteHost stops a host and forgets it; idempotent.
func (c *Client) DeleteHost(ctx context.Context, slot string) error { return errSkeleton }

// CreateFunction makes a function; ErrExists if there is one.
func (c *Client) CreateFunction(ctx context.Context, spec FunctionSpec) (Function, error) {
	return Function{}, errSkeleton
}

// Function describes a function, ErrNotFound if there is none.
func (c *Client) Function(ctx context.Context, name string) (Function, error) {
	return Function{}, errSkeleton
}

// Functions lists the functions by name.
func (c *Client) Functions(ctx context.Context) ([]Function, error) { return nil, errSkeleton }

// DeleteFunction stops its invocations and forgets it; idempotent.
func (c *Client) DeleteFunction(ctx context.Context, name string) error { return errSkeleton }

// FunctionConfig fills in what the platform knows, for the payload of Invoke.
func (c *Client) FunctionConfig(n config.Node) config.Node { return n }

// Invoke sends one event (asynchronously, as Lambda's InvocationType Event).
func (c *Client) Invoke(ctx context.Context, function string, payload []byte) (string, error) {
	return "", errSkeleton
}

// Invocations lists a function's invocations, oldest first.
func (c *Client) Invocations(ctx context.Context, function string) ([]Invocation, error) {
	return nil, errSkeleton
}

// StopInvocation ends the running invocation of a slot; idempotent.
func (c *Client) StopInvocation(ctx context.Context, function, slot string) error {
	return errSkeleton
}

// LogPath is the file with the guest's output.
func (c *Client) LogPath(slot string) string { return "" }

// NodeLogPath is the file with the supervisor's and bootstrap script's messages.
func (c *Client) NodeLogPath(slot string) string { return "" }

// Tail returns the last lines of the guest's output.
func (c *Client) Tail(slot string, lines int) ([]string, error) { return nil, errSkeleton }

// Main is `boxer local-cloud`, the daemon of one network.
func Main(args []string) int { return 125 }

// HostMain is `boxer local-host`, init of a host or sandbox.
func HostMain(args []string) int { return 125 }
