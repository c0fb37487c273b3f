// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

func (f *fakePlatform) Members(_ context.Context, network string) ([]cluster.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.networks[network]; !ok {
		return nil, errGone
	}
	return nil, nil
}
