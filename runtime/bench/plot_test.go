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

// The size of the plot, of the frame in it, and of its time axis.
const (
	plotWidth, plotHeight   = 760, 360
	frameLeft, frameTop     = 50, 15
	frameWidth, frameHeight = 500, 300
	firstMicrosecond        = 10.0
	lastMicrosecond         = 100e3
)

func plotX(us float64) float64 {
	at := math.Log10(us/firstMicrosecond) / math.Log10(lastMicrosecond/firstMicrosecond)
	return frameLeft + frameWidth*min(max(at, 0), 1)
}

func plotY(share float64) float64 { return frameTop + frameHeight*(1-share) }

// plot draws which share of the connections had their first byte after how
// long; a curve that was not measured is left out.
func plot(r results) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n", plotWidth, plotHeight)
	for us := firstMicrosecond; us <= lastMicrosecond; us *= 10 {
		label := fmt.Sprintf("%g µs", us)
		if us >= 1000 {
			label = fmt.Sprintf("%g ms", us/1000)
		}
		x := plotX(us)
		fmt.Fprintf(&b, `<path d="M%.1f %d v%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x, frameTop, frameHeight, x, frameTop+frameHeight+18, label)
	}
	for _, share := range []float64{0, 0.25, 0.5, 0.75, 0.99} {
		y := plotY(share)
		fmt.Fprintf(&b, `<path d="M%d %.1f h%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f %%</text>`+"\n",
			frameLeft, y, frameWidth, frameLeft-6, y+4, 100*share)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">socket, connect and first byte</text>`+"\n",
		frameLeft+frameWidth/2, plotHeight-8)
	named := 0
	for _, c := range connectCurves {
		all := pool(r[c.measure][c.side])
		if len(all) == 0 {
			continue
		}
		dash := ""
		if c.dashed {
			dash = ` stroke-dasharray="5 4"`
		}
		y := frameTop + 16 + 20*named
		named++
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.8"%s/>`+"\n", c.path(all), c.color, dash)
		fmt.Fprintf(&b, `<path d="M%d %d h24" stroke="%s" stroke-width="1.8"%s/><text x="%d" y="%d">%s</text>`+"\n",
			frameLeft+frameWidth+12, y-4, c.color, dash, frameLeft+frameWidth+42, y, c.title)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// path of the distribution function, at two hundred shares.
func (c curve) path(all []sample) string {
	var b strings.Builder
	command := "M"
	const steps = 200
	for i := range steps + 1 {
		share := float64(i) / steps
		at := all[min(int(share*float64(len(all))), len(all)-1)]
		fmt.Fprintf(&b, "%s%.1f %.1f", command, plotX(at.value/1e3), plotY(share))
		command = " L"
	}
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
	if x := plotX(100); x != frameLeft+frameWidth/4 {
		t.Errorf("100 us at %v", x)
	}
	if !strings.Contains(svg, "native, VM to VM") || strings.Contains(svg, "Boxer relay") {
		t.Errorf("not exactly what was measured:\n%s", svg)
	}
}
