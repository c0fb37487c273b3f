// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"net/netip"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// replicas are the members that fill a function's slots, by slot. Of those that
// an earlier apply started only the id and the overlay address are known.
type replicas map[string]cluster.Member

// replicasOf reads the replicas back from state.
func replicasOf(ctx context.Context, state *functionNodeModel, diags *diag.Diagnostics) replicas {
	var slots, addresses []string
	var ids []int64
	diags.Append(state.Slots.ElementsAs(ctx, &slots, false)...)
	diags.Append(state.OverlayAddresses.ElementsAs(ctx, &addresses, false)...)
	diags.Append(state.NodeIDs.ElementsAs(ctx, &ids, false)...)
	known := replicas{}
	for i, slot := range slots {
		if i >= len(ids) || i >= len(addresses) {
			break // an apply was interrupted before these joined
		}
		address, err := netip.ParseAddr(addresses[i])
		if err != nil {
			continue
		}
		known[slot] = cluster.Member{ID: uint32(ids[i]), Slot: slot, OverlayAddress: address}
	}
	return known
}

func (r replicas) add(started []cluster.Member) {
	for _, member := range started {
		r[member.Slot] = member
	}
}

func (r replicas) members(slots []string) []cluster.Member {
	members := make([]cluster.Member, 0, len(slots))
	for _, slot := range slots {
		member, ok := r[slot]
		if !ok {
			return nil // the next refresh finds it
		}
		members = append(members, member)
	}
	return members
}

// complete adds the replicas that the controller launched: Terraform did not see
// them join.
func (r *functionNodeResource) complete(ctx context.Context, network string, slots []string, replicas replicas) {
	if !slices.ContainsFunc(slots, func(slot string) bool { return !replicas[slot].OverlayAddress.IsValid() }) {
		return
	}
	members, err := r.platform.Members(ctx, network)
	if err != nil {
		tflog.Warn(ctx, "who has the slots is not known now", map[string]any{"network": network, "error": err.Error()})
	}
	for _, member := range members {
		if _, have := replicas[member.Slot]; !have && member.Holds() {
			replicas[member.Slot] = member
		}
	}
}

// placeKnown notes the replicas that an update had replaced before it failed.
func (m *functionNodeModel) placeKnown(ctx context.Context, r replicas, diags *diag.Diagnostics) {
	var slots []string
	diags.Append(m.Slots.ElementsAs(ctx, &slots, false)...)
	for _, slot := range slots {
		if _, ok := r[slot]; !ok {
			return // an apply was interrupted before it joined
		}
	}
	m.place(ctx, slots, r.members(slots), diags)
}

func launchID(want launch.Want) string { return cluster.LaunchID(want.Token) }

// startReplicas launches all slots, then waits for all of them.
func (r *functionNodeResource) startReplicas(ctx context.Context, spec nodeSpec, slots []string) ([]cluster.Member, error) {
	if len(slots) == 0 {
		return nil, nil
	}
	ctx, stop := r.platform.Watching(ctx, spec.Network)
	defer stop()
	wants := make([]launch.Want, 0, len(slots))
	for _, slot := range slots {
		want, err := r.platform.StartReplica(ctx, spec, slot)
		if err != nil {
			return nil, err
		}
		wants = append(wants, want)
	}
	return r.platform.Await(ctx, spec.Network, wants)
}

// stopReplicas takes back a failed scale-up. What cannot be stopped shows in
// running_count, and the next apply stops it.
func (r *functionNodeResource) stopReplicas(ctx context.Context, spec nodeSpec, slots []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, slot := range slots {
		if err := r.platform.StopReplica(ctx, spec.Network, spec.Name, slot); err != nil {
			tflog.Warn(ctx, "a replica could not be stopped", map[string]any{"slot": slot, "error": err.Error()})
		}
	}
}
