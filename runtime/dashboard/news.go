// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// maxNews are kept and shown; so many names of members that left are kept.
const (
	maxNews = 40
	maxLeft = 4096
)

// news is one change of the member set, in words.
type news struct {
	ID   int // counts up
	At   time.Time
	Slot string
	What string
}

// history is what is known of the members over time. It is not changed: next makes
// another one, so that a page may still be made of this.
type history struct {
	members map[uint32]cluster.Member // present
	left    map[uint32]string         // slots of those that left, to name them
	news    []news                    // newest first
}

// next is the history after a look, in which events were seen too: of members
// that came and went between two looks.
func (h history) next(facts Facts, at time.Time) history {
	n := history{maps.Clone(h.members), maps.Clone(h.left), h.news}
	first := n.members == nil
	if first {
		n.members, n.left = map[uint32]cluster.Member{}, map[uint32]string{}
	}
	var all []news
	for _, d := range facts.Deeds {
		all = append(all, news{At: at, Slot: clean(d.Slot, maxWord), What: clean("controller: "+d.What, 4*maxWord)})
	}
	for _, e := range facts.Events {
		_, present := n.members[e.Member.ID]
		_, left := n.left[e.Member.ID]
		switch {
		case e.Type == cluster.EventLeave:
			all = n.leaves(all, e.Member.ID, at)
		case present || !left: // else it is late: the leaving is known
			all = n.is(all, e.Member, at)
		}
	}
	present := make(map[uint32]bool, len(facts.Members))
	for _, m := range facts.Members {
		present[m.ID] = true
		all = n.is(all, m, at)
	}
	for _, id := range slices.Sorted(maps.Keys(n.members)) {
		if !present[id] {
			all = n.leaves(all, id, at)
		}
	}
	for len(n.left) > maxLeft {
		delete(n.left, slices.Min(slices.Collect(maps.Keys(n.left))))
	}
	if !first {
		n.news = addNews(h.news, all)
	}
	return n
}

// is notes a member as it is now.
func (h history) is(all []news, m cluster.Member, at time.Time) []news {
	was, known := h.members[m.ID]
	h.members[m.ID] = m
	delete(h.left, m.ID) // a launch may come back
	switch {
	case !known:
		return append(all, news{At: at, Slot: m.Slot, What: "joined, " + m.State})
	case m.Retired && !was.Retired:
		return append(all, news{At: at, Slot: m.Slot, What: fmt.Sprintf("node-%d drains", m.ID)})
	case was.Succeeds != 0 && m.Holds():
		return append(all, news{At: at, Slot: m.Slot, What: fmt.Sprintf("node-%d has the name now, after node-%d", m.ID, was.Succeeds)})
	case was.State != m.State:
		return append(all, news{At: at, Slot: m.Slot, What: fmt.Sprintf("%s, was %s", m.State, was.State)})
	case was.Guest.Restarts != m.Guest.Restarts:
		return append(all, news{At: at, Slot: m.Slot, What: fmt.Sprintf("guest restarted (%d)", m.Guest.Restarts)})
	}
	return all
}

func (h history) leaves(all []news, id uint32, at time.Time) []news {
	m, known := h.members[id]
	if !known {
		return all
	}
	delete(h.members, id)
	h.left[id] = m.Slot
	return append(all, news{At: at, Slot: m.Slot, What: "left"})
}

// addNews puts the latest in front; the oldest go. The old list is not touched:
// it may be on its way to a page.
func addNews(old, latest []news) []news {
	if len(latest) == 0 {
		return old
	}
	next := 1
	if len(old) > 0 {
		next = old[0].ID + 1
	}
	list := make([]news, 0, len(latest)+len(old))
	for i := range latest {
		n := latest[len(latest)-1-i]
		n.ID = next + len(latest) - 1 - i
		list = append(list, n)
	}
	list = append(list, old...)
	return list[:min(len(list), maxNews)]
}
