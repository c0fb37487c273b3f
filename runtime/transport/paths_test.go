// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"testing"
	"time"
)

// Ids are never used again: a node that lives long meets any number of others.
func TestPathsToThoseThatHaveLeftAreForgotten(t *testing.T) {
	n := newNetwork(t)
	s, v := n.node(seed), n.node()
	const met = maxPeers + 500
	v.paths.add(s.id, pathDirect)
	for id := uint32(1000); id < 1000+met; id++ {
		v.paths.made(id, pathPunch, time.Millisecond)
		v.paths.fail(id, pathRelay)
	}
	peers := map[uint32]bool{}
	for _, p := range v.Paths() {
		peers[p.To] = true
	}
	if len(peers) != maxPeers || !peers[s.id] || !peers[1000+met-1] || peers[1000] {
		t.Errorf("counts of %d peers, want %d; of a member %t, of the last one %t, of the first %t", len(peers), maxPeers, peers[s.id], peers[1000+met-1], peers[1000])
	}
	if peers[0] {
		t.Error("nobody's are listed")
	}
	if all := v.Setups(); len(all) != 1 || all[0].Count != met || all[0].Sum != met*time.Millisecond {
		t.Errorf("set-up times of %+v, want all %d", all, met)
	}
	if kept := len(v.paths.setups) + len(v.paths.failed); kept > 2*maxPeers {
		t.Errorf("%d histograms and failures are kept", kept)
	}
}
