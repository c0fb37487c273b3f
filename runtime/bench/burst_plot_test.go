// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// drawBurst draws what the variants left in a directory: a figure and a table.
func drawBurst(dir string) error {
	all := map[string]traced{}
	for _, v := range variants {
		text, err := os.ReadFile(filepath.Join(dir, "burst-"+v.Name+".json"))
		if errors.Is(err, os.ErrNotExist) {
			continue // measured another time
		}
		var tr traced
		if err == nil {
			err = json.Unmarshal(text, &tr)
		}
		if err != nil {
			return err
		}
		all[v.Name] = tr
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "burst.svg"), []byte(burstFigure(all)), 0o644),
		os.WriteFile(filepath.Join(dir, "burst-table.md"), []byte(burstTable(all)), 0o644))
}

const burstLeft, burstTop, burstWidth, burstHeight = 60.0, 20.0, 670.0, 260.0

// burstFigure draws answers per second over time.
func burstFigure(all map[string]traced) string {
	var b strings.Builder
	svgHead(&b, 760, 410)
	most := 1.0
	for _, tr := range all {
		for _, n := range tr.Bins {
			most = max(most, float64(n)*float64(time.Second)/float64(burstBin))
		}
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	if most/step < 4 {
		step /= 2
	}
	most = math.Ceil(most/step) * step
	x := func(at time.Duration) float64 {
		return burstLeft + burstWidth*float64(at)/float64(burstLasts)
	}
	y := func(perSecond float64) float64 { return burstTop + burstHeight*(1-perSecond/most) }
	for at := time.Duration(0); at <= burstLasts; at += 10 * time.Second {
		fmt.Fprintf(&b, `<path d="M%.1f %.1f v%.1f" stroke="#eee"/><text x="%.1f" y="%.1f" text-anchor="middle">%.0f s</text>`+"\n",
			x(at), burstTop, burstHeight, x(at), burstTop+burstHeight+17, at.Seconds())
	}
	for n := 0.0; n <= most; n += step {
		fmt.Fprintf(&b, `<path d="M%.1f %.1f h%.1f" stroke="#eee"/><text x="%.1f" y="%.1f" text-anchor="end">%g</text>`+"\n",
			burstLeft, y(n), burstWidth, burstLeft-6, y(n)+4, n)
	}
	fmt.Fprintf(&b, `<path d="M%.1f %.1f v%.1f" stroke="#333" stroke-dasharray="5 4"/>`+"\n", x(burstScaled), burstTop, burstHeight)
	fmt.Fprintf(&b, `<text x="%.1f" y="%.1f">scaled by %d</text>`+"\n", x(burstScaled)+5, burstTop+12, burstSize)
	fmt.Fprintf(&b, `<text transform="translate(14 %.1f) rotate(-90)" text-anchor="middle">requests a second</text>`+"\n", burstTop+burstHeight/2)
	named := 0.0
	for _, v := range variants {
		tr, ok := all[v.Name]
		if !ok {
			continue
		}
		command := "M"
		fmt.Fprint(&b, `<path d="`)
		for i, n := range tr.Bins {
			fmt.Fprintf(&b, "%s%.1f %.1f", command, x(burstBin*time.Duration(i)+burstBin/2), y(float64(n)*float64(time.Second)/float64(burstBin)))
			command = " L"
		}
		line := stroke(v.Color, "")
		at := burstTop + burstHeight + 45 + 20*named
		named++
		fmt.Fprintf(&b, `" %s/>`+"\n"+`<path d="M%.1f %.1f h24" %s/><text x="%.1f" y="%.1f">%s</text>`+"\n",
			line, burstLeft, at-4, line, burstLeft+32, at, v.Title)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// burstTable says in numbers what the figure shows.
func burstTable(all map[string]traced) string {
	text := "<!-- SPDX-License-Identifier: Apache-2.0 -->\n<!-- Written by make burst, put here by make burst-docs. -->\n\n" +
		"| | requests | failed | replicas that served | all serving after | requests a second at the end | load of the machine before, after |\n|---|---|---|---|---|---|---|\n"
	machine := ""
	for _, v := range variants {
		tr, ok := all[v.Name]
		if !ok {
			continue
		}
		after := "-"
		if tr.AllServing > 0 {
			after = fmt.Sprintf("%.2f s", float64(tr.AllServing)/1000)
		}
		text += fmt.Sprintf("| %s | %d | %d | %d | %s | %.0f | %s; %s |\n", v.Title, tr.Requests, tr.Failed, tr.Served, after, tr.Steady, tr.Machine.LoadBefore, tr.Machine.LoadAfter)
		machine = fmt.Sprintf("%s, %d x %s, Linux %s.\n", tr.Measured.Format("2 January 2006"), tr.Machine.CPUs, tr.Machine.CPU, tr.Machine.Kernel)
	}
	return text + "\n" + machine
}

func TestTheFigureShowsEachVariantThatWasMeasured(t *testing.T) {
	tr := traced{Variant: "functions", Bins: make([]int, int(burstLasts/burstBin))}
	tr.Bins[len(tr.Bins)-1] = 200
	svg := burstFigure(map[string]traced{"functions": tr})
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
		t.Errorf("not XML: %v", err)
	}
	// The last of the bins is at the top: 400 a second.
	if top := fmt.Sprintf("%.1f %.1f\"", burstLeft+burstWidth*(1-float64(burstBin)/2/float64(burstLasts)), burstTop); !strings.Contains(svg, top) {
		t.Errorf("no point at %s in\n%s", top, svg)
	}
	if !strings.Contains(svg, "12 functions") || strings.Contains(svg, "13 VMs") {
		t.Errorf("not exactly what was measured:\n%s", svg)
	}
}
