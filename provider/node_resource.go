// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// unfinishedKey is where private state notes that an update failed half-way: the
// next plan proposes it again, whatever the attributes say.
const unfinishedKey = "unfinished"

func setUnfinished(ctx context.Context, private privateWriter, unfinished bool) diag.Diagnostics {
	if unfinished {
		return private.SetKey(ctx, unfinishedKey, []byte("true"))
	}
	return private.SetKey(ctx, unfinishedKey, []byte("false"))
}

func isUnfinished(ctx context.Context, private privateReader, diags *diag.Diagnostics) bool {
	value, d := private.GetKey(ctx, unfinishedKey)
	diags.Append(d...)
	return string(value) == "true"
}

// addLookProblem reports that something could not be read. What cannot be asked
// now is no error: the state stays what it was.
func addLookProblem(diags *diag.Diagnostics, kind, name string, err error) {
	if !errors.Is(err, errUnreachable) {
		addProblem(diags, "reading", kind, name, err)
		return
	}
	cause := strings.TrimPrefix(detail(err), errUnreachable.Error()+": ")
	diags.AddWarning(fmt.Sprintf("reading %s (%s)", kind, name),
		cause+"\n\nTerraform goes on with what it knew of it. Nothing is made again because of this.")
}

// importNode reads network and name from an import's id.
func importNode(ctx context.Context, kind string, req resource.ImportStateRequest, resp *resource.ImportStateResponse) (network, name string, ok bool) {
	network, name, found := strings.Cut(req.ID, ",")
	if !found || network == "" || name == "" || strings.Contains(name, ",") {
		resp.Diagnostics.AddError("importing "+kind,
			fmt.Sprintf("%q does not say which: write the network and the name of the node, separated by a comma, such as shop,store.", req.ID))
		return "", "", false
	}
	for attribute, value := range map[string]string{"id": req.ID, "network_id": network, "name": name} {
		resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(attribute), value)...)
	}
	return network, name, !resp.Diagnostics.HasError()
}

// addImportProblem reports why a node cannot be imported.
func addImportProblem(diags *diag.Diagnostics, kind, network, name string, err error) {
	if errors.Is(err, errGone) {
		err = &explained{
			fmt.Errorf("network %q has no running %s of that name", network, map[string]string{vmKind: "VM node", functionKind: "function node"}[kind]),
			fmt.Sprintf("\"boxer nodes --network %s\" lists what it has. What is not there needs no import: apply makes it.", network),
		}
	}
	addProblem(diags, "importing", kind, network+","+name, err)
}

// settle fills in slots, ids and addresses where the state does not have them,
// after an import. Only this asks the overlay.
func (m *nodeModel) settle(ctx context.Context, p platform, slots []string, diags *diag.Diagnostics) {
	if !m.Slots.IsNull() && !m.NodeIDs.IsNull() && len(m.NodeIDs.Elements()) == len(m.Slots.Elements()) {
		return
	}
	members, err := p.Members(ctx, m.NetworkID.ValueString())
	if err != nil {
		diags.AddWarning(fmt.Sprintf("reading node %s", m.Name.ValueString()),
			"Its ids and overlay addresses are not known now. "+detail(err))
	}
	var found []cluster.Member
	for _, slot := range slots {
		for _, member := range members {
			if member.Slot == slot && member.Holds() {
				found = append(found, member)
			}
		}
	}
	if len(found) < len(slots) {
		found = nil
	}
	m.place(ctx, slots, found, diags)
}

// planTags plans tags_all.
func (m *nodeModel) planTags(ctx context.Context, p platform, diags *diag.Diagnostics) {
	m.TagsAll = allTags(ctx, m.Tags, settingsOf(p).defaultTags, diags)
}

// known: nothing of these values is open any more.
func known(values ...interface{ IsUnknown() bool }) bool {
	for _, value := range values {
		if value.IsUnknown() {
			return false
		}
	}
	return true
}

// guestChanges says whether an update of old to new starts the guest again. What
// is not known yet may do so.
func (m *nodeModel) guestChanges(ctx context.Context, old *nodeModel, kind string) bool {
	if !known(m.Service, m.Command, m.Environment, m.WorkingDir, m.User, m.Files, m.Remap, m.WaitFor, m.Restart, m.Publish, m.Transports, m.CodeSHA256) {
		return true
	}
	var ignored diag.Diagnostics // an element that is not known yet
	one, other := m.spec(ctx, kind, &ignored), old.spec(ctx, kind, &ignored)
	return ignored.HasError() || !one.sameGuest(other)
}

var unknownIDs = types.ListUnknown(types.Int64Type)
