// SPDX-License-Identifier: Apache-2.0

package capacity

import (
	"fmt"
	"math"
	"strings"
)

// The figure has the width of a page, and two frames one above the other.
const (
	figureWidth, figureHeight = 760, 570
	frameLeft, frameWidth     = 60, 530
	costTop, costHeight       = 30, 230
	loadTop, loadHeight       = 330, 210
)

var colors = [len(multipliers)]string{"#4477aa", "#228833", "#ccbb44", "#ee6677"}

const (
	vmColor, functionColor = "#1f5fa8", "#e8a15a"
	mostCost, leastCost    = 4.0, 0.02 // of the axis, relative to VMs for the peak
)

// drawing writes SVG.
type drawing struct{ strings.Builder }

func (d *drawing) put(format string, values ...any) { fmt.Fprintf(&d.Builder, format+"\n", values...) }

func (d *drawing) text(x, y float64, anchor, text string) {
	d.put(`<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, text)
}

// ruleX and ruleY are lines of a grid with what they stand for.
func (d *drawing) ruleX(x, top, height float64, text string) {
	d.put(`<path d="M%.1f %.1f v%.1f" stroke="#ddd"/>`, x, top, height)
	d.text(x, top+height+17, "middle", text)
}

func (d *drawing) ruleY(y float64, text string) {
	d.put(`<path d="M%d %.1f h%d" stroke="#ddd"/>`, frameLeft, y, frameWidth)
	d.text(frameLeft-6, y+4, "end", text)
}

// SVG draws the cost of every split, and the load as the best one serves it.
func (p *Plan) SVG() string {
	d := new(drawing)
	d.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, figureWidth, figureHeight)
	d.put(`<rect width="100%%" height="100%%" fill="white"/>`)
	p.drawCost(d)
	p.drawLoad(d)
	d.put(`</svg>`)
	return d.String()
}

// drawCost: over the share of the seconds in which VMs are enough, the cost of
// each split relative to VMs for the peak.
func (p *Plan) drawCost(d *drawing) {
	x := func(share float64) float64 { return frameLeft + frameWidth*share }
	y := func(cost float64) float64 {
		at := math.Log(mostCost/cost) / math.Log(mostCost/leastCost)
		return costTop + costHeight*min(max(at, 0), 1)
	}
	d.text(frameLeft, costTop-12, "start", "Cost relative to VMs for the peak, logarithmic")
	for percent := 0; percent <= 100; percent += 20 {
		d.ruleX(x(float64(percent)/100), costTop, costHeight, fmt.Sprintf("%d %%", percent))
	}
	d.text(frameLeft+frameWidth/2, costTop+costHeight+35, "middle", "seconds in which the baseline of VMs is enough")
	for _, cost := range []float64{0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4} {
		d.ruleY(y(cost), fmt.Sprintf("%g %%", 100*cost))
	}
	whole := p.cost(p.Peak, 0)
	for i, s := range p.Splits {
		d.put(`<path d="M`)
		for step := 0; step <= 200; step++ {
			share, baseline := float64(step)/200, 0.0
			if step > 0 {
				baseline = p.load.percentile(100 * share)
			}
			d.put(`%.1f %.1f`, x(share), y(p.cost(baseline, s.FunctionRequirement)/whole))
		}
		d.put(`" fill="none" stroke="%s" stroke-width="1.8"/>`, colors[i])
		d.put(`<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`, x(s.SecondsShare), y(s.CostPerHour/whole), colors[i])
		line := float64(costTop + 14 + 38*i)
		d.put(`<path d="M%d %.1f h20" stroke="%s" stroke-width="1.8"/>`, frameLeft+frameWidth+12, line-4, colors[i])
		d.text(frameLeft+frameWidth+38, line, "start", fmt.Sprintf("functions, %gx", s.FunctionRequirement))
		d.text(frameLeft+frameWidth+38, line+15, "start", fmt.Sprintf("best at %.0f %%", 100*s.SecondsShare))
	}
}

// drawLoad: the most requests of the seconds that share a column, up to the baseline and above.
func (p *Plan) drawLoad(d *drawing) {
	columns := min(frameWidth, p.Seconds)
	top := niceAbove(p.Peak)
	y := func(requests float64) float64 { return loadTop + loadHeight*(1-requests/top) }
	d.text(frameLeft, loadTop-12, "start", "Requests/s, the most in each column; split for functions, 1x")
	for i := range 5 {
		d.ruleY(y(top*float64(i)/4), fmt.Sprintf("%.4g", top*float64(i)/4))
		d.ruleX(frameLeft+frameWidth*float64(i)/4, loadTop, loadHeight, duration(float64(p.Seconds)*float64(i)/4))
	}
	best := p.Splits[0].VMRequestsPerSecond
	for _, area := range []struct {
		color string
		limit float64
	}{{functionColor, p.Peak}, {vmColor, best}} {
		d.put(`<path d="M%d %d`, frameLeft, loadTop+loadHeight)
		for c := range columns {
			most := 0.0
			for _, requests := range p.load.trace[c*p.Seconds/columns : (c+1)*p.Seconds/columns] {
				most = max(most, requests)
			}
			d.put(`V%.1f h%.4g`, y(min(most, area.limit)), float64(frameWidth)/float64(columns))
		}
		d.put(`V%d z" fill="%s"/>`, loadTop+loadHeight, area.color)
	}
	for i, entry := range []struct{ color, text string }{{functionColor, "functions"}, {vmColor, fmt.Sprintf("VMs: %.3g/s", best)}} {
		line := loadTop + 14 + 22*i
		d.put(`<rect x="%d" y="%d" width="20" height="11" fill="%s"/>`, frameLeft+frameWidth+12, line-10, entry.color)
		d.text(frameLeft+frameWidth+38, float64(line), "start", entry.text)
	}
}

// niceAbove has quarters with few digits.
func niceAbove(value float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(value)))
	for _, n := range []float64{1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8} {
		if n*unit >= value {
			return n * unit
		}
	}
	return 10 * unit
}

// duration of so many seconds, in the largest unit that is there.
func duration(seconds float64) string {
	switch {
	case seconds == 0:
		return "0"
	case seconds >= 48*3600:
		return fmt.Sprintf("%.3g d", seconds/86400)
	case seconds >= 2*3600:
		return fmt.Sprintf("%.3g h", seconds/3600)
	case seconds >= 120:
		return fmt.Sprintf("%.3g min", seconds/60)
	}
	return fmt.Sprintf("%.3g s", seconds)
}
