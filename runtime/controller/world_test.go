// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// world is a platform and a network in one: an Invoke becomes a member after a
// moment, one for each slot, as the real seed admits them.
type world struct {
	t *testing.T

	mu      sync.Mutex
	term    uint64
	leads   bool
	turned  chan struct{}
	notes   map[string]json.RawMessage
	broken  error // of Note
	nextID  uint32
	members map[uint32]cluster.Member
	spent   map[string]bool // launch ids
	streams map[chan cluster.Event]bool
	invoked []string      // slots, in their order
	refuse  error         // of Invoke
	swallow func() bool   // an event that gets lost
	life    time.Duration // of a guest; 0: until it is drained
	delay   time.Duration
	delayOf func(slot string) time.Duration
	ignores bool // calls to drain
	lingers bool // after calls to drain
	asked   int  // for loads

	late      time.Duration // that a subscriber hears of the first members
	limit     time.Duration // of the platform, for a life; 0: none
	stillborn bool          // successors end before they run

	stuck    bool          // guests end before they run
	mute     bool          // guests never run
	reserved []string      // slots
	drains   time.Duration // that who is let go stays
	open     int           // connections into each guest
	made     uint64
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, term: 1, leads: true, turned: make(chan struct{}, 1), notes: map[string]json.RawMessage{}, nextID: 10,
		members: map[uint32]cluster.Member{}, spent: map[string]bool{}, streams: map[chan cluster.Event]bool{}, delay: 5 * time.Millisecond,
	}
}

func (w *world) Leading() (uint64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.term, w.leads
}

func (w *world) Turned() <-chan struct{} { return w.turned }

func (w *world) Notes() map[string]json.RawMessage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.notes)
}

func (w *world) Note(term uint64, values map[string]json.RawMessage) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	if term != w.term || !w.leads {
		return cluster.ErrNotLeading
	}
	for key, value := range values {
		if w.notes[key] = value; value == nil {
			delete(w.notes, key)
		}
	}
	return nil
}

func (w *world) Members() []cluster.Member {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.members))
}

func (w *world) Subscribe() (<-chan cluster.Event, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := make(chan cluster.Event, 10000)
	for _, m := range w.members {
		joined := cluster.Event{Type: cluster.EventJoin, Member: m}
		if w.late > 0 {
			time.AfterFunc(w.late, func() { events <- joined })
		} else {
			events <- joined // before what becomes of it
		}
	}
	w.streams[events] = true
	return events, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.streams, events)
	}
}

// tell all streams. Callers hold mu.
func (w *world) tell(kind string, m cluster.Member) {
	if kind == cluster.EventLeave {
		delete(w.members, m.ID)
	} else {
		w.members[m.ID] = m
	}
	for events := range w.streams {
		events <- cluster.Event{Type: kind, Member: m}
	}
}

func (w *world) Call(_ context.Context, to uint32, method string, _, out any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.members[to]
	if use, asked := out.(*Use); asked && ok {
		use.Open, use.Made = w.open, w.made
		return nil
	}
	if ok && method == LoadMethod {
		w.asked++
		m.Load = &cluster.Load{}
		w.tell(cluster.EventUpdate, m)
		return nil
	}
	if !ok || method != DrainMethod {
		return fmt.Errorf("call %s of node %d", method, to)
	}
	if w.lingers {
		m.Leaving = true
		w.tell(cluster.EventUpdate, m)
		return nil
	}
	if !w.ignores {
		w.spent[m.LaunchID] = true
		w.tell(cluster.EventLeave, m)
	}
	return nil
}

func (w *world) Invoke(_ context.Context, function string, payload []byte) error {
	var n config.Node
	if err := json.Unmarshal(payload, &n); err != nil {
		return err
	}
	if _, err := config.Parse(payload); err != nil || function != "f" {
		w.t.Errorf("invoke %q with %s: %v", function, payload, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	w.invoked = append(w.invoked, n.Slot)
	if w.swallow != nil && w.swallow() {
		return nil
	}
	delay := w.delay
	if w.delayOf != nil {
		delay = w.delayOf(n.Slot)
	}
	time.AfterFunc(delay, func() { w.admit(n) })
	return nil
}

func (w *world) admit(n config.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := cluster.LaunchID(n.LaunchToken)
	var holder, lost *cluster.Member
	for _, m := range w.members {
		switch {
		case m.Slot != n.Slot || !m.Holds():
		case m.State == cluster.StateLost:
			lost = &m
		default:
			holder = &m
		}
	}
	if w.spent[id] || holder != nil && holder.LaunchID != n.Succeeds {
		return
	}
	if lost != nil {
		w.tell(cluster.EventLeave, *lost)
	}
	w.nextID++
	m := cluster.Member{ID: w.nextID, Name: n.Name, Slot: n.Slot, Service: n.Service, Kind: n.Kind, State: cluster.StateStarting, LaunchID: id, Standby: n.Standby, Since: time.Now()}
	if n.Load {
		m.Load = &cluster.Load{}
	}
	if w.limit > 0 {
		m.Ends = time.Now().Add(w.limit)
		time.AfterFunc(w.limit, func() { w.end(m.ID, 0) })
	}
	if holder != nil {
		m.Succeeds = holder.ID
		w.tell(cluster.EventJoin, m)
		if w.stillborn {
			w.tell(cluster.EventLeave, m)
			return
		}
		holder.Retired, m.Succeeds, m.State = true, 0, cluster.StateRunning
		w.tell(cluster.EventUpdate, *holder)
		w.tell(cluster.EventUpdate, m)
		w.tell(cluster.EventLeave, *holder)
		return
	}
	w.tell(cluster.EventJoin, m)
	if w.mute {
		return
	}
	if w.stuck {
		time.AfterFunc(0, func() { w.end(m.ID, 3) })
		return
	}
	m.State = cluster.StateRunning
	w.tell(cluster.EventUpdate, m)
	if w.life > 0 {
		time.AfterFunc(w.life, func() { w.end(m.ID, 3) })
	}
}

// end lets a guest end.
func (w *world) end(id uint32, code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m, ok := w.members[id]; ok {
		w.spent[m.LaunchID] = true
		m.State, m.Guest.ExitCode = cluster.StateExited, &code
		w.tell(cluster.EventUpdate, m)
		w.tell(cluster.EventLeave, m)
	}
}

// slots that have a member which runs.
func (w *world) slots() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.members {
		if m.State == cluster.StateRunning && m.Holds() {
			all = append(all, m.Slot)
		}
	}
	slices.Sort(all)
	return all
}

func (w *world) launches(slot string) (count int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.invoked {
		if s == slot || slot == "" {
			count++
		}
	}
	return count
}

func (w *world) id(slot string) uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, m := range w.members {
		if m.Slot == slot && m.Holds() {
			return id
		}
	}
	return 0
}

// controller runs one until the returned function is called.
func (w *world) controller(change ...func(*Options)) (*Controller, func()) {
	o := Options{
		Secret: []byte("a secret of the test"), Store: w, Network: w, Invoker: w, Logger: zerolog.Nop(),
		Patience: time.Second, Settle: 20 * time.Millisecond, Grace: 20 * time.Millisecond, Stable: 40 * time.Millisecond, Backoff: 10 * time.Millisecond,
	}
	for _, f := range change {
		f(&o)
	}
	c := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return c, stop
}

// call as another member does.
func call[Out any](t *testing.T, c *Controller, method string, in any) (out Out, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Handlers()[method](ctx, 1, body)
	if err == nil {
		if body, err = json.Marshal(answer); err == nil {
			err = json.Unmarshal(body, &out)
		}
	}
	return out, err
}

func declaration(count int) Declaration {
	return Declaration{Name: "logic", Function: "f", Count: count, MemoryMB: 1024, Node: config.Node{
		Version: config.Version, Kind: config.KindFunction, Network: "shop", Argv: []string{"serve"},
		SecretRef: "file:/etc/boxer/secret", SeedEndpoints: []string{"100.64.0.1:7717"},
	}}
}

func declare(t *testing.T, c *Controller, d Declaration) View {
	t.Helper()
	v, err := call[View](t, c, MethodDeclare, d)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// views are the declared nodes as they are.
func views(t *testing.T, c *Controller) []View {
	t.Helper()
	_, all := c.Counts(t.Context())
	return all
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func (w *world) await(want ...string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprint("running: ", want), func() bool { return slices.Equal(w.slots(), want) })
}

func (w *world) Reserve(term uint64, all []cluster.Reserved) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if term != w.term || !w.leads {
		return cluster.ErrNotLeading
	}
	w.reserved = nil
	for _, r := range all {
		w.reserved = append(w.reserved, r.Slot)
	}
	return nil
}

func (w *world) LetGo(term uint64, slot string, id uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.members[id]
	if term != w.term || !w.leads || !ok || m.Slot != slot || !m.Holds() {
		return cluster.ErrNotLeading
	}
	m.Retired = true
	w.tell(cluster.EventUpdate, m)
	time.AfterFunc(w.drains, func() { w.end(id, 0) })
	return nil
}
