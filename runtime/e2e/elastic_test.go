// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// elastic are places in a network with the addresses of EC2, and how a node there
// reaches one at each of them, in the same order.
var elastic = []struct {
	place   string
	flags   []string
	reaches []string
}{
	{"vpc", []string{"--kind", "vm"}, []string{"native", "native", "direct", "punch"}},
	{"private", []string{"--kind", "vm", "--public-address", "none"}, []string{"native", "native", "direct", "relay"}},
	{"vpc2", []string{"--kind", "vm", "--site", "vpc2"}, []string{"direct", "punch", "native", "punch"}},
	{"lambda", []string{"--kind", "function"}, []string{"direct", "relay", "direct", "punch"}},
}

// TestElasticAddresses: machines know a private address, and a NAT stands for them
// outside with another one. Their site reaches them natively, others at the public
// address, which is all that the network lets them reach. Three seeds know each
// other by theirs.
func TestElasticAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.task(t)
	w.net = "elastic"
	t.Cleanup(func() { w.remove(t, w.net) })
	w.must(t, "network", "create", w.net, "--elastic", "--seeds", "3")
	slot := func(role, place string) string {
		if place == "lambda" {
			return role + "-" + place + "-0"
		}
		return role + "-" + place
	}
	var targets []string
	var all sync.WaitGroup
	for _, e := range elastic {
		targets = append(targets, slot("to", e.place))
		all.Go(func() {
			args := append([]string{"run", "--name", "to-" + e.place, "--source-dir", task, "--detach"}, e.flags...)
			w.must(t, append(args, "--", "python3", "/var/task/matrix.py", "serve")...)
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	w.checkAddresses(t)
	var ids sync.Map // of the rows' nodes
	for _, e := range elastic {
		all.Go(func() {
			args := append([]string{"run", "--name", "from-" + e.place, "--source-dir", task}, e.flags...)
			checkRow(t, e.place, targets, w.run(t, append(append(args, "--", "python3", "/var/task/matrix.py", "dial"), targets...)...), &ids)
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	eventually(t, 15*time.Second, "all connections are counted", func() (bool, string) {
		var missing []string
		paths := w.paths(t)
		for _, e := range elastic {
			id, _ := ids.Load(e.place)
			for i, to := range targets {
				used := slices.DeleteFunc(slices.Clone(paths), func(p path) bool { return p.From != fmt.Sprintf("node-%d", id) || p.To != to })
				switch {
				case len(used) == 0 || used[0].Transport == e.reaches[i] && used[0].Connections < 3:
					missing = append(missing, e.place+" to "+to)
				case len(used) > 1 || used[0].Transport != e.reaches[i]:
					t.Fatalf("%s to %s over %+v, want %s only", e.place, to, used, e.reaches[i])
				}
			}
		}
		return len(missing) == 0, strings.Join(missing, "; ")
	})
}

// checkAddresses: everybody is known by the address inside and the one outside.
func (w *world) checkAddresses(t *testing.T) {
	t.Helper()
	want := map[string]string{
		"seed-0": "none, its own, local", "seed-1": "none, its own, local", "seed-2": "none, its own, local",
		"to-vpc": "none, its own, local", "to-private": "behind, none, local", "to-vpc2": "none, its own, vpc2",
		"to-lambda-0": "behind, invalid IP, ",
	}
	eventually(t, 30*time.Second, "all are there", func() (bool, string) { // a seed may come late
		var list []cluster.Member
		if err := json.Unmarshal([]byte(w.must(t, "nodes", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, m := range list {
			seen[m.Slot] = fmt.Sprintf("%s, %s, %s", m.NAT, outsideOf(m), m.Site)
		}
		return maps.Equal(seen, want), fmt.Sprint(seen)
	})
}

// outsideOf a machine is the address with the same lower half.
func outsideOf(m cluster.Member) string {
	b := m.UnderlayAddress.Addr().As4()
	switch {
	case m.PublicAddress == netip.AddrFrom4([4]byte{198, 19, b[2], b[3]}):
		return "its own"
	case m.PublicAddress.IsUnspecified():
		return "none"
	}
	return m.PublicAddress.String()
}
