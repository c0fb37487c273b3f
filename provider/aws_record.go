// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// awsRecord is what is kept on AWS of a node: what reading and importing it tell.
type awsRecord struct {
	Spec     nodeSpec `json:"spec"`
	CodeSent string   `json:"code_sent,omitempty"` // functions: Lambda's hash of what was sent
	Stale    []string `json:"stale,omitempty"`     // functions: launches of earlier configurations
	Kept     *policy  `json:"kept,omitempty"`      // functions: what the controller was told

	Tags map[string]string `json:"-"` // the user's; the parameter has them
}

// kept is a spec without what is about one apply.
func (s nodeSpec) kept() nodeSpec {
	s.SourceDir, s.KeepSource, s.JoinOnly, s.Policy, s.Tags = "", false, false, policy{}, nil
	if _, remote, _ := parseS3(s.Package); !remote {
		s.Package = ""
	}
	return s
}

// keepRecord writes the record of a node.
func (p *awsPlatform) keepRecord(ctx context.Context, spec nodeSpec, r awsRecord) error {
	r.Spec = spec.kept()
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of node %q: %w", spec.Name, err)
	}
	return p.cloud.PutNode(ctx, spec.Network, spec.Name, text, spec.Tags)
}

// recordOf reads it back. found is false where there is none.
func (p *awsPlatform) recordOf(ctx context.Context, network, name string) (r awsRecord, found bool, err error) {
	text, tags, err := p.cloud.Node(ctx, network, name)
	if errors.Is(err, cloud.ErrNotFound) {
		return r, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	r.Tags = tags
	return r, err == nil, err
}

// networkFor is the network that a node is made in.
func (p *awsPlatform) networkFor(ctx context.Context, name string) (*cloud.Network, error) {
	n, err := p.record(ctx, name)
	if errors.Is(err, errGone) {
		return nil, &explained{fmt.Errorf("network %q does not exist in %s", name, p.cloud.Region),
			"Run terraform plan again: it will propose to create what is missing."}
	}
	return n, err
}

// awsTaken says that something has the node's name already, and could be imported.
func awsTaken(spec nodeSpec, what string) error {
	return &explained{
		fmt.Errorf("name %q is taken in network %q by %s, which this resource did not create", spec.Name, spec.Network, what),
		fmt.Sprintf("Import it with \"terraform import ADDRESS %s,%s\" (ADDRESS is this resource's), destroy it where it was made, or choose another name.",
			spec.Network, spec.Name)}
}

// watch shows who is in the network, with the network's own secret.
func (p *awsPlatform) watch(ctx context.Context, n *cloud.Network) (*cluster.Session, error) {
	secret, err := p.cloud.Secret(ctx, n.Name)
	if err != nil {
		return nil, err
	}
	session, err := cluster.Observe(ctx, cluster.Options{Network: n.Name, Secret: secret, Seeds: n.Endpoints})
	if err != nil {
		return nil, seedsOnAWS(n, err)
	}
	return session, nil
}

// seedsBoot is how long the seeds of a network that was just made may take to answer.
const seedsBoot = 2 * time.Minute

// watchSoon is watch for what cannot be done without a seed: those of a new network are
// still booting.
func (p *awsPlatform) watchSoon(ctx context.Context, n *cloud.Network) (*cluster.Session, error) {
	for end := time.Now().Add(seedsBoot); ; {
		session, err := p.watch(ctx, n)
		passing := errors.Is(err, cluster.ErrUnreachable) || errors.Is(err, cluster.ErrDisconnected)
		if err == nil || !passing || time.Now().After(end) {
			return session, err
		}
		tflog.Info(ctx, "waiting for the network's seeds", map[string]any{"network": n.Name, "error": err.Error()})
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(p.cloud.Pause):
		}
	}
}

// seedsOnAWS explains why the members of a network on AWS cannot be seen.
func seedsOnAWS(n *cloud.Network, err error) error {
	if !errors.Is(err, cluster.ErrUnreachable) && !errors.Is(err, cluster.ErrDisconnected) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &explained{fmt.Errorf("the seeds of network %q do not answer at %v: %w", n.Name, n.Endpoints, err),
		"Check that this machine may reach them (seed.ingress_cidrs), and that their instances run: \"aws ec2 describe-instances --filters " +
			"Name=tag:" + cloud.TagNetwork + ",Values=" + n.Name + "\"."}
}

// tell asks the controller of a network, of the seed that leads.
func (p *awsPlatform) tell(ctx context.Context, n *cloud.Network, method string, in, out any) error {
	session, err := p.watchSoon(ctx, n)
	if err != nil {
		return err
	}
	defer session.Close()
	return launch.ControlBy(ctx, session, method, in, out)
}

// slotFreeOnAWS waits until no live member holds the slot: one that was just ended may
// still be counted for a moment. It also proves that a seed answers before anything is made.
func (p *awsPlatform) slotFreeOnAWS(outer context.Context, n *cloud.Network, spec nodeSpec, slot string) error {
	session, err := p.watchSoon(outer, n)
	if err != nil {
		return err
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(outer, handOverTimeout)
	defer cancel()
	for {
		holder, held := liveHolder(session.Members(), slot)
		if !held {
			return nil
		}
		select {
		case <-session.Changed():
		case <-ctx.Done():
			if err := outer.Err(); err != nil {
				return err // interrupted
			}
			named := spec
			named.Name = slot
			return awsTaken(named, fmt.Sprintf("node %d (%s, running since %s)", holder.ID, holder.Kind, holder.Since.Format(time.DateTime)))
		}
	}
}

// unclaimed is an error if a slot is kept for the replica of a function node.
func (p *awsPlatform) unclaimed(ctx context.Context, n *cloud.Network, slot string) error {
	session, err := p.watch(ctx, n)
	if err != nil {
		return nil // the seeds will say so at the join
	}
	defer session.Close()
	return launch.Unclaimed(ctx, session, slot)
}

// left waits until a member that was asked to leave has, or ctx ends.
func left(ctx context.Context, session *cluster.Session, events <-chan cluster.Event, id uint32) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, open := <-events:
			switch {
			case !open:
				return session.Err()
			case ev.Member.ID == id && (ev.Type == cluster.EventLeave || ev.Member.State == cluster.StateLost || ev.Member.State == cluster.StateLeft):
				return nil
			}
		}
	}
}

// sendAway has the holder of a slot leave, and waits for it.
func (p *awsPlatform) sendAway(ctx context.Context, n *cloud.Network, slot string) error {
	session, err := p.watch(ctx, n)
	if err != nil {
		return err
	}
	defer session.Close()
	events, stop := session.Subscribe()
	defer stop()
	holder, held := liveHolder(session.Members(), slot)
	if !held {
		return nil
	}
	if err := launch.ControlBy(ctx, session, controller.MethodStop, controller.Slot{Slot: slot}, nil); err != nil {
		return fmt.Errorf("have %s leave: %w", slot, err)
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := left(ctx, session, events, holder.ID); err != nil {
		return fmt.Errorf("wait until %s has left: %w", slot, err)
	}
	return nil
}
