// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

func (p *localPlatform) CreateFunction(ctx context.Context, spec nodeSpec) error {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := step(ctx)
	defer cancel()
	// Of a function that somebody else has deleted the controller does not know: it
	// would launch the new one for what was declared of the old one.
	if _, err := client.Function(ctx, spec.Name); errors.Is(err, localcloud.ErrNotFound) {
		if err := launch.Control(ctx, client.Info(), controller.MethodRemove, controller.Order{Name: spec.Name}, nil); err != nil {
			return fmt.Errorf("have the network's controller forget what was declared of a function %q before: %w", spec.Name, err)
		}
	}
	err = withFunction(spec, func(f localcloud.FunctionSpec) error {
		_, err := client.CreateFunction(ctx, f)
		return err
	})
	if errors.Is(err, localcloud.ErrExists) {
		return nameTaken(spec, "another function")
	}
	return err
}

// withFunction shows the function of a spec to use.
func withFunction(spec nodeSpec, use func(localcloud.FunctionSpec) error) error {
	node, err := spec.node(launch.Want{Slot: spec.Name})
	if err != nil {
		return err
	}
	return withSource(spec, func(dir string) error {
		return use(localcloud.FunctionSpec{
			Name: spec.Name, SourceDir: dir, KeepSource: spec.KeepSource, CodeSHA256: spec.CodeSHA256, Tags: spec.Tags, Config: &node,
			MemoryMB: spec.MemoryMB, EphemeralMB: spec.EphemeralMB, TimeoutS: spec.TimeoutS,
		})
	})
}

func (p *localPlatform) UpdateFunction(ctx context.Context, spec nodeSpec) error {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := step(ctx)
	defer cancel()
	err = withFunction(spec, func(f localcloud.FunctionSpec) error {
		_, err := client.UpdateFunction(ctx, f)
		return err
	})
	return goneMeanwhile(err)
}

func (p *localPlatform) StartReplica(ctx context.Context, spec nodeSpec, slot string) (launch.Want, error) {
	want := launch.Want{Slot: slot, Token: launch.Token(), Function: spec.Name, JoinOnly: spec.JoinOnly}
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return want, err
	}
	defer client.Close()
	node, err := spec.node(want)
	if err != nil {
		return want, err
	}
	if err := p.slotFree(ctx, client, spec, slot); err != nil {
		return want, err
	}
	node.Load = spec.Policy.Scale != nil
	ctx, cancel := step(ctx)
	defer cancel()
	return want, launcher(ctx, client).Function(ctx, spec.Name, node)
}

func (p *localPlatform) StopReplica(ctx context.Context, network, name, slot string) error {
	return p.remove(ctx, network, func(c *localcloud.Client) error { return c.StopInvocation(ctx, name, slot) })
}

// Function fails with errGone when the function is not there. A function
// survives the daemon; its replicas do not, and then nothing is known of it.
func (p *localPlatform) Function(ctx context.Context, network, name string) (functionStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	client, err := p.look(ctx, network)
	if err != nil || client == nil {
		return functionStatus{}, err
	}
	defer client.Close()
	f, err := client.Function(ctx, name)
	if errors.Is(err, localcloud.ErrNotFound) {
		return functionStatus{}, errGone
	}
	if err != nil {
		return functionStatus{}, lookProblem(err)
	}
	invocations, err := client.Invocations(ctx, name)
	if err != nil {
		return functionStatus{}, lookProblem(err)
	}
	declared, err := launch.Declared(f)
	if err != nil {
		return functionStatus{}, err
	}
	status := functionStatus{Kept: policyOf(declared)}
	if f.Config != nil {
		status.Spec = specOf(*f.Config, f.CodeSHA256, f.Tags)
		if status.Spec.MemoryMB = f.MemoryMB; len(f.CodeSHA256) == 64 { // the platform's own, of a function that was made without
			status.Spec.CodeSHA256 = ""
		}
		status.Spec.EphemeralMB, status.Spec.TimeoutS = f.EphemeralMB, f.TimeoutS
	}
	status.Running, status.Stale = runningSlots(invocations, f.Revision)
	return status, nil
}

// runningSlots are those of a function, and of them those whose launch is of another
// revision. A slot has two launches while one succeeds the other.
func runningSlots(invocations []localcloud.Invocation, revision int) (running, stale []string) {
	last := map[string]localcloud.Invocation{}
	for _, invocation := range invocations {
		if invocation.State != localcloud.InvocationRunning {
			continue
		}
		if _, twice := last[invocation.Slot]; !twice {
			running = append(running, invocation.Slot)
		}
		last[invocation.Slot] = invocation
	}
	for _, slot := range running {
		if last[slot].Revision != revision {
			stale = append(stale, slot)
		}
	}
	return running, stale
}

func (p *localPlatform) Keep(ctx context.Context, spec nodeSpec, count int) ([]launch.Want, error) {
	client, err := p.connect(ctx, spec.Network)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := step(ctx)
	defer cancel()
	node, err := spec.node(launch.Want{})
	if err != nil {
		return nil, err
	}
	d := spec.Policy.declaration()
	d.Name, d.Function, d.Node, d.Count, d.MemoryMB = spec.Name, spec.Name, node, count, spec.MemoryMB
	wants, err := launcher(ctx, client).Declare(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("declare the replicas to the network's controller: %w", err)
	}
	return wants, nil
}

func (p *localPlatform) Release(ctx context.Context, network, name string) (was int, err error) {
	was = -1
	err = p.remove(ctx, network, func(c *localcloud.Client) error {
		f, err := c.Function(ctx, name)
		if err != nil || f.Declared == nil {
			return err
		}
		ctx, cancel := step(ctx)
		defer cancel()
		if was, err = launcher(ctx, c).Remove(ctx, name, true); err != nil {
			return fmt.Errorf("take the replicas of %q from the network's controller: %w", name, err)
		}
		return nil
	})
	return was, err
}

func (p *localPlatform) DeleteFunction(ctx context.Context, network, name string) error {
	// Without its seed a network launches nothing, so it is no reason to stay.
	if _, err := p.Release(ctx, network, name); err != nil {
		tflog.Warn(ctx, "the network's controller was not told", map[string]any{"name": name, "error": err.Error()})
	}
	return p.remove(ctx, network, func(c *localcloud.Client) error { return c.DeleteFunction(ctx, name) })
}
