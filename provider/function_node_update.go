// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// drainTimeout is enough for replicas that leave: 20 s, and their guests' grace.
const drainTimeout = 30 * time.Second

// Update makes the running replicas those that are desired, slot by slot, and
// leaves alone what is as it should be.
func (r *functionNodeResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var state, plan functionNodeModel
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := context.WithCancel(ctx) // each replica has its own time
	defer cancel()
	again := isUnfinished(ctx, req.Private, &resp.Diagnostics)
	keep := plan.CodeSHA256.Equal(state.CodeSHA256) && !again
	if !keep {
		plan.checkSource(&resp.Diagnostics)
	}
	plan.decided()
	spec := plan.spec(ctx, &resp.Diagnostics)
	replicas := replicasOf(ctx, &state, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	spec.KeepSource = keep
	changes := again || plan.replicasChange(ctx, &state)
	resp.Diagnostics.Append(setUnfinished(ctx, resp.Private, changes)...)
	slots, err := r.change(ctx, spec, &plan, changes, changes || !plan.TagsAll.Equal(state.TagsAll) || !plan.Reserved.Equal(state.Reserved), replicas)
	if err != nil {
		addProblem(&resp.Diagnostics, "updating", functionKind, spec.Name, err)
		r.salvage(ctx, spec, &state)
		state.placeKnown(ctx, replicas, &resp.Diagnostics)
		resp.Diagnostics.Append(resp.State.Set(ctx, &state)...)
		return
	}
	resp.Diagnostics.Append(setUnfinished(ctx, resp.Private, false)...)
	if plan.RunningCount.IsUnknown() {
		plan.RunningCount = types.Int64Value(int64(len(slots)))
	}
	r.located(ctx, &plan)
	if plan.NodeIDs.IsUnknown() || !plan.owned() {
		r.complete(ctx, spec.Network, slots, replicas)
		plan.place(ctx, slots, replicas.members(slots), &resp.Diagnostics)
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &plan)...)
}

// salvage notes how many replicas a failed update left, and has them kept. What
// cannot be told or done now the next refresh and apply will.
func (r *functionNodeResource) salvage(ctx context.Context, spec nodeSpec, state *functionNodeModel) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	found, err := r.platform.Function(ctx, spec.Network, spec.Name)
	if err != nil {
		return
	}
	state.RunningCount = types.Int64Value(int64(len(found.Running)))
	count := 0
	for i, slot := range launch.Slots(spec.Name, spec.Policy.clamp(controller.MaxCount)) {
		if slices.Contains(found.Running, slot) {
			count = i + 1
		}
	}
	if count == 0 || found.Kept != nil {
		return
	}
	if spec.Policy.owned() {
		count = spec.Policy.clamp(count)
	}
	if _, err := r.platform.Keep(ctx, spec, count); err != nil {
		tflog.Warn(ctx, "the replicas that run are not kept", map[string]any{"name": spec.Name, "error": err.Error()})
	}
}

// change makes the function what spec says, if it is not, and then its replicas,
// if another guest or another number of them is wanted. It returns their slots.
func (r *functionNodeResource) change(ctx context.Context, spec nodeSpec, plan *functionNodeModel, guest, differs bool, replicas replicas) ([]string, error) {
	found, err := r.platform.Function(ctx, spec.Network, spec.Name)
	if err != nil {
		return nil, err
	}
	count := len(found.Running)
	differs = differs || found.AWS != nil && found.AWS.Unrecorded
	guest = guest || found.Kept == nil || !spec.Policy.owned() && found.Kept.Count != spec.Policy.Count
	if guest { // meanwhile the controller must not launch what is being replaced
		was, err := r.platform.Release(ctx, spec.Network, spec.Name)
		if err != nil {
			return nil, err
		}
		if was >= 0 {
			count = was
		}
	}
	if differs {
		if err := r.platform.UpdateFunction(ctx, spec); err != nil {
			return nil, err
		}
	}
	timely := func() (context.Context, context.CancelFunc) {
		return within(on(ctx, r.platform), plan.Timeouts, opUpdate)
	}
	wanted := spec.Policy.slotsOf(spec.Name, count)
	switch {
	case guest:
		return wanted, r.replace(ctx, timely, spec, wanted, replicas)
	case !found.Kept.equal(spec.Policy):
		return r.resize(timely, spec, found.Running, replicas)
	}
	return wanted, nil
}

// replace makes the replicas those of the function's present configuration, and
// has them kept.
func (r *functionNodeResource) replace(ctx context.Context, timely func() (context.Context, context.CancelFunc), spec nodeSpec, wanted []string, replicas replicas) error {
	found, err := r.platform.Function(ctx, spec.Network, spec.Name)
	if err != nil {
		return err
	}
	if err := r.stopOthers(ctx, spec, found.Running, wanted); err != nil {
		return err
	}
	// One after another: the others go on meanwhile.
	for _, slot := range found.Stale {
		if !slices.Contains(wanted, slot) {
			continue
		}
		if err := r.renew(timely, spec, slot, replicas); err != nil {
			return err
		}
	}
	var missing []string
	for _, slot := range wanted {
		if !slices.Contains(found.Running, slot) {
			missing = append(missing, slot)
		}
	}
	ctx, cancel := timely()
	defer cancel()
	started, err := r.startReplicas(ctx, spec, missing)
	if err != nil {
		r.stopReplicas(ctx, spec, missing)
		return err
	}
	replicas.add(started)
	_, err = r.platform.Keep(ctx, spec, len(wanted))
	return err
}

// resize tells the controller another policy, and waits for what it makes of the
// number of replicas. Those that stay are left alone.
func (r *functionNodeResource) resize(timely func() (context.Context, context.CancelFunc), spec nodeSpec, running []string, replicas replicas) ([]string, error) {
	ctx, cancel := timely()
	defer cancel()
	ctx, stop := r.platform.Watching(ctx, spec.Network)
	defer stop()
	wants, err := r.platform.Keep(ctx, spec, -1)
	if err != nil {
		return nil, err
	}
	var slots []string
	var missing []launch.Want
	for _, want := range wants {
		slots = append(slots, want.Slot)
		if !slices.Contains(running, want.Slot) {
			want.JoinOnly = spec.JoinOnly
			missing = append(missing, want)
		}
	}
	if len(missing) > 0 {
		started, err := r.platform.Await(ctx, spec.Network, missing)
		if err != nil {
			return nil, err
		}
		replicas.add(started)
	}
	return slots, r.awaitDrained(ctx, spec, slots)
}

// awaitDrained waits until those that are too many have left: they let their
// connections end first. Who does not is stopped.
func (r *functionNodeResource) awaitDrained(ctx context.Context, spec nodeSpec, wanted []string) error {
	for end := time.Now().Add(drainTimeout); ; {
		found, err := r.platform.Function(ctx, spec.Network, spec.Name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(found.Running, func(slot string) bool { return !slices.Contains(wanted, slot) }) {
			return nil
		}
		if time.Now().After(end) {
			return r.stopOthers(ctx, spec, found.Running, wanted)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stopOthers stops the replicas that are too many.
func (r *functionNodeResource) stopOthers(ctx context.Context, spec nodeSpec, running, wanted []string) error {
	for _, slot := range running {
		if slices.Contains(wanted, slot) {
			continue
		}
		if err := r.platform.StopReplica(ctx, spec.Network, spec.Name, slot); err != nil {
			return err
		}
	}
	return nil
}

// renew replaces one replica by one of the function's present configuration.
func (r *functionNodeResource) renew(timely func() (context.Context, context.CancelFunc), spec nodeSpec, slot string, replicas replicas) error {
	ctx, cancel := timely()
	defer cancel()
	if err := r.platform.StopReplica(ctx, spec.Network, spec.Name, slot); err != nil {
		return err
	}
	started, err := r.startReplicas(ctx, spec, []string{slot})
	if err != nil {
		r.stopReplicas(ctx, spec, []string{slot})
		return err
	}
	replicas.add(started)
	return nil
}
