// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

func (f *fakePlatform) Members(_ context.Context, network string) ([]cluster.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.networks[network]; !ok {
		return nil, errGone
	}
	return slices.Collect(maps.Values(f.members)), nil
}

func (f *fakePlatform) JoinToken(_ context.Context, network, slot, _ string, expires time.Time) (cluster.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.networks[network]; !ok {
		return cluster.Token{}, errGone
	}
	return cluster.NewToken([]byte("a secret for tests only"), cluster.Token{Network: network, Seeds: []string{"127.0.0.1:7"}, Slot: slot, Expires: expires})
}
