// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// Bounds of what is shown.
const (
	maxLines = 6   // of a guest
	maxLine  = 240 // runes of a line
	maxPairs = 200
	maxWord  = 120 // runes of anything else that members say
)

// view is what the page shows, in words; the template only lays it out.
type view struct {
	Network, CIDR string
	Query         string
	Problem       string // why the rest is not of now
	AsOf          time.Time
	States        []count
	Nodes         []nodeRow
	Total         int // nodes, shown or not
	Services      []serviceRow
	Pairs         []pairRow
	MorePairs     int
	Picture       *picture
	News          []news
}

type count struct {
	State, Mark string
	N           int
}

type nodeRow struct {
	Key                    string // on the page
	ID                     uint32 // 0: of none, it is dormant
	Slot, Service, Kind    string
	State, Mark            string
	Guest, Error           string
	Restarts               int
	Address, Behind, Ports string
	Since                  time.Time
	Age                    string
	Last                   string
	Lines                  []string
	searched               string
}

type serviceRow struct {
	Name    string
	Running int
	Total   int
	Ports   string
	Holders []holder
}

type holder struct{ Slot, State, Mark, Address string }

type pairRow struct {
	Key, From, To string
	Transports    []use
	total         uint64
}

type use struct{ Transport, Count string }

// marks say a state without colour.
var marks = map[string]string{
	cluster.StateStarting: "◐",
	cluster.StateRunning:  "●",
	cluster.StateExited:   "○",
	cluster.StateFailed:   "✕",
	cluster.StateLost:     "?",
	cluster.StateDormant:  "◌",
}

var stateOrder = []string{cluster.StateRunning, cluster.StateStarting, cluster.StateExited, cluster.StateFailed, cluster.StateLost, cluster.StateDormant}

func (d *Dashboard) view(now snapshot, query string) view {
	query = clean(query, maxWord)
	v := view{
		Network: d.o.Network, CIDR: d.o.CIDR, Query: query, AsOf: now.at,
		Total: len(now.facts.Members) + len(now.facts.Dormant), News: now.history.news,
	}
	if now.err != nil {
		v.Problem = clean(now.err.Error(), 4*maxWord)
	}
	members := slices.Clone(now.facts.Members)
	slices.SortFunc(members, func(a, b cluster.Member) int { return cmp.Compare(a.ID, b.ID) })
	members = append(members, now.facts.Dormant...)
	states := map[string]int{}
	for _, m := range members {
		states[m.State]++
		row := newNodeRow(m, now.facts.Lines[m.Slot], now.at)
		if row.matches(query) {
			v.Nodes = append(v.Nodes, row)
		}
	}
	for _, s := range stateOrder {
		if states[s] > 0 {
			v.States = append(v.States, count{s, marks[s], states[s]})
		}
	}
	v.Services = services(members)
	v.Pairs = pairs(members, now.history.left, now.facts.Paths)
	v.Picture = draw(members, now.facts.Paths)
	if more := len(v.Pairs) - maxPairs; more > 0 {
		v.Pairs, v.MorePairs = v.Pairs[:maxPairs], more
	}
	return v
}

func newNodeRow(m cluster.Member, lines []string, now time.Time) nodeRow {
	row := nodeRow{
		ID: m.ID, Slot: clean(m.Slot, maxWord), Service: clean(m.Service, maxWord), Kind: clean(m.Kind, maxWord),
		State: clean(m.State, maxWord), Mark: marks[m.State],
		Guest: guestWord(m), Error: clean(m.Guest.Error, 2*maxWord), Restarts: m.Guest.Restarts,
		Address: m.OverlayAddress.String(), Ports: ports(m.Listeners),
		Since: m.Since.Local(), Age: age(now.Sub(m.Since)),
	}
	row.Key = fmt.Sprintf("node-%d", m.ID)
	if m.State == cluster.StateDormant {
		row.Key, lines = "dormant-"+row.Slot, nil
	} else if m.NAT == cluster.NATBehind {
		row.Behind = "behind NAT"
	}
	for _, line := range lines[max(0, len(lines)-maxLines):] {
		row.Lines = append(row.Lines, clean(line, maxLine))
	}
	if n := len(row.Lines); n > 0 {
		row.Last = row.Lines[n-1]
	}
	row.searched = strings.ToLower(strings.Join([]string{
		row.Key, row.Slot, row.Service, row.Kind, row.State, row.Guest, row.Error, row.Address, row.Behind, row.Last,
	}, "\n"))
	return row
}

// matches: every word of the query is somewhere in the row.
func (r *nodeRow) matches(query string) bool {
	for _, word := range strings.Fields(strings.ToLower(query)) {
		if !strings.Contains(r.searched, word) {
			return false
		}
	}
	return true
}

// guestWord says of the guest what the node's state does not.
func guestWord(m cluster.Member) string {
	switch {
	case m.Retired:
		return "draining"
	case m.Succeeds != 0:
		return fmt.Sprintf("successor of node-%d", m.Succeeds)
	case m.Guest.State == cluster.GuestExited && m.Guest.ExitCode != nil:
		return "exit status " + strconv.Itoa(*m.Guest.ExitCode)
	case m.Guest.State == cluster.GuestWaiting && m.Guest.Restarts > 0:
		return "starts again soon"
	case m.Guest.State == cluster.GuestWaiting && m.Guest.WaitsFor != "":
		return "waits for " + clean(m.Guest.WaitsFor, maxWord)
	case m.Guest.State == cluster.GuestWaiting:
		return "waits"
	}
	return ""
}

func services(members []cluster.Member) []serviceRow {
	byName := map[string]*serviceRow{}
	listeners := map[string][]uint16{}
	for _, m := range members {
		name := clean(m.Service, maxWord)
		s := byName[name]
		if s == nil {
			s = &serviceRow{Name: name}
			byName[name] = s
		}
		if m.Holds() && m.State != cluster.StateDormant {
			s.Total++
			if m.State == cluster.StateRunning {
				s.Running++
			}
		}
		s.Holders = append(s.Holders, holder{clean(m.Slot, maxWord), clean(m.State, maxWord), marks[m.State], m.OverlayAddress.String()})
		listeners[name] = append(listeners[name], m.Listeners...)
	}
	rows := make([]serviceRow, 0, len(byName))
	for name, s := range byName {
		slices.Sort(listeners[name])
		slices.SortFunc(s.Holders, func(a, b holder) int { return cmp.Compare(a.Slot, b.Slot) })
		s.Ports = ports(slices.Compact(listeners[name]))
		rows = append(rows, *s)
	}
	slices.SortFunc(rows, func(a, b serviceRow) int { return cmp.Compare(a.Name, b.Name) })
	return rows
}

// pairs puts the transports of each pair side by side, the busiest pair first.
// Those that left are one per name: a command may have run often.
func pairs(members []cluster.Member, left map[uint32]string, paths []cluster.Path) []pairRow {
	slots := make(map[uint32]string, len(members))
	for _, m := range members {
		slots[m.ID] = clean(m.Slot, maxWord)
	}
	name := func(id uint32) string {
		if s, ok := slots[id]; ok {
			return s
		}
		if s, ok := left[id]; ok {
			return clean(s, maxWord) + " (left)"
		}
		return fmt.Sprintf("node-%d (left)", id)
	}
	counts := map[[2]string]map[string]uint64{}
	for _, p := range paths {
		key := [2]string{name(p.From), name(p.To)}
		if counts[key] == nil {
			counts[key] = map[string]uint64{}
		}
		counts[key][clean(p.Transport, maxWord)] += p.Count
	}
	rows := make([]pairRow, 0, len(counts))
	for key, uses := range counts {
		row := pairRow{Key: strings.ReplaceAll(key[0]+"-to-"+key[1], " ", "-"), From: key[0], To: key[1]}
		for _, transport := range slices.Sorted(maps.Keys(uses)) {
			row.Transports = append(row.Transports, use{transport, counted(transport, uses[transport])})
			row.total += uses[transport]
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b pairRow) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.Key, b.Key))
	})
	return rows
}

// counted marks what was counted by sampling, as `boxer paths` does.
func counted(transport string, n uint64) string {
	if transport == config.TransportNative {
		return "~" + strconv.FormatUint(n, 10)
	}
	return strconv.FormatUint(n, 10)
}

// ports in words; many are cut short.
func ports(list []uint16) string {
	const most = 6
	var b strings.Builder
	for i, p := range list {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(list)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(int(p)))
	}
	return b.String()
}

// age is coarse on purpose: a page that says seconds differs every second.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "under 1 min"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// clean makes what others wrote presentable: valid, on one line, without
// terminal colours or characters that turn the text around them, and short.
func clean(s string, most int) string {
	s = stripEscapes(s)
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029':
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "…"
	}
	return s
}

// stripEscapes drops terminal sequences: ESC [ ... letter, and ESC with one byte.
func stripEscapes(s string) string {
	if !strings.ContainsRune(s, '\x1b') {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\x1b' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i < len(s) && s[i] == '[' {
			for i++; i < len(s) && (s[i] < '@' || s[i] > '~'); i++ {
			}
		}
	}
	return b.String()
}
