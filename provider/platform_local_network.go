// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

func (p *localPlatform) CreateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error) {
	var info localcloud.NetworkInfo
	err := withLayer(p.layers, func(rt localcloud.Runtime) error {
		store, err := p.open(rt)
		if err != nil {
			return err
		}
		made := localcloud.NetworkSpec{
			Name: spec.Name, CIDR: spec.CIDR, Port: spec.Port, Seeds: spec.Seeds, Isolation: p.isolation,
			Version: spec.RuntimeVersion, SecretVersion: spec.SecretVersion, Tags: spec.Tags,
		}
		if spec.Secret != "" {
			made.Secret = []byte(spec.Secret)
		}
		info, err = store.CreateNetwork(ctx, made)
		if errors.Is(err, localcloud.ErrExists) {
			return networkExists(spec.Name, store.Dir())
		}
		return err
	})
	return statusOf(info), err
}

func (p *localPlatform) Network(_ context.Context, name string) (networkStatus, error) {
	store, err := p.store()
	if err != nil {
		return networkStatus{}, err
	}
	info, err := store.Network(name)
	if errors.Is(err, localcloud.ErrNotFound) {
		return networkStatus{}, errGone
	}
	return statusOf(info), err
}

func statusOf(info localcloud.NetworkInfo) networkStatus {
	if info.Version == "" && len(info.Runtime) > 12 { // made by the command line, or an earlier version
		info.Version = "sha256-" + info.Runtime[:12]
	}
	return networkStatus{
		CIDR: info.CIDR, Port: info.Port, Tags: info.Tags, SecretVersion: info.SecretVersion, RuntimeVersion: info.Version,
		SeedEndpoints: info.SeedEndpoints,
		SecretRef:     "file:" + info.SecretFile,
		Notice:        info.Notice,
	}
}

func (p *localPlatform) UpdateNetwork(ctx context.Context, spec networkSpec) (networkStatus, error) {
	store, err := p.store()
	if err != nil {
		return networkStatus{}, err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	info, err := store.UpdateNetwork(ctx, spec.Name, func(info *localcloud.NetworkInfo) { info.Tags = spec.Tags })
	return statusOf(info), goneMeanwhile(err)
}

func (p *localPlatform) DeleteNetwork(ctx context.Context, name string) error {
	store, err := p.store()
	if err != nil {
		return err
	}
	if err := store.DeleteNetwork(ctx, name); err != nil && !errors.Is(err, localcloud.ErrNotFound) {
		return err
	}
	return nil
}
