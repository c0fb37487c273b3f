// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
)

// Error codes a seed or a member answers with.
const (
	CodeNameTaken          = "name_taken"
	CodeUnknownNetwork     = "unknown_network"
	CodeWrongSecret        = "wrong_secret"
	CodeAddressSpaceFull   = "address_space_full"
	CodeUnsupportedVersion = "unsupported_version"
	CodeRefused            = "refused"
	CodeNoSuchNode         = "no_such_node"
	CodeBadRequest         = "bad_request"
	CodeNotLeader          = "not_leader"  // another seed admits members
	CodeUnavailable        = "unavailable" // no seed can admit members now
)

// Errors to compare with errors.Is; what is returned carries a message.
var (
	ErrNameTaken        = &RemoteError{Code: CodeNameTaken}
	ErrUnknownNetwork   = &RemoteError{Code: CodeUnknownNetwork}
	ErrWrongSecret      = &RemoteError{Code: CodeWrongSecret}
	ErrAddressSpaceFull = &RemoteError{Code: CodeAddressSpaceFull}
	ErrRefused          = &RemoteError{Code: CodeRefused}
	ErrNoSuchNode       = &RemoteError{Code: CodeNoSuchNode}
	ErrNotLeader        = &RemoteError{Code: CodeNotLeader}
	ErrUnavailable      = &RemoteError{Code: CodeUnavailable}

	// ErrUnreachable: no seed answered at the address.
	ErrUnreachable = errors.New("unreachable")
	// ErrClosed: the session has left or was closed.
	ErrClosed = errors.New("the session with the network is closed")
	// ErrReplaced: another process of the same launch has taken this node over.
	ErrReplaced = errors.New("another process of the same launch has taken this node over")
	// ErrDisconnected: the seed is out of reach at the moment.
	ErrDisconnected = errors.New("no connection to a seed at the moment; it is being restored")
)

// RemoteError is what the other side answered instead of a result.
type RemoteError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Leader  int    `json:"leader,omitempty"` // CodeNotLeader: the number of the seed that leads, from 1
}

func (e *RemoteError) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Message
}

// Is reports whether target has the same code.
func (e *RemoteError) Is(target error) bool {
	other, ok := target.(*RemoteError)
	return ok && other.Code == e.Code
}

func remoteErrorf(code, format string, args ...any) *RemoteError {
	return &RemoteError{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Passing reports whether the seeds may answer otherwise in a moment.
func Passing(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnavailable)
}

// asRemote turns any error into one that can cross the wire.
func asRemote(err error) *RemoteError {
	if err == nil {
		return nil
	}
	var remote *RemoteError
	if errors.As(err, &remote) {
		return remote
	}
	return &RemoteError{Code: CodeRefused, Message: err.Error()}
}
