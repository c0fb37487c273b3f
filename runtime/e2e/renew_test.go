// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// The functions of TestRenewal have so much time; the first launches begin to leave
// so long before it is over.
const (
	renewLife   = 60 // seconds
	renewMargin = 48
)

// renewal is a network with one function, whose slots are launched by hand.
type renewal struct {
	*world
	cloud *localcloud.Client
}

// launch sends the event of one launch of a slot; "" succeeds nobody. Its name is
// what its guest answers.
func (r *renewal) launch(t *testing.T, slot, launch, succeeds string) {
	t.Helper()
	n := config.Node{
		Name: "web", Slot: slot, LaunchToken: slot + launch,
		Argv: []string{"nginx", "-e", "stderr", "-c", "/var/task/" + launch + ".conf"},
	}
	if succeeds == "" {
		n.DeadlineMarginMS = renewMargin * 1000
	} else {
		n.Succeeds = cluster.LaunchID(slot + succeeds)
	}
	payload, err := json.Marshal(r.cloud.FunctionConfig(n))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.cloud.Invoke(t.Context(), "web", payload); err != nil {
		t.Fatal(err)
	}
}

// is waits until a launch of the slot is as wanted.
func (r *renewal) is(t *testing.T, slot, launch, what string, ok func(cluster.Member) bool) (found cluster.Member) {
	t.Helper()
	id := cluster.LaunchID(slot + launch)
	eventually(t, 30*time.Second, slot+" "+launch+" "+what, func() (bool, string) {
		var list []cluster.Member
		if err := json.Unmarshal([]byte(r.must(t, "nodes", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		found = cluster.Member{State: cluster.StateLeft}
		for _, m := range list {
			if m.LaunchID == id {
				found = m
			}
		}
		return ok(found), fmt.Sprintf("%+v", found)
	})
	return found
}

func holds(m cluster.Member) bool { return m.State == cluster.StateRunning && m.Holds() }
func gone(m cluster.Member) bool  { return m.State == cluster.StateLeft }

// TestRenewal: a function node is succeeded by another launch of its slot, under
// requests of clients that looked its name up once.
func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.task(t)
	conf, err := os.ReadFile(filepath.Join(task, "renewed.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, launch := range []string{"one", "two"} {
		text := strings.ReplaceAll(string(conf), "@LAUNCH@", launch)
		if err := os.WriteFile(filepath.Join(task, launch+".conf"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.network(t, "renewal")
	r := &renewal{w, w.natClient(t)}
	if _, err := r.cloud.CreateFunction(t.Context(), localcloud.FunctionSpec{Name: "web", SourceDir: task, TimeoutS: renewLife}); err != nil {
		t.Fatal(err)
	}
	w.vm(t, "near", "--source-dir", task, "--", "python3", "/var/task/renewed.py", "web-0", "web-1", "8080")
	w.function(t, "far", "--source-dir", task, "--", "python3", "/var/task/renewed.py", "web-0", "web-1", "8080")
	clients := []string{"near", "far-0"}
	said := func(lines ...string) {
		t.Helper()
		for _, client := range clients {
			eventually(t, 30*time.Second, client+" says "+strings.Join(lines, ", "), func() (bool, string) {
				log := w.must(t, "logs", client)
				missing := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.Contains(log, line) })
				return len(missing) == 0, clip(log)
			})
		}
	}
	slots := []string{"web-0", "web-1"}
	for _, slot := range slots {
		r.launch(t, slot, "one", "")
	}
	said("short (200, 'one') ", "kept (200, 'one')")
	for _, slot := range slots {
		r.launch(t, slot, "two", "one")
	}
	var ends time.Time
	for _, slot := range slots {
		old := r.is(t, slot, "one", "has retired", func(m cluster.Member) bool { return m.Retired || gone(m) })
		if next := r.is(t, slot, "two", "holds the slot", holds); gone(old) || next.OverlayAddress != old.OverlayAddress || next.ID == old.ID {
			t.Errorf("the successor of %+v is %+v", old, next)
		}
		ends = old.Ends
	}
	said("short (200, 'two') ")
	if table := w.must(t, "nodes"); !strings.Contains(table, "draining") {
		t.Errorf("nodes:\n%s", table)
	}
	// Its event comes again: there is one, and it goes on.
	r.launch(t, "web-0", "two", "one")

	// Without connections it leaves by itself; with one, at its deadline.
	r.is(t, "web-0", "one", "has left", gone)
	if m := r.is(t, "web-1", "one", "is there", func(cluster.Member) bool { return true }); !m.Retired && time.Now().Before(ends) {
		t.Errorf("with an open connection it is %+v, before %v", m, ends)
	}
	said("kept ended b''", "kept (200, 'two')")
	r.is(t, "web-1", "one", "has left", gone)
	r.is(t, "web-0", "two", "holds the slot", holds)

	for _, client := range clients {
		log := w.must(t, "logs", client)
		started := false
		for line := range strings.Lines(log) {
			started = started || strings.HasPrefix(line, "kept (200")
			ok := false
			for _, begin := range []string{"short (200, ", "kept (200, 'one')\n", "kept ended b''", "kept (200, 'two')\n"} {
				ok = ok || strings.HasPrefix(line, begin)
			}
			if !ok && started {
				t.Errorf("%s: %s", client, line)
			}
		}
	}
	for _, i := range r.invocations(t) {
		if i.State == localcloud.InvocationFailed && i.LaunchID != cluster.LaunchID("web-0two") {
			t.Errorf("invocation %+v", i)
		}
		if strings.Contains(i.Error, "runs already") {
			return
		}
	}
	t.Errorf("the repeated event was not refused: %+v", r.invocations(t))
}

func (r *renewal) invocations(t *testing.T) []localcloud.Invocation {
	t.Helper()
	list, err := r.cloud.Invocations(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	return list
}
