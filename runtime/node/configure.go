// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// ErrConfigured ends a life whose node got another document: the next one begins with
// that, under the same identity.
var ErrConfigured error = configured{}

// configured is an orderly stop.
type configured struct{}

func (configured) Error() string { return "the node has another configuration" }

func (configured) Is(target error) bool { return target == errStopped }

// onAWS: no platform of this machine has prepared anything.
func (n *node) onAWS() bool {
	_, _, ok := n.cfg.SecretParameter()
	return ok
}

// askedToChange keeps what the guest is to be from now on, and ends this life. What
// makes the node this node stays.
func (n *node) askedToChange(_ context.Context, from uint32, body json.RawMessage) (any, error) {
	if err := n.bySeed(from); err != nil {
		return nil, err
	}
	var next config.Node
	if err := json.Unmarshal(body, &next); err != nil {
		return nil, fmt.Errorf("node configuration: %w", err)
	}
	merged := n.cfg
	merged.Service, merged.Argv, merged.Env, merged.WorkingDir, merged.User = next.Service, next.Argv, next.Env, next.WorkingDir, next.User
	merged.Files, merged.Remap, merged.WaitFor, merged.Restart = next.Files, next.Remap, next.WaitFor, next.Restart
	merged.Publish, merged.Transports = next.Publish, next.Transports
	merged, err := config.New(merged)
	if err != nil {
		return nil, fmt.Errorf("node configuration: %w", err)
	}
	if err := n.o.Configure(merged); err != nil {
		return nil, fmt.Errorf("keep the node's configuration: %w", err)
	}
	n.log.Info().Msg("another configuration: starting again")
	n.say(func(st *cluster.Status) { st.State = cluster.StateStarting })
	n.stopping(ErrConfigured)
	return struct{}{}, nil
}
