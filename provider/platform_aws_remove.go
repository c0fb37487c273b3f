// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// DeleteFunction lets nobody be launched any more, has the replicas leave, and removes
// the function. Without a seed nobody can ask them: they leave when their time is over.
func (p *awsPlatform) DeleteFunction(ctx context.Context, network, name string) error {
	n, err := p.cloud.Network(ctx, network)
	if errors.Is(err, cloud.ErrNotFound) { // what it was called cannot be told any more
		n, err = &cloud.Network{Name: network, Prefix: cloud.DefaultPrefix}, nil
	}
	if err != nil {
		return err
	}
	found, err := p.cloud.FindFunction(ctx, n.FunctionName(name))
	switch {
	case errors.Is(err, cloud.ErrNotFound):
	case err != nil:
		return err
	case found.Tags[cloud.TagNetwork] != network || found.Tags[cloud.TagNode] != name:
		return p.cloud.DeleteNode(ctx, network, name) // another one has the name
	default:
		if err := p.cloud.HaltFunction(ctx, n.FunctionName(name)); err != nil {
			return err
		}
		if err := p.drain(ctx, n, name); err != nil {
			tflog.Warn(ctx, "replicas may go on until their time is over", map[string]any{"name": name, "error": err.Error()})
		}
	}
	return p.removeFunction(ctx, n, name)
}

// drain has the controller forget a function and its replicas leave, and waits for them.
func (p *awsPlatform) drain(ctx context.Context, n *cloud.Network, name string) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	session, err := p.watch(ctx, n)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := launch.ControlBy(ctx, session, controller.MethodRemove, controller.Order{Name: name}, nil); err != nil {
		return err
	}
	for _, m := range replicasIn(session.Members(), name) { // those that nobody kept
		if err := launch.ControlBy(ctx, session, controller.MethodStop, controller.Slot{Slot: m.Slot}, nil); err != nil {
			return err
		}
	}
	for len(replicasIn(session.Members(), name)) > 0 {
		select {
		case <-session.Changed():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// removeFunction removes what a function node consists of.
func (p *awsPlatform) removeFunction(ctx context.Context, n *cloud.Network, name string) error {
	progress := func(left int, waited time.Duration) {
		tflog.Info(ctx, "waiting for AWS to remove the network interfaces of a function", map[string]any{"name": name, "left": left, "waited": waited.String()})
	}
	if err := p.cloud.DeleteFunction(ctx, n.FunctionName(name), n.LogGroup(name), progress); err != nil {
		return err
	}
	return p.cloud.DeleteNode(ctx, n.Name, name)
}
