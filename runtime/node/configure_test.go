// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// TestAnotherConfiguration: a VM node on AWS runs what a seed passes on, under its id
// and address, and has the files of its document. One of another platform refuses.
func TestAnotherConfiguration(t *testing.T) {
	w := newWorld(t)
	aws := func(task *nodeTask) { task.OnAWS = true }
	dir := t.TempDir()
	conf := filepath.Join(dir, "etc", "shop.conf")
	guest := func(word string) config.Node {
		return config.Node{Kind: config.KindVM, Slot: "store", LaunchToken: strings.Repeat("a", 32), Env: map[string]string{"WORD": word},
			Argv:  []string{"sh", "-c", "echo $WORD $(cat " + conf + "); exec sleep 60"},
			Files: map[string]string{conf: "file-" + word}}
	}
	store := w.start(guest("one"), aws)
	w.start(config.Node{Kind: config.KindVM, Slot: "other", Argv: []string{"sleep", "60"}})
	before := w.member("store", in(cluster.StateRunning))
	w.member("other", in(cluster.StateRunning))
	seed := w.member("seed-0", in(cluster.StateRunning))
	ask := func(method string, s controller.Slot) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return w.watch.Call(ctx, seed.ID, method, s, nil)
	}
	next := guest("two")
	next.LaunchToken, next.SecretRef, next.Slot = "", "", "elsewhere" // these are the node's own
	if err := ask(controller.MethodConfigure, controller.Slot{Slot: "store", Node: &next}); err != nil {
		t.Fatal(err)
	}
	after := w.member("store", func(m cluster.Member) bool { return m.State == cluster.StateRunning && m.Guest.PID != before.Guest.PID })
	if after.ID != before.ID || after.OverlayAddress != before.OverlayAddress || store.output() != "one file-one\ntwo file-two" {
		t.Errorf("%+v after %+v, says %q", after, before, store.output())
	}
	if info, err := os.Stat(conf); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", info, err)
	}
	for _, tt := range []struct {
		slot controller.Slot
		want string
	}{
		{controller.Slot{Slot: "other", Node: &next}, "configure"},
		{controller.Slot{Slot: "nobody", Node: &next}, `nobody holds slot "nobody"`},
		{controller.Slot{Slot: "store"}, "no configuration"},
		{controller.Slot{Slot: "store", Node: &config.Node{}}, "no command"},
	} {
		if err := ask(controller.MethodConfigure, tt.slot); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.slot, err, tt.want)
		}
	}
	// Who is asked directly answers to seeds only.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.watch.Call(ctx, after.ID, controller.ConfigureMethod, next, nil); err == nil || !strings.Contains(err.Error(), "no seed") {
		t.Errorf("changed by an observer: %v", err)
	}
	if err := ask(controller.MethodStop, controller.Slot{Slot: "store"}); err != nil {
		t.Fatal(err)
	}
	if code := store.wait(); code != 0 {
		t.Errorf("stopped with status %d", code)
	}
}
