// SPDX-License-Identifier: Apache-2.0

// Package localcloud is the embedded platform: VM hosts and function sandboxes
// as Linux namespaces of this machine, on a private routed network, kept by one
// daemon per overlay network. A Store is the directory that holds the networks
// of a user; a Client talks to the daemon of one network.
package localcloud

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// Sentinel errors; test with errors.Is.
var (
	ErrExists   = errors.New("exists already")
	ErrNotFound = errors.New("not found")
	// ErrOtherMachine: the state was made on another machine.
	ErrOtherMachine = errors.New("made on another machine")
	// ErrUnreachable: the network runs, but nobody can tell what is in it.
	ErrUnreachable = errors.New("its daemon does not answer")
)

// Runtime says what the local platform runs.
type Runtime struct {
	Boxer  string            // the boxer executable; empty: the one inside the layer
	Layers map[string]string // architecture (amd64, arm64) -> path of the layer zip
}

// NetworkSpec asks for a network.
type NetworkSpec struct {
	Name   string
	CIDR   string // default config.DefaultCIDR
	Port   int    // overlay port, default config.DefaultPort
	Secret []byte // nil: generated
	Seeds  int    // of its own, 1 (default) or 3

	Isolation string // auto, namespaces or processes; default DefaultIsolation
	Elastic   bool   // for tests: hosts have public addresses that are translated, as on EC2

	Version       string            // of the runtime, as users name it
	SecretVersion int64             // of a secret that was given; 0: it was not
	Tags          map[string]string // words of the user about it
}

// NetworkInfo is what the state directory knows of a network.
type NetworkInfo struct {
	Name         string `json:"name"`
	CIDR         string `json:"cidr"`
	Port         int    `json:"port"`          // overlay port
	SeedEndpoint string `json:"seed_endpoint"` // of seed-0, for clients on this machine
	// SeedEndpoints are those of seed-0, seed-1, ...; a network of an earlier
	// version has only the one above.
	SeedEndpoints []string  `json:"seed_endpoints"`
	SecretFile    string    `json:"secret_file"` // path, mode 0600
	MachineID     string    `json:"machine_id"`
	Runtime       string    `json:"runtime"` // SHA-256 of the layer zip it was made with
	Created       time.Time `json:"created"`
	Isolation     string    `json:"isolation"`          // namespaces or processes
	Notice        string    `json:"notice,omitempty"`   // why it has no namespaces, if it should have had them
	Elastic       bool      `json:"elastic,omitempty"`  // as in NetworkSpec
	Loopback      int       `json:"loopback,omitempty"` // without them: the block of this machine's loopback it has

	Version       string            `json:"version,omitempty"`
	SecretVersion int64             `json:"secret_version,omitempty"`
	Tags          map[string]string `json:"tags,omitempty"`

	Directory string `json:"directory"`
	Alive     bool   `json:"alive"` // its daemon runs
	PID       int    `json:"pid"`   // of the daemon, 0 when it does not run

	// Elsewhere is set of a network that is not on this machine: then nothing of the
	// above about this machine holds.
	Elsewhere *Elsewhere `json:"-"`
}

// Elsewhere is how a network on another platform is joined from here.
type Elsewhere struct {
	SecretRef string
	Secret    []byte
}

// States of a host.
const (
	HostStarting = "starting" // being set up
	HostRunning  = "running"  // set up; its bootstrap script runs
	HostExited   = "exited"   // gone: its init ended or was killed
)

// HostSpec asks for a VM host. Config.Publish is opened on this machine;
// secret, seeds, site and underlay address of Config are filled in.
type HostSpec struct {
	Config    config.Node `json:"config"`
	SourceDir string      `json:"source_dir,omitempty"` // copied, seen at /var/task; empty: none

	// KeepSource leaves what is at /var/task there (UpdateHost).
	KeepSource bool `json:"keep_source,omitempty"`
	// Restart starts the guest again even if nothing has changed (UpdateHost).
	Restart bool `json:"restart,omitempty"`

	CodeSHA256 string            `json:"code_sha256,omitempty"` // of the source, as the caller computes it
	Tags       map[string]string `json:"tags,omitempty"`
}

// Host is one VM host.
type Host struct {
	Slot            string    `json:"slot"`
	Kind            string    `json:"kind"`
	State           string    `json:"state"`
	PID             int       `json:"pid"`         // of its init, as the daemon sees it
	MachinePID      int       `json:"machine_pid"` // of its init, as this machine sees it, if Client.Locate; 0 when gone
	UnderlayAddress string    `json:"underlay_address"`
	LaunchID        string    `json:"launch_id"`
	Error           string    `json:"error,omitempty"` // why it ended
	Started         time.Time `json:"started"`

	Config     config.Node       `json:"config"` // what it runs, without the launch token
	CodeSHA256 string            `json:"code_sha256,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
}

// FunctionSpec asks for a function; MemoryMB, EphemeralMB and TimeoutS default
// to 1769, 512 and 900.
type FunctionSpec struct {
	Name        string `json:"name"`
	SourceDir   string `json:"source_dir,omitempty"`
	MemoryMB    int    `json:"memory_mb"`
	EphemeralMB int    `json:"ephemeral_mb"` // size of /tmp
	TimeoutS    int    `json:"timeout_s"`

	// Environment of the runtime, 4 KB at most. A guest's environment is no
	// part of it: that travels in the launch event.
	Environment map[string]string `json:"environment,omitempty"`

	// Relaxed lifts what Lambda forbids, for debugging: the seccomp filter and
	// the limits of descriptors, tasks, ports, /dev/shm, memory and CPU.
	Relaxed bool `json:"relaxed,omitempty"`

	// Root is a directory with another system's programs, which its sandboxes see
	// instead of this machine's; empty: this machine's.
	Root string `json:"root,omitempty"`

	// Entrypoint makes Root an image: it has its own layer and /var/task, and this is
	// the program that Lambda starts; empty: the bootstrap of the network's layer.
	Entrypoint string `json:"entrypoint,omitempty"`

	// NAT is the kind that its sandboxes are behind, for tests; empty: NATMasquerade.
	NAT string `json:"nat,omitempty"`

	// Reuse keeps a sandbox that has answered its event, with all processes stopped,
	// for the next one of its slot, as Lambda does; for tests.
	Reuse bool `json:"reuse,omitempty"`

	// Config is what the function's nodes run: each launch event is this with a
	// slot and a token. It is kept to be looked up, nothing is launched by it.
	Config *config.Node `json:"config,omitempty"`

	KeepSource bool              `json:"keep_source,omitempty"` // as in HostSpec (UpdateFunction)
	CodeSHA256 string            `json:"code_sha256,omitempty"` // of the source, as the caller computes it; empty: our own
	Tags       map[string]string `json:"tags,omitempty"`
}

// Function is one function.
type Function struct {
	Name        string            `json:"name"`
	ARN         string            `json:"arn"`
	MemoryMB    int               `json:"memory_mb"`
	EphemeralMB int               `json:"ephemeral_mb"`
	TimeoutS    int               `json:"timeout_s"`
	Environment map[string]string `json:"environment,omitempty"`
	Relaxed     bool              `json:"relaxed,omitempty"`
	Root        string            `json:"root,omitempty"`
	Entrypoint  string            `json:"entrypoint,omitempty"`
	NAT         string            `json:"nat,omitempty"`
	Reuse       bool              `json:"reuse,omitempty"`
	CodeSHA256  string            `json:"code_sha256"`
	Running     int               `json:"running"`            // invocations under way
	Declared    json.RawMessage   `json:"declared,omitempty"` // to the network's controller; nil: nobody keeps its replicas
	Created     time.Time         `json:"created"`

	Config   *config.Node `json:"config,omitempty"`
	Revision int          `json:"revision"` // counts updates

	SourceRevision int               `json:"source_revision,omitempty"` // that brought its source
	Tags           map[string]string `json:"tags,omitempty"`
}

// States of an invocation.
const (
	InvocationRunning   = "running"
	InvocationSucceeded = "succeeded"
	InvocationFailed    = "failed"
)

// OutOfMemory begins the Error of an invocation that used up its memory.
const OutOfMemory = "out of memory"

// Invocation is one event and the sandbox that handles it.
type Invocation struct {
	RequestID  string    `json:"request_id"`
	Function   string    `json:"function"`
	Revision   int       `json:"revision"` // of the function, when it began
	Slot       string    `json:"slot"`
	LaunchID   string    `json:"launch_id"`
	State      string    `json:"state"`
	Error      string    `json:"error,omitempty"`
	PID        int       `json:"pid"`         // of the sandbox's init, as the daemon sees it
	MachinePID int       `json:"machine_pid"` // as this machine sees it, if Client.Locate; 0 when gone
	NATAddress string    `json:"nat_address"` // what the sandbox's connections come from
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended,omitzero"`
}
