// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"

	"github.com/boxer-overlay/boxer/runtime/launch"
)

func (p *awsPlatform) CreateFunction(ctx context.Context, spec nodeSpec) error { return errNotOnAWS }

func (p *awsPlatform) StartReplica(ctx context.Context, spec nodeSpec, slot string) (launch.Want, error) {
	return launch.Want{}, errNotOnAWS
}

func (p *awsPlatform) StopReplica(ctx context.Context, network, name, slot string) error {
	return errNotOnAWS
}

func (p *awsPlatform) UpdateFunction(ctx context.Context, spec nodeSpec) error { return errNotOnAWS }

func (p *awsPlatform) Function(ctx context.Context, network, name string) (functionStatus, error) {
	return functionStatus{}, errNotOnAWS
}

func (p *awsPlatform) Keep(ctx context.Context, spec nodeSpec, count int) ([]launch.Want, error) {
	return nil, errNotOnAWS
}

func (p *awsPlatform) Release(ctx context.Context, network, name string) (was int, err error) {
	return -1, errNotOnAWS
}

func (p *awsPlatform) DeleteFunction(ctx context.Context, network, name string) error {
	return errNotOnAWS
}
