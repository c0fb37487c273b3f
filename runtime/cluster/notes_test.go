// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func note(t *testing.T, s *Seed, values map[string]json.RawMessage) {
	t.Helper()
	term, leads := s.Leading()
	if !leads {
		t.Fatal("the seed does not lead")
	}
	if err := s.Note(term, values); err != nil {
		t.Fatal(err)
	}
}

func checkNotes(t *testing.T, s *Seed) {
	t.Helper()
	if got := s.Notes(); len(got) != 1 || string(got["a"]) != `{"n":2}` {
		t.Errorf("notes are %s", got)
	}
}

var (
	someNotes = map[string]json.RawMessage{"a": json.RawMessage(`{"n":1}`), "b": json.RawMessage(`"x"`)}
	moreNotes = map[string]json.RawMessage{"a": json.RawMessage(`{"n":2}`), "b": nil}
)

func TestNotesOutliveTheSeed(t *testing.T) {
	o := testOptions(t)
	seed := startSeed(t, o, "127.0.0.1:0")
	note(t, seed.Seed, someNotes)
	note(t, seed.Seed, moreNotes)
	checkNotes(t, seed.Seed)
	seed.stop()
	seed = startSeed(t, o, seed.address)
	checkNotes(t, seed.Seed)
	term, _ := seed.Leading()
	if err := seed.Note(term, map[string]json.RawMessage{"big": json.RawMessage(`"` + strings.Repeat("x", maxNote) + `"`)}); err == nil {
		t.Error("a note of any size is kept")
	}
	if err := seed.Note(term+1, someNotes); !errors.Is(err, ErrNotLeading) {
		t.Errorf("a note of another term: %v", err)
	}
	checkNotes(t, seed.Seed)
}

func TestNotesOutliveTheLeader(t *testing.T) {
	w := startTrio(t)
	first := w.leader()
	note(t, w.seeds[first].Seed, someNotes)
	note(t, w.seeds[first].Seed, moreNotes)
	select {
	case <-w.seeds[first].Turned():
	default:
		t.Error("nobody was told that this seed leads")
	}
	old, _ := w.seeds[first].Leading()
	w.isolate(first, true, true)
	second := w.leader(first)
	checkNotes(t, w.seeds[second].Seed)
	note(t, w.seeds[second].Seed, map[string]json.RawMessage{"c": json.RawMessage(`3`)})
	if err := w.seeds[first].Note(old, someNotes); err == nil {
		t.Error("a seed that was deposed keeps notes")
	}
	w.isolate(first, false, true)
	eventually(t, "the first one knows", func() bool {
		_, leads := w.seeds[first].Leading()
		return !leads && string(w.seeds[first].replica.ledger.copy().Notes["c"]) == "3"
	})
}

// TestANoteThatCouldNotBeKeptIsNotTaken by a later write, of which nobody was told
// that it failed.
func TestANoteThatCouldNotBeKeptIsNotTaken(t *testing.T) {
	o := testOptions(t)
	dir := filepath.Dir(o.StatePath)
	seed := startSeed(t, o, "127.0.0.1:0")
	note(t, seed.Seed, map[string]json.RawMessage{"a": json.RawMessage(`1`), "b": json.RawMessage(`2`)})
	away := dir + "-away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	term, _ := seed.Leading()
	if err := seed.Note(term, map[string]json.RawMessage{"a": json.RawMessage(`9`), "b": nil, "c": json.RawMessage(`3`)}); err == nil {
		t.Fatal("kept without a place to keep it")
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	note(t, seed.Seed, map[string]json.RawMessage{"d": json.RawMessage(`4`)})
	seed.stop()
	seed = startSeed(t, o, seed.address)
	got, _ := json.Marshal(seed.Notes())
	if string(got) != `{"a":1,"b":2,"d":4}` {
		t.Errorf("kept are %s", got)
	}
}
