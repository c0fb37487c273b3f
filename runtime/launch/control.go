// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// controlPatience is how long a network may take to have a leading seed.
const controlPatience = 10 * time.Second

// Control asks the controller of the network: one of the calls of package
// controller, of the seed that leads.
func Control(ctx context.Context, network localcloud.NetworkInfo, method string, in, out any) error {
	session, err := Observe(ctx, network)
	if err != nil {
		return err
	}
	defer session.Close()
	return ControlBy(ctx, session, method, in, out)
}

// ControlBy is Control by a session that there is.
func ControlBy(ctx context.Context, session *cluster.Session, method string, in, out any) error {
	for end := time.Now().Add(controlPatience); ; {
		err := CallLeader(ctx, session, method, in, out)
		passing := cluster.Passing(err) || errors.Is(err, cluster.ErrNoSuchNode) || errors.Is(err, cluster.ErrDisconnected)
		if err == nil || !passing || time.Now().After(end) {
			return plainly(err)
		}
		select {
		case <-ctx.Done():
			return plainly(err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// plainly is what the controller said, without how it was asked.
func plainly(err error) error {
	var remote *cluster.RemoteError
	if errors.As(err, &remote) {
		return remote
	}
	return err
}

// CallLeader asks the controller once, by a session that there is.
func CallLeader(ctx context.Context, session *cluster.Session, method string, in, out any) error {
	return session.CallLeader(ctx, method, in, out)
}

// Declare has the controller keep a function node, and says what to wait for.
func (l *Launcher) Declare(ctx context.Context, d controller.Declaration) ([]Want, error) {
	d.Node = l.Client.FunctionConfig(d.Node)
	d.Node.LaunchToken = ""
	var view controller.View
	if err := Control(ctx, l.Network, controller.MethodDeclare, d, &view); err != nil {
		return nil, err
	}
	d.Node, d.Count = config.Node{}, view.Count
	if d.Max > 0 || d.StandbyFor != "" {
		d.Count = -1 // it is the controller's
	}
	return Wants(d.Function, view), l.note(ctx, d)
}

// note has the platform remember what is declared of a function's replicas: who
// looks need not ask the network. The launch event it knows.
func (l *Launcher) note(ctx context.Context, d controller.Declaration) error {
	declared, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return l.Client.SetDeclared(ctx, d.Function, declared)
}

// Declared is what note noted of a function; nil: nothing is declared.
func Declared(f localcloud.Function) (*controller.Declaration, error) {
	if f.Declared == nil {
		return nil, nil
	}
	var d controller.Declaration
	if err := json.Unmarshal(f.Declared, &d); err != nil {
		return nil, fmt.Errorf("function %q: what is noted of its replicas: %w", f.Name, err)
	}
	return &d, nil
}

// Scale gives a node that the controller keeps another number of replicas. controller.ErrNotDeclared: it
// keeps none of that name.
func (l *Launcher) Scale(ctx context.Context, name string, count int, why string) (r controller.Resized, err error) {
	if err := Control(ctx, l.Network, controller.MethodScale, controller.Resize{Name: name, Count: count, Why: why}, &r); err != nil {
		return r, err
	}
	return r, l.noteCount(ctx, name, r.View)
}

// Wants are the last launches of a declared node, to wait for.
func Wants(function string, view controller.View) []Want {
	var all []Want
	for _, s := range view.Slots {
		all = append(all, Want{Slot: s.Slot, ID: s.LaunchID, Function: function, Kept: true})
	}
	return all
}

// noteCount notes a number that is not the controller's own to move.
func (l *Launcher) noteCount(ctx context.Context, name string, v controller.View) error {
	if v.Max > 0 || v.Standby != "" {
		return nil
	}
	f, err := l.Client.Function(ctx, name)
	if err != nil {
		return err
	}
	d, err := Declared(f)
	if err != nil || d == nil {
		return err
	}
	d.Count = v.Count
	return l.note(ctx, *d)
}

// Remove has the controller keep a function node no longer. Its replicas leave,
// or stay as they are. It says how many there were to be, -1 if it kept none.
func (l *Launcher) Remove(ctx context.Context, name string, stay bool) (was int, err error) {
	view := controller.View{Count: -1}
	err = Control(ctx, l.Network, controller.MethodRemove, controller.Order{Name: name, Stay: stay}, &view)
	if err != nil {
		return -1, err
	}
	return view.Count, l.Client.SetDeclared(ctx, name, nil)
}
