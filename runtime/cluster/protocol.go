// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"net/netip"
	"strings"
)

// protocolVersion of the messages below. Members one version apart understand
// each other: fields are only ever added.
const protocolVersion = 1

const (
	methodJoin     = "join"
	methodObserve  = "observe"
	methodLeave    = "leave"
	methodStatus   = "status"
	methodReport   = "report_paths"
	methodPaths    = "paths"
	methodCall     = "call"
	methodDelta    = "delta"
	methodReplaced = "replaced"
)

// joinRequest opens a membership, or an observation (then without Hello).
type joinRequest struct {
	Protocol int    `json:"protocol"`
	Network  string `json:"network"`
	Hello    Hello  `json:"hello"`
	Status   Status `json:"status"`
	// Resume is the id this process already has. It is never given another:
	// its guest knows itself by it.
	Resume uint32 `json:"resume,omitempty"`
	// Lost is the number, from 1, of the seed this node cannot reach: the asked
	// one waits for another to lead.
	Lost int `json:"lost,omitempty"`
	// Beside: this node knows that a holder may have others beside it with its address.
	Beside bool `json:"beside,omitempty"`
}

type joinReply struct {
	Protocol int          `json:"protocol"`
	Self     Member       `json:"self"`
	CIDR     netip.Prefix `json:"cidr"`
	// PrefaceKey for who joined with a token and cannot derive it.
	PrefaceKey []byte `json:"preface_key,omitempty"`
}

// delta changes the receiver's member set. Begin and End bracket a full set,
// which replaces the one before.
type delta struct {
	Begin   bool              `json:"begin,omitempty"`
	End     bool              `json:"end,omitempty"`
	Members []json.RawMessage `json:"members,omitempty"`
	Left    []uint32          `json:"left,omitempty"`

	Reserved map[string]*Reserved `json:"reserved,omitempty"` // null: not any more
}

// ControlPrefix begins the calls that change the network (runtime/controller).
const ControlPrefix = "controller."

// deltaChunk members, or about so many bytes, keep a frame below its limit.
const (
	deltaChunk = 512
	deltaBytes = maxFrame / 2
)

// pathsRequest asks for the counts of nodes after one. The answer has those of whole
// nodes, as many as one message takes; who asks for those after the last gets the rest.
type pathsRequest struct {
	After uint32 `json:"after,omitempty"`
}

type callRequest struct {
	To        uint32          `json:"to,omitempty"`   // towards the seed
	From      uint32          `json:"from,omitempty"` // from the seed
	Method    string          `json:"method"`
	Body      json.RawMessage `json:"body,omitempty"`
	TimeoutMS int64           `json:"timeout_ms,omitempty"`
}

// isLabel: names end up in host tables, so a DNS label.
func isLabel(name string) bool {
	odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	return name != "" && len(name) <= 63 && strings.IndexFunc(name, odd) < 0 && name[0] != '-' && name[len(name)-1] != '-'
}

// isNodeID: the canonical name of a node.
func isNodeID(name string) bool {
	number, ok := strings.CutPrefix(name, "node-")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

func (r *joinRequest) check() error {
	for _, field := range [][2]string{{"slot", r.Hello.Slot}, {"name", r.Hello.Name}, {"service", r.Hello.Service}} {
		what, name := field[0], field[1]
		if !isLabel(name) || isNodeID(name) || name == "localhost" {
			return remoteErrorf(CodeBadRequest, "%s %q cannot be a name in the network: use 1 to 63 lower-case letters, digits and dashes", what, name)
		}
	}
	if r.Hello.LaunchToken == "" || len(r.Hello.LaunchToken) > 256 {
		return remoteErrorf(CodeBadRequest, "launch token of %d bytes: want 1 to 256", len(r.Hello.LaunchToken))
	}
	if len(r.Hello.Succeeds) > 64 {
		return remoteErrorf(CodeBadRequest, "succeeds is %d bytes long: want a launch id", len(r.Hello.Succeeds))
	}
	if len(r.Hello.Kind) > 32 || len(r.Hello.Site) > 128 || len(r.Hello.Version) > 128 {
		return remoteErrorf(CodeBadRequest, "kind, site or version is too long")
	}
	if a := r.Hello.PublicAddress; a.IsValid() && (!a.Is4() || a.IsMulticast()) {
		return remoteErrorf(CodeBadRequest, "public address %s: want an IPv4 address", a)
	}
	return r.Status.check()
}

func (s *Status) check() error {
	switch s.State {
	case StateStarting, StateRunning, StateExited, StateFailed:
	default:
		return remoteErrorf(CodeBadRequest, "state %q cannot be announced", s.State)
	}
	if len(s.Listeners) > 4096 || len(s.Guest.Error) > 4096 || len(s.Guest.WaitsFor) > 4096 {
		return remoteErrorf(CodeBadRequest, "status too large")
	}
	if l := s.Load; l != nil && (l.CPU < 0 || l.CPU > 1e6 || l.Connections < 0 || l.AcceptQueue < 0) {
		return remoteErrorf(CodeBadRequest, "load %+v cannot be", *l)
	}
	return s.NATReport.check()
}
