// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"

	"github.com/boxer-overlay/boxer/runtime/launch"
)

func (p *awsPlatform) StartVM(ctx context.Context, spec nodeSpec) (launch.Want, error) {
	return launch.Want{}, errNotOnAWS
}

func (p *awsPlatform) UpdateVM(ctx context.Context, spec nodeSpec, again bool) error {
	return errNotOnAWS
}

func (p *awsPlatform) VM(ctx context.Context, network, name string) (vmStatus, error) {
	return vmStatus{}, errNotOnAWS
}

func (p *awsPlatform) DeleteVM(ctx context.Context, network, name string) error { return errNotOnAWS }
