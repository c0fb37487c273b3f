// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// Measures of the picture, in its own units.
const (
	boxWidth, boxHeight = 180, 56
	gapX, gapY          = 140, 30
	lineHeight          = 14
	margin              = 16
	perRow              = 4 // of services that nobody talks to
	maxBoxes            = 24
	maxTitle            = 20 // runes
)

// picture shows who talks to whom: callers on the left of what they call.
type picture struct {
	Width, Height int
	Boxes         []*box
	Edges         []*edge
	Transports    []string // that occur, for the legend
	Words         string   // the same for those who do not see it
}

// box is one service.
type box struct {
	Name, Title, Kind, Detail string
	Behind                    bool
	X, Y                      int
	in, out                   []*edge
	layer                     int
	state                     byte // of the search for cycles
}

// edge is the connections from one service to another.
type edge struct {
	Path     string
	Labels   []label // a line for each transport
	Main     string  // the transport most used
	from, to *box
	uses     map[string]uint64
	back     bool // closes a circle, or skips a layer: drawn below
}

type label struct {
	X, Y  int
	Words string
}

// draw lays the picture out; nil if there is nothing to draw or too much.
func draw(members []cluster.Member, paths []cluster.Path) *picture {
	boxes := newBoxes(members)
	if len(boxes) == 0 || len(boxes) > maxBoxes {
		return nil
	}
	p := &picture{Boxes: slices.SortedFunc(maps.Values(boxes), func(a, b *box) int { return cmp.Compare(a.Name, b.Name) })}
	p.connect(members, boxes, paths)
	for _, b := range p.Boxes {
		if b.state == 0 {
			b.findCircles()
		}
	}
	p.place()
	p.route()
	p.describe()
	return p
}

// newBoxes makes a box per service; seeds carry no guests.
func newBoxes(members []cluster.Member) map[string]*box {
	boxes := map[string]*box{}
	running, total, dormant := map[string]int{}, map[string]int{}, map[string]bool{}
	for _, m := range members {
		if m.Kind == config.KindSeed {
			continue
		}
		b := boxes[m.Service]
		if b == nil {
			b = &box{Name: clean(m.Service, maxWord), Kind: clean(m.Kind, maxWord)}
			boxes[m.Service] = b
		} else if b.Kind != m.Kind {
			b.Kind = "mixed"
		}
		b.Behind = b.Behind || m.NAT == cluster.NATBehind
		if dormant[m.Service] = dormant[m.Service] || m.State == cluster.StateDormant; !m.Holds() || m.State == cluster.StateDormant {
			continue
		}
		total[m.Service]++
		if m.State == cluster.StateRunning {
			running[m.Service]++
		}
	}
	for service, b := range boxes {
		b.Title = clean(b.Name, maxTitle)
		b.Detail = fmt.Sprintf("%s · %d of %d running", b.Kind, running[service], total[service])
		if total[service] == 0 && dormant[service] {
			b.Detail = b.Kind + " · dormant"
		}
	}
	return boxes
}

// connect sums the paths of live members up by service.
func (p *picture) connect(members []cluster.Member, boxes map[string]*box, paths []cluster.Path) {
	services := make(map[uint32]*box, len(members))
	for _, m := range members {
		services[m.ID] = boxes[m.Service]
	}
	byPair := map[[2]*box]*edge{}
	transports := map[string]bool{}
	for _, path := range paths {
		from, to := services[path.From], services[path.To]
		if from == nil || to == nil {
			continue
		}
		e := byPair[[2]*box{from, to}]
		if e == nil {
			e = &edge{from: from, to: to, uses: map[string]uint64{}}
			byPair[[2]*box{from, to}] = e
		}
		transport := clean(path.Transport, maxWord)
		e.uses[transport] += path.Count
		transports[transport] = true
	}
	p.Edges = slices.SortedFunc(maps.Values(byPair), func(a, b *edge) int {
		return cmp.Or(cmp.Compare(a.from.Name, b.from.Name), cmp.Compare(a.to.Name, b.to.Name))
	})
	p.Transports = slices.Sorted(maps.Keys(transports))
	for _, e := range p.Edges {
		for _, t := range slices.Sorted(maps.Keys(e.uses)) {
			e.Labels = append(e.Labels, label{Words: t + " " + counted(t, e.uses[t])})
			if e.Main == "" || e.uses[t] > e.uses[e.Main] {
				e.Main = t
			}
		}
		e.from.out = append(e.from.out, e)
		e.to.in = append(e.to.in, e)
	}
}

// findCircles marks the edges that lead back to where the search came from.
func (b *box) findCircles() {
	b.state = 1
	for _, e := range b.out {
		switch e.to.state {
		case 0:
			e.to.findCircles()
		case 1:
			e.back = true
		}
	}
	b.state = 2
}

// place gives every box its place: a column per layer, and below them rows of
// those without connections.
func (p *picture) place() {
	for range p.Boxes { // the longest way from a caller that nobody calls
		for _, e := range p.Edges {
			if !e.back {
				e.to.layer = max(e.to.layer, e.from.layer+1)
			}
		}
	}
	var layers [][]*box
	var alone []*box
	for _, b := range p.Boxes {
		if len(b.in)+len(b.out) == 0 {
			alone = append(alone, b)
			continue
		}
		for len(layers) <= b.layer {
			layers = append(layers, nil)
		}
		layers[b.layer] = append(layers[b.layer], b)
	}
	tallest := 0
	for _, layer := range layers {
		tallest = max(tallest, len(layer))
	}
	for i, layer := range layers {
		slices.SortStableFunc(layer, func(a, b *box) int { return cmp.Compare(a.callers(), b.callers()) })
		top := margin + (tallest-len(layer))*(boxHeight+gapY)/2
		for j, b := range layer {
			b.X, b.Y = margin+i*(boxWidth+gapX), top+j*(boxHeight+gapY)
		}
	}
	y := margin + tallest*(boxHeight+gapY)
	for _, e := range p.Edges {
		if e.back = e.back || e.to.layer > e.from.layer+1; e.back {
			y += e.room()
		}
	}
	for i, b := range alone {
		b.X, b.Y = margin+i%perRow*(boxWidth+margin), y+i/perRow*(boxHeight+margin)
	}
	for _, b := range p.Boxes {
		p.Width, p.Height = max(p.Width, b.X+boxWidth+margin), max(p.Height, b.Y+boxHeight+margin)
	}
	p.Height = max(p.Height, y)
}

// room is what an edge needs that is drawn below.
func (e *edge) room() int { return max(gapY, lineHeight*(len(e.Labels)+1)) }

// callers is where a box's callers are, on average.
func (b *box) callers() int {
	sum, n := 0, 0
	for _, e := range b.in {
		if !e.back && e.from != b {
			sum, n = sum+e.from.Y, n+1
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// route draws the edges; those that meet at one side of a box share it out.
func (p *picture) route() {
	below := 0
	for _, e := range p.Edges {
		below = max(below, e.from.Y+boxHeight, e.to.Y+boxHeight)
	}
	for _, e := range p.Edges {
		if e.back {
			below += e.room()
			e.under(below)
			continue
		}
		x1, x2 := e.from.X+boxWidth, e.to.X
		y1 := e.from.Y + share(e.from.out, e, func(e *edge) int { return e.to.Y })
		y2 := e.to.Y + share(e.to.in, e, func(e *edge) int { return e.from.Y })
		bend := (x2 - x1) / 2
		e.Path = fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2-bend, y2, x2-6, y2)
		above := 6
		if steep := y2 - y1; steep > boxHeight/4 || -steep > boxHeight/4 {
			above = -4 // across the line, which would run into it
		}
		e.label((x1+x2)/2, (y1+y2)/2-above)
	}
}

// under leads an edge below everything else.
func (e *edge) under(y int) {
	x1, x2 := e.from.X+boxWidth/2+20, e.to.X+boxWidth/2-20
	top1, top2 := e.from.Y+boxHeight, e.to.Y+boxHeight
	e.Path = fmt.Sprintf("M%d %dV%dQ%d %d %d %dH%dQ%d %d %d %dV%d",
		x1, top1, y-8, x1, y, x1+step(x1, x2), y, x2-step(x1, x2), x2, y, x2, y-8, top2+6)
	e.label((x1+x2)/2, y-6)
}

// label stacks the words on a point.
func (e *edge) label(x, y int) {
	for i := range e.Labels {
		e.Labels[i].X, e.Labels[i].Y = x, y-lineHeight*(len(e.Labels)-1-i)
	}
}

func step(from, to int) int {
	if to < from {
		return -8
	}
	return 8
}

// share is where e meets a side of a box, from the box's top.
func share(all []*edge, e *edge, other func(*edge) int) int {
	var side []*edge
	for _, o := range all {
		if !o.back {
			side = append(side, o)
		}
	}
	slices.SortStableFunc(side, func(a, b *edge) int { return cmp.Compare(other(a), other(b)) })
	return boxHeight * (slices.Index(side, e) + 1) / (len(side) + 1)
}

func (p *picture) describe() {
	var words []string
	for _, e := range p.Edges {
		var uses []string
		for _, l := range e.Labels {
			uses = append(uses, l.Words)
		}
		words = append(words, fmt.Sprintf("%s to %s: %s", e.from.Name, e.to.Name, strings.Join(uses, ", ")))
	}
	p.Words = "No connections between services yet."
	if len(words) > 0 {
		p.Words = "Connections. " + strings.Join(words, "; ") + "."
	}
}
