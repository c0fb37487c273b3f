// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

func (p *awsPlatform) Members(ctx context.Context, network string) ([]cluster.Member, error) {
	return nil, errNotOnAWS
}

func (p *awsPlatform) JoinToken(ctx context.Context, network, slot, service string, expires time.Time) (cluster.Token, error) {
	return cluster.Token{}, errNotOnAWS
}

func (p *awsPlatform) Await(ctx context.Context, network string, launches []launch.Want) ([]cluster.Member, error) {
	return nil, errNotOnAWS
}

var errNotOnAWS = errors.New("not available on aws yet")
