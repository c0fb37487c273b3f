// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"time"
)

// Events are told in one message of the control network, which has a MiB.
const (
	keepEvents = 2000
	keepBytes  = 512 << 10 // of them, as JSON
	maxText    = 512       // of one's words: a platform or a guest may have much to say
)

// Types of Event.
const (
	EventLeading   = "leading"   // this seed's controller begins
	EventDeclared  = "declared"  // a declaration is new or another one
	EventRemoved   = "removed"   // a declaration was taken back
	EventScaled    = "scaled"    // the number of replicas is another one
	EventLaunched  = "launched"  // a launch event was sent
	EventRunning   = "running"   // the guest of a launch runs
	EventEnded     = "ended"     // a replica has left or is gone
	EventFailed    = "failed"    // a launch came to nothing
	EventThrottled = "throttled" // the platform wants fewer launches
	EventBudget    = "budget"    // the day's budget is spent
	EventDrained   = "drained"   // a replica was asked to leave
)

// Event is something the controller did or saw, and why.
type Event struct {
	Seq  uint64    `json:"seq"` // grows, also from one seed's controller to the next one's
	Time time.Time `json:"time"`
	Type string    `json:"type"`
	Name string    `json:"name,omitempty"`
	Slot string    `json:"slot,omitempty"`
	Node uint32    `json:"node,omitempty"`
	Text string    `json:"text,omitempty"`
}

// journal keeps the last events of this controller; they end with its seed.
type journal struct {
	mu    sync.Mutex
	last  uint64
	list  []entry
	size  int
	count map[string]uint64 // by type
	fresh chan struct{}     // closed with the next event
}

// entry is an event with its size.
type entry struct {
	Event
	size int
}

func (j *journal) add(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Time, e.Text = time.Now().UTC(), clipped(e.Text)
	j.last = max(j.last+1, number(e.Time))
	e.Seq = j.last
	data, _ := json.Marshal(e) // plain data: cannot fail
	j.list, j.size = append(j.list, entry{e, len(data) + 1}), j.size+len(data)+1
	if len(j.list) > keepEvents || j.size > keepBytes {
		j.forget(len(j.list) / 4)
	}
	if j.count == nil {
		j.count = map[string]uint64{}
	}
	j.count[e.Type]++
	if j.fresh != nil {
		close(j.fresh)
		j.fresh = nil
	}
}

// number of an event at a time: who follows the events goes on where the leader
// before ended, and misses none.
func number(at time.Time) uint64 { return uint64(max(at.UnixMicro(), 0)) }

// forget the first so many. Callers hold mu.
func (j *journal) forget(many int) {
	for _, e := range j.list[:many] {
		j.size -= e.size
	}
	j.list = append(j.list[:0], j.list[many:]...)
}

// clipped is the beginning of a text that is too long.
func clipped(text string) string {
	begin := text
	for {
		data, _ := json.Marshal(begin) // a string: cannot fail
		if len(data) <= maxText {
			break
		}
		begin = strings.ToValidUTF8(begin[:len(begin)*maxText/len(data)], "")
	}
	if begin == text {
		return text
	}
	return begin + "…"
}

// counts are how many events of each type there were.
func (j *journal) counts() map[string]uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.count)
}

// after returns the events that follow seq; without any it waits for ctx.
func (j *journal) after(ctx context.Context, seq uint64, wait time.Duration) []Event {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		j.mu.Lock()
		if seq > max(j.last, number(time.Now())) {
			seq = 0 // of another seed's controller, whose clock was ahead
		}
		list := []Event{}
		for _, e := range j.list {
			if e.Seq > seq {
				list = append(list, e.Event)
			}
		}
		if j.fresh == nil {
			j.fresh = make(chan struct{})
		}
		fresh := j.fresh
		j.mu.Unlock()
		if len(list) > 0 {
			return list
		}
		select {
		case <-fresh:
		case <-timeout.C:
			return list
		case <-ctx.Done():
			return list
		}
	}
}
