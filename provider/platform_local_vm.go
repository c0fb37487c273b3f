// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

func (p *localPlatform) StartVM(ctx context.Context, spec nodeSpec) (launch.Want, error) {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return launch.Want{}, err
	}
	defer client.Close()
	want := launch.Want{Slot: spec.Name, Token: launch.Token(), JoinOnly: spec.JoinOnly}
	node, err := spec.node(want)
	if err != nil {
		return want, err
	}
	// What is left of a dead host must not stand in the way of its successor.
	old, err := client.Host(ctx, spec.Name)
	switch {
	case errors.Is(err, localcloud.ErrNotFound):
	case err != nil:
		return want, err
	case old.State != localcloud.HostExited:
		return want, nameTaken(spec, "a host that runs since "+old.Started.Format(time.DateTime))
	default:
		if err := client.DeleteHost(ctx, spec.Name); err != nil {
			return want, err
		}
	}
	if err := p.slotFree(ctx, client, spec, want.Slot); err != nil {
		return want, err
	}
	if err := launcher(ctx, client).Unclaimed(ctx, want.Slot); err != nil {
		return want, err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	err = withSource(spec, func(dir string) error {
		_, err := client.CreateHost(ctx, localcloud.HostSpec{Config: node, SourceDir: dir, CodeSHA256: spec.CodeSHA256, Tags: spec.Tags})
		return err
	})
	if errors.Is(err, localcloud.ErrExists) {
		return want, nameTaken(spec, "another host")
	}
	return want, err
}

// withSource shows the directory that goes to /var/task to use, "" if there is
// none or it stays as it is.
func withSource(spec nodeSpec, use func(dir string) error) error {
	switch {
	case spec.KeepSource:
		return use("")
	case spec.Package == "":
		return use(spec.SourceDir)
	}
	dir, err := unpack(spec.Package)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return use(dir)
}

func (p *localPlatform) UpdateVM(ctx context.Context, spec nodeSpec, again bool) error {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return err
	}
	defer client.Close()
	node, err := spec.node(launch.Want{Slot: spec.Name})
	if err != nil {
		return err
	}
	ctx, cancel := step(ctx)
	defer cancel()
	err = withSource(spec, func(dir string) error {
		_, err := client.UpdateHost(ctx, localcloud.HostSpec{
			Config: node, SourceDir: dir, KeepSource: spec.KeepSource, CodeSHA256: spec.CodeSHA256, Tags: spec.Tags, Restart: again,
		})
		return err
	})
	return goneMeanwhile(err)
}

// goneMeanwhile: what the plan found is not there any more.
func goneMeanwhile(err error) error {
	if errors.Is(err, localcloud.ErrNotFound) {
		return &explained{err, "It ended after the plan: run terraform apply again, which makes it anew."}
	}
	return err
}

// VM fails with errGone when the host is not there or dead. A host dies with
// the daemon.
func (p *localPlatform) VM(ctx context.Context, network, name string) (vmStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	client, err := p.look(ctx, network)
	if err == nil && client == nil {
		err = errGone
	}
	if err != nil {
		return vmStatus{}, err
	}
	defer client.Close()
	host, err := client.Host(ctx, name)
	if errors.Is(err, localcloud.ErrNotFound) || err == nil && (host.State == localcloud.HostExited || host.Kind != config.KindVM) {
		return vmStatus{}, errGone
	}
	return vmStatus{LaunchID: host.LaunchID, Spec: specOf(host.Config, host.CodeSHA256, host.Tags)}, lookProblem(err)
}

// specOf is what a recorded configuration was made of. One that the command line
// made may leave the service to its default.
func specOf(n config.Node, code string, tags map[string]string) nodeSpec {
	return nodeSpec{
		Network: n.Network, Name: n.Name, Service: cmp.Or(n.Service, n.Name), Kind: n.Kind, Command: n.Argv,
		Environment: n.Env, Files: n.Files, Remap: n.Remap, WorkingDir: n.WorkingDir, User: n.User, Restart: n.Restart,
		CodeSHA256: code, WaitFor: n.WaitFor, Transports: n.Transports, Publish: n.Publish, Tags: tags,
	}
}

func (p *localPlatform) DeleteVM(ctx context.Context, network, name string) error {
	return p.remove(ctx, network, func(c *localcloud.Client) error { return c.DeleteHost(ctx, name) })
}

// remove runs one deletion; a network that is gone has nothing to delete.
func (p *localPlatform) remove(ctx context.Context, network string, deletion func(*localcloud.Client) error) error {
	store, err := p.store()
	if err != nil {
		return err
	}
	client, err := connectTo(ctx, store, network)
	if errors.Is(err, localcloud.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.Close()
	if err := deletion(client); err != nil && !errors.Is(err, localcloud.ErrNotFound) {
		return err
	}
	return nil
}
