// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// How the ends and the transports of a curve are drawn.
var (
	endsColors = map[string]string{
		"VM to VM": "#4477aa", "function to VM": "#228833", "VM to function": "#bb8800", "function to function": "#cc3366",
	}
	howDashes = map[string]string{"without Boxer": "6 4", "native": "", "direct": "", "punch": "", "relay": "1.5 3"}
)

func (c combination) stroke() string {
	dashes := howDashes[c.how]
	if c.how == "native" { // beside the direct one of the same colour
		return stroke("#66bbee", dashes)
	}
	return stroke(endsColors[c.ends], dashes)
}

// The size of the figure, and where its frames are.
const (
	figureWidth, figureHeight = 980, 840
	legendTop                 = 745
)

// figurePanels are by measure.
var figurePanels = map[string]panel{
	"rtt":          {left: 60, top: 40, width: 390, height: 270, first: 1, last: 10e3, title: "round trip of 1,024 bytes"},
	"connect":      {left: 560, top: 40, width: 390, height: 270, first: 10, last: 100e3, title: "socket, connect and first byte"},
	"link.rtt":     {left: 60, top: 400, width: 390, height: 270, first: 100, last: 10e3, title: "round trip of 1,024 bytes"},
	"link.connect": {left: 560, top: 400, width: 390, height: 270, first: 100, last: 100e3, title: "socket, connect and first byte"},
}

// plot draws the distributions: above what namespaces do, below with a delay.
func (f *figure) plot() string {
	var b strings.Builder
	svgHead(&b, figureWidth, figureHeight)
	for _, link := range fig8Links {
		for _, measure := range []string{link.prefix + "rtt", link.prefix + "connect"} {
			p := figurePanels[measure]
			p.grid(&b)
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" font-weight="bold">%s</text>`+"\n", p.left, p.top-12, link.title)
			for _, c := range combinations {
				if all := pool(f.results[measure][c.name]); len(all) > 0 {
					fmt.Fprintf(&b, `<path d="%s" %s/>`+"\n", p.path(all), c.stroke())
				}
			}
		}
	}
	legend(&b)
	b.WriteString("</svg>\n")
	return b.String()
}

// legend has a column for each pair of ends.
func legend(b *strings.Builder) {
	column, line, ends := -1, 0, ""
	for _, c := range combinations {
		if c.ends != ends {
			ends, line = c.ends, 0
			column++
			fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", 60+235*column, legendTop, ends)
		}
		line++
		y := legendTop + 20*line
		fmt.Fprintf(b, `<path d="M%d %d h30" %s/><text x="%d" y="%d">%s</text>`+"\n", 60+235*column, y-4, c.stroke(), 98+235*column, y, c.how)
	}
}

func fakePair(pair int, faster float64) pairResult {
	s := samples{}
	for _, c := range combinations {
		by := faster
		if c.transport == "" {
			by = 1
		}
		if c.name == "fn-vm.bare" {
			by = 1.25
		}
		for i := range 100 {
			for _, prefix := range []string{"", "link."} {
				s.add(prefix+"connect", c.name, by*1e5*float64(i+1))
				s.add(prefix+"rtt", c.name, by*1e4*float64(i+1))
			}
		}
		s.add("paused", c.name, by*1e6)
		s.add("cold", c.name, by*1e7)
	}
	p := pairResult{Run: fig8Run{Version: "1", Reps: 100}, Pair: pair, Load: fmt.Sprintf("%d.25 9 9", pair), Results: s.blocks(),
		Trips: map[string][]int{"vm-vm.bare": {4, 4, 4}, "fn-fn.punch": {5, 5, 9}}, Made: map[string]int{"fn-fn.punch": 99}, Wrong: map[string]int{"fn-fn.punch": 1}}
	return p
}

func TestTheFigureIsOfAllPairs(t *testing.T) {
	dir := t.TempDir()
	for pair := range 3 {
		p := fakePair(pair, 2)
		if err := p.keep(dir); err != nil {
			t.Fatal(err)
		}
	}
	f, err := readFigure(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := summariseAll(f.results["connect"]["fn-fn.punch"]); got.n != 300 || math.Abs(got.mean-101e5) > 1 || got.p50 != 102e5 || got.p90 != 182e5 || got.p99 != 2e7 {
		t.Errorf("%+v", got)
	}
	text := f.markdown()
	for _, want := range []string{
		"load 0.2 to 2.2, its own included", "3 endpoint pairs x 100 repetitions", "297 of 300 Boxer connections",
		"| function to function | punch | 10100 | 10200 | 18200 | 20000 | 2.000x | 2.000..2.000 | 2000 | 20000 |",
		"| function to function | punch | 10100 | 10200 | 18200 | 20000 | 2.000x | 2.000..2.000 | 2.5 (90 %: up to 4.5) |",
		"| VM to VM | without Boxer | 505 | 510 | 910 | 1000 | - | - |\n",
		"| function to function | punch | 1010 | 1020 | 1820 | 2000 | 1.600x | 1.600..1.600 |\n",
		"median |  | 2.00 | 2.50 | - | - | - | <= 4 | yes |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	svg := f.plot()
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
		t.Errorf("not XML: %v", err)
	}
	if got := strings.Count(svg, " L"); got != 4*len(combinations)*200 {
		t.Errorf("%d lines drawn, want 200 of each of %d curves in four frames", got, len(combinations))
	}
	if p := figurePanels["connect"]; !strings.Contains(svg, fmt.Sprintf(" L%.1f %.1f L", p.x(10200), p.y(0.5))) {
		t.Error("no curve has half of its connections by 10.2 ms")
	}
	other := fakePair(3, 2)
	other.Run.Reps = 7
	if err := f.take(other); err == nil || !strings.Contains(err.Error(), "BOXER_FIG8_FIRST=0") {
		t.Errorf("pairs measured otherwise: %v", err)
	}
	if _, err := readFigure(t.TempDir()); err == nil {
		t.Error("a figure of nothing")
	}
}

func TestGoalsOfTheFigureAreHeldPairByPair(t *testing.T) {
	met := func(faster float64) (all []bool) {
		f := &figure{results: results{}, trips: map[string][]float64{}}
		for pair := range 4 {
			if err := f.take(fakePair(pair, faster)); err != nil {
				t.Fatal(err)
			}
		}
		for _, one := range f.goals() {
			all = append(all, one.Met != nil && *one.Met)
		}
		return all
	}
	if got := met(1.01); slices.Contains(got, false) {
		t.Errorf("one percent more: %v, want all met", got)
	}
	if got, want := met(4), []bool{false, false, false, false, false, true}; !slices.Equal(got, want) {
		t.Errorf("four times as much: %v, want %v", got, want)
	}
}

func TestAFigureWithoutTheLinkSaysWhy(t *testing.T) {
	p := fakePair(0, 1)
	p.NoLink, p.Trips = "it takes root", nil
	delete(p.Results, "link.connect")
	delete(p.Results, "link.rtt")
	f := &figure{results: results{}, trips: map[string][]float64{}}
	if err := f.take(p); err != nil {
		t.Fatal(err)
	}
	text := f.markdown()
	if !strings.Contains(text, "Not measured: it takes root") || strings.Count(text, "| not measured |") != 2 {
		t.Errorf("%s", text)
	}
	if got := strings.Count(f.plot(), " L"); got != 2*len(combinations)*200 {
		t.Errorf("%d lines drawn", got)
	}
}

func TestARepetitionIsReadWhole(t *testing.T) {
	line := "1000 2000" + strings.Repeat(" 7", fig8Rounds)
	r, err := parseRepetition(line + "\n")
	if err != nil || r.began != 1000 || r.first != 2000 || len(r.rounds) != fig8Rounds || r.rounds[fig8Rounds-1] != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := parseRepetition("1000 2000\n"); err != nil || r.first != 2000 || len(r.rounds) != 0 {
		t.Errorf("without round trips: %+v, %v", r, err)
	}
	for _, bad := range []string{"", line + " 7", strings.Replace(line, "2000", "x", 1), strings.Replace(line, "2000", "0", 1)} {
		if _, err := parseRepetition(bad); err == nil {
			t.Errorf("%.30q: want an error", bad)
		}
	}
}
