// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/node"
)

// joinTokenEnv may hold a join token instead of a file.
const joinTokenEnv = "BOXER_JOIN_TOKEN"

// joinToken reads the token that this run joins with; nil: it has none, and the
// network is one of this machine. The guest does not get to see it.
func (f *runFlags) joinToken() (*cluster.Token, error) {
	text, from := os.Getenv(joinTokenEnv), joinTokenEnv
	if err := os.Unsetenv(joinTokenEnv); err != nil {
		return nil, err
	}
	if f.tokenFile != "" {
		from = f.tokenFile
		info, err := os.Stat(f.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("join token: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("join token %s: mode %04o lets others read it; run chmod 600 on it", f.tokenFile, info.Mode().Perm())
		}
		data, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("join token: %w", err)
		}
		text = string(data)
	}
	if text == "" && f.tokenFile == "" {
		if len(f.seeds) > 0 {
			return nil, fmt.Errorf("run: --seed goes with a join token: add --join-token-file or set %s", joinTokenEnv)
		}
		return nil, nil
	}
	token, err := cluster.ParseToken(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return &token, nil
}

// runByToken joins a network that may be another machine's.
func (f *runFlags) runByToken(ctx context.Context, network string, n config.Node, token *cluster.Token) (int, error) {
	var fault string
	switch {
	case f.kind != config.KindClient:
		fault = "a join token is for nodes that run right here: leave --kind out"
	case network != "" && network != token.Network:
		fault = fmt.Sprintf("the join token is for network %q, not %q: leave --network out", token.Network, network)
	case f.name != "" && f.name != token.Slot:
		fault = fmt.Sprintf("the join token is for a node of name %q, not %q: leave --name out", token.Slot, f.name)
	case f.service != "" && f.service != token.Service:
		fault = fmt.Sprintf("the join token is for service %q, not %q: leave --service out", token.Service, f.service)
	}
	if fault != "" {
		return 0, errors.New("run: " + fault)
	}
	n.Network, n.Name, n.Slot, n.Service = token.Network, token.Slot, token.Slot, token.Service
	n.LaunchToken, n.SecretRef, n.SeedEndpoints = token.LaunchToken, config.SecretToken, token.Seeds
	n.Port = int(token.Port)
	if len(f.seeds) > 0 {
		n.SeedEndpoints = f.seeds
	}
	return runHere(ctx, n, node.Options{Token: token})
}

const joinTokenHelp = `file with a join token: run here as a node of a network that may be
another machine's (or set ` + joinTokenEnv + `)`

const seedHelp = `HOST:PORT: where a seed is reached from here, if not where the join
token says (a forwarded port, for example; repeatable)`
