// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"testing"
)

// curve is one distribution of the plot.
type curve struct {
	title, measure, side string
	color                string
	dashed               bool // native
}

// connectCurves are drawn in this order, and named so beside the plot.
var connectCurves = []curve{
	{"native, VM to VM", "native.connect", "native", "#4477aa", true},
	{"Boxer native", "native.connect", "boxer", "#4477aa", false},
	{"native, function to VM", "direct.connect", "native", "#228833", true},
	{"Boxer direct", "direct.connect", "boxer", "#228833", false},
	{"native, 200 µs link", "link.connect", "native", "#ccbb44", true},
	{"Boxer direct, 200 µs link", "link.connect", "boxer", "#ccbb44", false},
	{"Boxer punch, function to function", "punch.connect", "boxer", "#aa3377", false},
	{"Boxer relay", "relay.connect", "boxer", "#ee6677", false},
}

// The size of the plot, and the frame in it.
const plotWidth, plotHeight = 760, 360

var connectPanel = panel{left: 50, top: 15, width: 500, height: 300, first: 10, last: 100e3, title: "socket, connect and first byte"}

// panel is one frame of distributions: microseconds, by powers of ten, and shares.
type panel struct {
	left, top, width, height float64
	first, last              float64 // microseconds
	title                    string  // below
}

func (p panel) x(us float64) float64 {
	at := math.Log10(us/p.first) / math.Log10(p.last/p.first)
	return p.left + p.width*min(max(at, 0), 1)
}

func (p panel) y(share float64) float64 { return p.top + p.height*(1-share) }

// svgHead opens a picture.
func svgHead(b *strings.Builder, width, height int) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n", width, height)
}

// grid draws the axes.
func (p panel) grid(b *strings.Builder) {
	for us := p.first; us <= p.last; us *= 10 {
		label := fmt.Sprintf("%g µs", us)
		if us >= 1000 {
			label = fmt.Sprintf("%g ms", us/1000)
		}
		fmt.Fprintf(b, `<path d="M%.1f %.1f v%.1f" stroke="#ddd"/><text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n",
			p.x(us), p.top, p.height, p.x(us), p.top+p.height+18, label)
	}
	for _, share := range []float64{0, 0.25, 0.5, 0.75, 0.99} {
		fmt.Fprintf(b, `<path d="M%.1f %.1f h%.1f" stroke="#ddd"/><text x="%.1f" y="%.1f" text-anchor="end">%.0f %%</text>`+"\n",
			p.left, p.y(share), p.width, p.left-6, p.y(share)+4, 100*share)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", p.left+p.width/2, p.top+p.height+37, p.title)
}

// stroke of a curve, and of its line in a legend.
func stroke(color, dashes string) string {
	if dashes != "" {
		dashes = fmt.Sprintf(` stroke-dasharray="%s"`, dashes)
	}
	return fmt.Sprintf(`fill="none" stroke="%s" stroke-width="1.8"%s`, color, dashes)
}

// path of the distribution function, at two hundred shares.
func (p panel) path(all []sample) string {
	var b strings.Builder
	command := "M"
	const steps = 200
	for i := range steps + 1 {
		share := float64(i) / steps
		at := all[min(int(share*float64(len(all))), len(all)-1)]
		fmt.Fprintf(&b, "%s%.1f %.1f", command, p.x(at.value/1e3), p.y(share))
		command = " L"
	}
	return b.String()
}

// plot draws which share of the connections had their first byte after how
// long; a curve that was not measured is left out.
func plot(r results) string {
	var b strings.Builder
	p := connectPanel
	svgHead(&b, plotWidth, plotHeight)
	p.grid(&b)
	named := 0.0
	for _, c := range connectCurves {
		all := pool(r[c.measure][c.side])
		if len(all) == 0 {
			continue
		}
		dashes := ""
		if c.dashed {
			dashes = "5 4"
		}
		line := stroke(c.color, dashes)
		y := p.top + 16 + 20*named
		named++
		fmt.Fprintf(&b, `<path d="%s" %s/>`+"\n", p.path(all), line)
		fmt.Fprintf(&b, `<path d="M%.1f %.1f h24" %s/><text x="%.1f" y="%.1f">%s</text>`+"\n",
			p.left+p.width+12, y-4, line, p.left+p.width+42, y, c.title)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func TestThePlotShowsWhatWasMeasured(t *testing.T) {
	r := results{}
	if err := r.add([]byte(`{"label":"native.connect/native/0","n":3,"p50":100000,"samples":[50000,100000,100000000]}`)); err != nil {
		t.Fatal(err)
	}
	svg := plot(r)
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
		t.Errorf("not XML: %v", err)
	}
	// 100 us are a quarter of the way from 10 us to 100 ms.
	if x := connectPanel.x(100); x != connectPanel.left+connectPanel.width/4 {
		t.Errorf("100 us at %v", x)
	}
	if !strings.Contains(svg, "native, VM to VM") || strings.Contains(svg, "Boxer relay") {
		t.Errorf("not exactly what was measured:\n%s", svg)
	}
}
