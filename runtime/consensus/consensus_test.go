// SPDX-License-Identifier: Apache-2.0

package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"
)

// words is a machine that remembers what it was told.
type words struct {
	mu  sync.Mutex
	all []string
}

func (w *words) Apply(change []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if string(change) == "poison" {
		return errors.New("not understood")
	}
	w.all = append(w.all, string(change))
	return nil
}

func (w *words) Snapshot() ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return []byte(strings.Join(w.all, " ")), nil
}

func (w *words) Restore(data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = strings.Fields(string(data))
	return nil
}

func (w *words) String() string {
	data, _ := w.Snapshot()
	return string(data)
}

// replica is one of three on loopback pipes.
type replica struct {
	*Log
	words
	name   string
	term   chan uint64
	broken chan error
}

type trio struct {
	t    *testing.T
	dirs string

	mu   sync.Mutex
	up   map[string]*replica
	dead map[string]bool // cut off from the others
}

var voters = []string{"a", "b", "c"}

func newTrio(t *testing.T) *trio {
	return &trio{t: t, dirs: t.TempDir(), up: map[string]*replica{}, dead: map[string]bool{}}
}

func (w *trio) start(name string) *replica {
	w.t.Helper()
	r := &replica{name: name, term: make(chan uint64, 64), broken: make(chan error, 1)}
	var err error
	r.Log, err = Open(Options{
		Dir: filepath.Join(w.dirs, name), Self: name, Voters: voters, Machine: &r.words, Logger: zerolog.Nop(),
		Dial: func(_ context.Context, to string) (net.Conn, error) { return w.dial(name, to) },
		Lead: func(term uint64) { r.term <- term }, Follow: func() { r.term <- 0 },
		Broken: func(err error) { r.broken <- err }, Election: 800 * time.Millisecond,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.up[name] = r
	w.mu.Unlock()
	w.t.Cleanup(func() { w.stop(name) })
	return r
}

func (w *trio) stop(name string) {
	w.mu.Lock()
	r := w.up[name]
	delete(w.up, name)
	w.mu.Unlock()
	if r != nil {
		if err := r.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *trio) dial(from, to string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.up[to]
	if r == nil || w.dead[from] || w.dead[to] {
		return nil, errors.New("no route")
	}
	here, there := net.Pipe()
	go r.Serve(&cuttable{Conn: there, w: w, ends: [2]string{from, to}})
	return &cuttable{Conn: here, w: w, ends: [2]string{from, to}}, nil
}

// cuttable carries nothing while one of its ends is cut off.
type cuttable struct {
	net.Conn
	w    *trio
	ends [2]string
}

func (c *cuttable) Write(p []byte) (int, error) {
	c.w.mu.Lock()
	cut := c.w.dead[c.ends[0]] || c.w.dead[c.ends[1]]
	c.w.mu.Unlock()
	if cut {
		return 0, errors.New("cut")
	}
	return c.Conn.Write(p)
}

func (w *trio) cut(name string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead[name] = cut
}

// leader waits for one that leads, and the term.
func (w *trio) leader(among ...*replica) (*replica, uint64) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		for _, r := range among {
			select {
			case term := <-r.term:
				if term != 0 {
					return r, term
				}
			default:
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	w.t.Fatal("nobody leads within 30 s")
	return nil, 0
}

func (w *trio) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func others(all []*replica, one *replica) (rest []*replica) {
	for _, r := range all {
		if r != one {
			rest = append(rest, r)
		}
	}
	return rest
}

func TestALeaderCutOffIsDeposedAndItsChangesAreVoid(t *testing.T) {
	t.Parallel()
	w := newTrio(t)
	all := []*replica{w.start("a"), w.start("b"), w.start("c")}
	first, term := w.leader(all...)
	if err := first.Propose(term, []byte("one")); err != nil {
		t.Fatal(err)
	}
	w.cut(first.name, true)
	if err := first.Propose(term, []byte("lost")); !errors.Is(err, ErrDeposed) {
		t.Errorf("a change without a majority gives %v", err)
	}
	second, later := w.leader(others(all, first)...)
	if later <= term {
		t.Errorf("the second leads in term %d, the first in %d", later, term)
	}
	if err := second.Propose(later, []byte("two")); err != nil {
		t.Fatal(err)
	}
	w.cut(first.name, false)
	for _, r := range all {
		w.eventually("all know the same", func() bool { return r.String() == "one two" })
	}
	// What was decided in an earlier term must not count in a later one.
	if err := second.Propose(term, []byte("stale")); !errors.Is(err, ErrDeposed) {
		t.Errorf("a change of an earlier term gives %v", err)
	}
	if second.String() != "one two" {
		t.Errorf("after a stale change: %q", second)
	}
}

func TestReplicasComeBackWithWhatTheyKnew(t *testing.T) {
	t.Parallel()
	w := newTrio(t)
	all := []*replica{w.start("a"), w.start("b"), w.start("c")}
	first, term := w.leader(all...)
	want := make([]string, 0, 20)
	for i := range 20 {
		want = append(want, fmt.Sprint("word", i))
		if err := first.Propose(term, []byte(want[i])); err != nil {
			t.Fatal(err)
		}
		if i == 10 {
			if err := first.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range voters {
		w.stop(name)
	}
	all = []*replica{w.start("a"), w.start("b"), w.start("c")}
	again, later := w.leader(all...)
	if later <= term || again.String() != strings.Join(want, " ") {
		t.Errorf("after a restart term %d (before: %d), %q", later, term, again)
	}
}

func TestAMachineThatDoesNotUnderstandBreaksItsReplica(t *testing.T) {
	t.Parallel()
	w := newTrio(t)
	all := []*replica{w.start("a"), w.start("b"), w.start("c")}
	first, term := w.leader(all...)
	if err := first.Propose(term, []byte("poison")); err == nil {
		t.Error("a change that is not understood counts")
	}
	select {
	case err := <-first.broken:
		if err.Error() != "not understood" {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("nobody was told")
	}
}

func filledStore(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "log.db")
	s, err := openStore(path, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(500) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: []byte(strings.Repeat("x", 100))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 3); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestADamagedStoreIsRefusedClearly(t *testing.T) {
	page := int64(os.Getpagesize())
	for name, harm := range map[string]func(path string, size int64) error{
		"empty":              func(path string, _ int64) error { return os.Truncate(path, 0) },
		"cut within a page":  func(path string, size int64) error { return os.Truncate(path, size-100) },
		"cut between pages":  func(path string, _ int64) error { return os.Truncate(path, 4*page) },
		"half":               func(path string, size int64) error { return os.Truncate(path, size/2/page*page) },
		"no store":           func(path string, size int64) error { return os.WriteFile(path, make([]byte, size), 0o600) },
		"one byte different": flip,
	} {
		path := filledStore(t)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := harm(path, info.Size()); err != nil {
			t.Fatal(err)
		}
		_, err = openStore(path, func(error) {})
		if err == nil || !strings.Contains(err.Error(), "the seed's state "+path+" is damaged") || !strings.Contains(err.Error(), "restore it") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// flip changes a byte of some entry's data.
func flip(path string, _ int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	at := strings.LastIndex(string(data), "eHh4eHh4") // xxxxxx in base64
	data[at] = 'f'
	return os.WriteFile(path, data, 0o600)
}

func TestAStoreInUseIsNotDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	s, err := openStore(path, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := openStore(path, func(error) {}); err == nil || !strings.Contains(err.Error(), "another seed runs with this directory") {
		t.Errorf("opened twice: %v", err)
	}
}

func TestEntriesAreDeletedInRanges(t *testing.T) {
	s, err := openStore(filledStore(t), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.DeleteRange(1, 333); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(451, 500); err != nil {
		t.Fatal(err)
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if first != 334 || last != 450 {
		t.Errorf("left are %d to %d", first, last)
	}
	for i := uint64(1); i <= 500; i++ {
		var e raft.Log
		err := s.GetLog(i, &e)
		if kept := i >= 334 && i <= 450; kept != (err == nil) || !kept && !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	if term, err := s.GetUint64([]byte("CurrentTerm")); term != 3 || err != nil {
		t.Errorf("term %d, %v", term, err)
	}
}
