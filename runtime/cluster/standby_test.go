// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"testing"
)

// standsIn are the options of a function that stands in for a VM node's slot.
func standsIn(o Options, token string) Options {
	o.Hello.Kind, o.Hello.LaunchToken, o.Hello.Standby = "function", token, true
	return o
}

func vmOf(o Options, token string) Options {
	o.Hello.Kind, o.Hello.LaunchToken = "vm", token
	return o
}

// TestANodeFollowsItsStandby: who comes back has the slot as soon as it runs, and
// its standby until then.
func TestANodeFollowsItsStandby(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	watcher := join(t, seed.options("watcher"))
	home := join(t, vmOf(seed.options("zk-3"), "home"))
	runs(t, home)
	if _, err := Join(t.Context(), standsIn(seed.options("zk-3"), "early")); !errors.Is(err, ErrNameTaken) {
		t.Errorf("a standby, while its node answers, gets %v", err)
	}
	home.Close()
	is(t, watcher, home.Self().ID, "lost")

	spare := join(t, standsIn(seed.options("zk-3"), "spare"))
	if m := spare.Self(); m.OverlayAddress != home.Self().OverlayAddress || !m.Standby {
		t.Fatalf("the standby of %+v is %+v", home.Self(), m)
	}
	is(t, watcher, spare.Self().ID, "holder")

	// The very launch of before, which was taken for dead.
	back := join(t, vmOf(seed.options("zk-3"), "home"))
	is(t, watcher, back.Self().ID, "successor")
	is(t, watcher, spare.Self().ID, "holder")
	if _, err := Join(t.Context(), vmOf(seed.options("zk-3"), "rival")); !errors.Is(err, ErrNameTaken) {
		t.Errorf("another that comes back gets %v", err)
	}
	runs(t, back)
	is(t, watcher, back.Self().ID, "holder")
	is(t, watcher, spare.Self().ID, "retired")
	if err := spare.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	is(t, watcher, spare.Self().ID, "absent")
	is(t, watcher, back.Self().ID, "holder")
	if _, err := Join(t.Context(), standsIn(seed.options("zk-3"), "spare")); !errors.Is(err, ErrRefused) {
		t.Errorf("a repeated event of the standby gets %v", err)
	}
}

// TestANodeFollowsAStandbyThatStarts, or that is lost.
func TestANodeFollowsAStandbyThatStarts(t *testing.T) {
	seed := startSeed(t, testOptions(t), "127.0.0.1:0")
	watcher := join(t, seed.options("watcher"))
	spare := join(t, standsIn(seed.options("zk-3"), "one"))
	back := join(t, vmOf(seed.options("zk-3"), "back"))
	is(t, watcher, back.Self().ID, "successor")
	runs(t, back)
	is(t, watcher, back.Self().ID, "holder")
	if err := spare.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := back.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}

	spare = join(t, standsIn(seed.options("zk-3"), "two"))
	spare.Close()
	is(t, watcher, spare.Self().ID, "lost")
	back = join(t, vmOf(seed.options("zk-3"), "back again"))
	is(t, watcher, back.Self().ID, "holder")
	is(t, watcher, spare.Self().ID, "absent")
}
