// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// reports are what the functions' nodes say of their NATs.
func (w *world) reports(t *testing.T) map[string]*cluster.NATReport {
	t.Helper()
	var list []cluster.Member
	if err := json.Unmarshal([]byte(w.must(t, "nodes", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]*cluster.NATReport{}
	for _, m := range list {
		all[m.Slot] = m.NATReport
	}
	return all
}

// natClient talks to the daemon of the world's network.
func (w *world) natClient(t *testing.T) *localcloud.Client {
	t.Helper()
	store, err := localcloud.Open(w.state, localcloud.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := store.Connect(t.Context(), w.net)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// TestNATProbing: nodes find out what NAT they are behind, and that it is another
// one now.
func TestNATProbing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.network(t, "nats")
	w.vm(t, "store", "--", "sleep", "1000")
	const closed, open, drop, rst = cluster.FilteringClosed, cluster.FilteringOpen, cluster.UnexpectedDrop, cluster.UnexpectedReset
	const independent, dependent = cluster.MappingIndependent, cluster.MappingDependent
	want := map[string]cluster.NATReport{
		localcloud.NATMasquerade:    {Mapping: independent, Filtering: closed, Unexpected: drop, Preserves: true},
		localcloud.NATFirewall:      {Mapping: independent, Filtering: closed, Unexpected: drop, Preserves: true},
		localcloud.NATCone:          {Mapping: independent, Filtering: open},
		localcloud.NATRestricted:    {Mapping: independent, Filtering: closed, Unexpected: drop},
		localcloud.NATRestrictedRST: {Mapping: independent, Filtering: closed, Unexpected: rst},
		localcloud.NATSymmetric:     {Mapping: dependent, Filtering: closed, Unexpected: drop},
		localcloud.NATSymmetricRST:  {Mapping: dependent, Filtering: closed, Unexpected: rst},
		localcloud.NATForgetful:     {Mapping: independent, Filtering: closed, Unexpected: drop},
		localcloud.NATShared:        {Mapping: independent, Filtering: closed, Unexpected: drop},
		localcloud.NATSharedHairpin: {Mapping: independent, Filtering: closed, Unexpected: drop, Hairpin: true, HairpinOpen: true},
		localcloud.NATHairpin:       {Mapping: independent, Filtering: closed, Unexpected: drop, Hairpin: true},
	}
	var all sync.WaitGroup
	for kind := range want {
		all.Go(func() { w.function(t, kind, "--nat", kind, "--", "sleep", "1000") })
	}
	all.Wait()
	var seen map[string]*cluster.NATReport
	eventually(t, 30*time.Second, "all are probed", func() (bool, string) {
		seen = w.reports(t)
		missing := []string{}
		for kind := range want {
			if r := seen[kind+"-0"]; r == nil || r.Filtering == "" {
				missing = append(missing, kind)
			}
		}
		slices.Sort(missing)
		return len(missing) == 0, fmt.Sprint("missing: ", missing)
	})
	for kind, r := range want {
		got := *seen[kind+"-0"]
		if mapped := got.Mapped; !strings.HasPrefix(mapped.String(), "100.64.128.") || (mapped.Port() == 7717) != r.Preserves && r.Mapping == independent {
			t.Errorf("%s: mapped to %s", kind, mapped)
		}
		if r.Mapped = got.Mapped; got != r {
			t.Errorf("%s:\n got %+v\nwant %+v", kind, got, r)
		}
	}

	client := w.natClient(t)
	const kind = localcloud.NATRestricted
	before := seen[kind+"-0"].Mapped
	began := time.Now()
	if err := client.DisturbNAT(t.Context(), kind, kind+"-0", localcloud.NATReplace); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the new NAT is noticed", func() (bool, string) {
		now := w.reports(t)[kind+"-0"]
		return now != nil && now.Mapped.Addr() != before.Addr() && now.Mapped.Port() == before.Port(), fmt.Sprintf("%+v", now)
	})
	t.Logf("a new NAT was known after %v", time.Since(began).Round(10*time.Millisecond))
}
