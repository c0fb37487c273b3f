// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// What comes and goes while a guest runs is in its files soon.
func TestTheFilesOfAGuestFollow(t *testing.T) {
	w := newWorld(t)
	first := w.start(config.Node{Kind: config.KindVM, Slot: "first",
		Argv: []string{"sh", "-c", `for file in hosts members.txt members.json; do until grep -q second $BOXER_DIR/$file; do sleep 0.02; done; echo $file; done; exec sleep 60`}})
	w.member("first", in(cluster.StateRunning))
	w.start(config.Node{Kind: config.KindVM, Slot: "second", Argv: []string{"sleep", "60"}})
	w.eventually("the second node is in the files of the first", func() bool { return first.output() == "hosts\nmembers.txt\nmembers.json" })
}

// A file is written again only if it says something else.
func TestFilesThatSayTheSameStay(t *testing.T) {
	dir, written := t.TempDir(), memberFiles{}
	member := cluster.Member{ID: 2, Slot: "store", Name: "store", Service: "db", State: cluster.StateStarting, OverlayAddress: netip.MustParseAddr("100.80.0.2")}
	update := func() (os.FileInfo, os.FileInfo) {
		t.Helper()
		if err := written.update(dir, member, []cluster.Member{member}, nil); err != nil {
			t.Fatal(err)
		}
		hosts, err := os.Stat(filepath.Join(dir, "hosts"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.Stat(filepath.Join(dir, "members.txt"))
		if err != nil {
			t.Fatal(err)
		}
		return hosts, text
	}
	hosts, text := update()
	member.State = cluster.StateRunning
	hostsNow, textNow := update()
	if !os.SameFile(hosts, hostsNow) || os.SameFile(text, textNow) {
		t.Error("hosts should have stayed, and members.txt be another")
	}
}
