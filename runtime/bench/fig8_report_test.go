// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// figure is what all pairs measured together.
type figure struct {
	run           fig8Run
	pairs         int
	since, until  time.Time
	results       results // a block for each pair
	trips         map[string][]float64
	noLink        string
	loads         []float64 // before each pair
	made, strayed int       // connections over the transport that was meant, and over others
}

// readFigure takes up all pairs that were kept in a directory.
func readFigure(dir string) (*figure, error) {
	files, err := filepath.Glob(filepath.Join(dir, "pair-*.json")) // in order
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no pair was measured: nothing in %s", dir)
	}
	f := &figure{results: results{}, trips: map[string][]float64{}}
	for _, file := range files {
		data, err := os.ReadFile(file)
		var p pairResult
		if err == nil {
			err = json.Unmarshal(data, &p)
		}
		if err == nil {
			err = f.take(p)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return f, nil
}

// take adds a pair, which must have been measured as the others were.
func (f *figure) take(p pairResult) error {
	if f.pairs == 0 {
		f.run, f.since = p.Run, p.Measured
	}
	if p.Run != f.run {
		return fmt.Errorf("measured as %+v, and the pairs before as %+v: begin anew with BOXER_FIG8_FIRST=0", p.Run, f.run)
	}
	f.pairs++
	f.until = p.Measured
	var load float64
	if _, err := fmt.Sscan(p.Load, &load); err == nil {
		f.loads = append(f.loads, load)
	}
	if p.NoLink != "" {
		f.noLink = p.NoLink
	}
	for measure, sides := range p.Results {
		if f.results[measure] == nil {
			f.results[measure] = map[string][]result{}
		}
		for side, blocks := range sides {
			f.results[measure][side] = append(f.results[measure][side], blocks...)
		}
	}
	for name, all := range p.Trips {
		for _, n := range all {
			f.trips[name] = append(f.trips[name], float64(n)/2)
		}
	}
	for name := range p.Made {
		f.made += p.Made[name]
		f.strayed += p.Wrong[name]
	}
	return nil
}

// write leaves the table and the picture of docs/figure8.md.
func (f *figure) write(dir string) error {
	return errors.Join(os.WriteFile(filepath.Join(dir, "figure8-table.md"), []byte(f.markdown()), 0o644),
		os.WriteFile(filepath.Join(dir, "figure8.svg"), []byte(f.plot()), 0o644))
}

// summary of all samples of a side.
type summary struct {
	n                   int
	mean, p50, p90, p99 float64
}

func summariseAll(blocks []result) (s summary) {
	all := pool(blocks)
	if len(all) == 0 {
		return s
	}
	s.n = len(all)
	for _, one := range all {
		s.mean += one.value / float64(s.n)
	}
	once := slices.Repeat([]int{1}, len(blocks))
	s.p50, s.p90, s.p99 = percentile(all, once, 0.5), percentile(all, once, 0.9), percentile(all, once, 0.99)
	return s
}

// links the figure has, and how its measures are called.
var fig8Links = []struct{ prefix, title string }{
	{"", "Between namespaces"}, {"link.", "With a link of 200 µs round trip in the middle"},
}

func (f *figure) head() string {
	span := f.since.Format("2 January 2006 15:04")
	if f.until != f.since {
		span += " to " + f.until.Format("15:04")
	}
	busy := ""
	if len(f.loads) > 0 {
		busy = fmt.Sprintf(", load %.1f to %.1f, its own included", slices.Min(f.loads), slices.Max(f.loads))
	}
	return fmt.Sprintf("%s UTC: boxer %s on %d x %s, Linux %s%s. %d endpoint pairs x %d repetitions of each combination (the paper: 32 x 1,024), "+
		"%d over the link with a delay; %d round trips each on a quarter of the connections. %d of %d Boxer connections took the transport of their row.",
		span, f.run.Version, f.run.CPUs, f.run.CPU, f.run.Kernel, busy, f.pairs, f.run.Reps, f.run.linkReps(), fig8Rounds, f.made, f.made+f.strayed)
}

// markdown is docs/figure8-table.md.
func (f *figure) markdown() string {
	var b strings.Builder
	b.WriteString("<!-- SPDX-License-Identifier: Apache-2.0 -->\n<!-- Written by make bench-fig8, put here by make bench-fig8-docs. -->\n\n" + f.head() + "\n")
	for _, link := range fig8Links {
		fmt.Fprintf(&b, "\n## %s\n", link.title)
		if link.prefix != "" && f.noLink != "" {
			fmt.Fprintf(&b, "\nNot measured: %s\n", f.noLink)
			continue
		}
		f.connectTable(&b, link.prefix)
		f.rttTable(&b, link.prefix)
	}
	fmt.Fprintf(&b, "\n## Goals\n\n| %s |\n%s|\n", strings.Join(columns, " | "), strings.Repeat("|---", len(columns)))
	for _, one := range f.goals() {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(one.cells(), " | "))
	}
	return b.String()
}

func (f *figure) connectTable(b *strings.Builder, prefix string) {
	b.WriteString("\n| connect + first byte, µs | transport | mean | p50 | p90 | p99 | p50 : VM to VM without Boxer | 95 % |")
	last := " after a pause, p50 | first of a pair, p50 |"
	if prefix != "" {
		last = " round trips before it |"
	}
	b.WriteString(last + "\n|---|---|---|---|---|---|---|---" + strings.Repeat("|---", strings.Count(last, "|")) + "|\n")
	for _, c := range combinations {
		f.begin(b, c, prefix+"connect")
		f.against(b, c, "vm-vm.bare", prefix+"connect")
		if prefix != "" {
			fmt.Fprintf(b, " %s |\n", f.roundTrips(c))
			continue
		}
		fmt.Fprintf(b, " %s | %s |\n", number(summariseAll(f.results["paused"][c.name]).p50/1e3),
			number(summariseAll(f.results["cold"][c.name]).p50/1e3))
	}
}

func (f *figure) rttTable(b *strings.Builder, prefix string) {
	b.WriteString("\n| round trip of 1,024 bytes, µs | transport | mean | p50 | p90 | p99 | p50 : without Boxer | 95 % |\n|---|---|---|---|---|---|---|---|\n")
	for _, c := range combinations {
		f.begin(b, c, prefix+"rtt")
		f.against(b, c, c.bare(), prefix+"rtt")
		b.WriteString("\n")
	}
}

// bare is what is most like a combination without Boxer: one NAT, where there is one.
func (c combination) bare() string {
	if strings.HasPrefix(c.name, "vm-vm") {
		return "vm-vm.bare"
	}
	return "fn-vm.bare"
}

func (f *figure) begin(b *strings.Builder, c combination, measure string) {
	s := summariseAll(f.results[measure][c.name])
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |", c.ends, c.how,
		number(s.mean/1e3), number(s.p50/1e3), number(s.p90/1e3), number(s.p99/1e3))
}

// against compares pair by pair.
func (f *figure) against(b *strings.Builder, c combination, base, measure string) {
	with, err := compare(f.results[measure][base], f.results[measure][c.name], blockValue)
	if c.name == base || err != nil {
		b.WriteString(" - | - |")
		return
	}
	fmt.Fprintf(b, " %sx | %s |", digits(with.ratio.Value), with.ratio.span(""))
}

// roundTrips before the first byte: the median, and the most of nine in ten.
func (f *figure) roundTrips(c combination) string {
	all := slices.Sorted(slices.Values(f.trips[c.name]))
	if len(all) == 0 {
		return "-"
	}
	half := func(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }
	text, most := half(all[len(all)/2]), half(all[len(all)*9/10])
	if most != text {
		text += " (90 %: up to " + most + ")"
	}
	return text
}

// goals of connections between functions.
func (f *figure) goals() []row {
	var all []row
	add := func(name, measure, base, with string, to *target) {
		c, err := compare(f.results[measure][base], f.results[measure][with], blockValue)
		if err != nil {
			all = append(all, row{Name: name, Unit: "us", Target: to, Missing: err.Error()})
			return
		}
		more := c.more.scaled(1e3)
		all = append(all, row{Name: name, Unit: "us", Native: c.base / 1e3, Boxer: c.with / 1e3, Ratio: &c.ratio, More: &more, Target: to}.judge())
	}
	add("connect + first byte, function to function, punch (native: VM to VM), p50", "connect", "vm-vm.bare", "fn-fn.punch", &target{"difference", "<=", 250})
	add("the same over the link with a delay", "link.connect", "vm-vm.bare", "fn-fn.punch", atMost(3))
	add("round trip, VM to VM, native", "rtt", "vm-vm.bare", "vm-vm.native", atMost(1.03))
	add("round trip, VM to VM, direct", "rtt", "vm-vm.bare", "vm-vm.direct", atMost(1.03))
	add("round trip, function to VM, direct", "rtt", "fn-vm.bare", "fn-vm.direct", atMost(1.03))
	trips := row{Name: "round trips before the first byte, function to function, punch (native: VM to VM), median"}
	base, with := f.trips["vm-vm.bare"], f.trips["fn-fn.punch"]
	if len(base) == 0 || len(with) == 0 {
		trips.Missing = "no capture: " + f.noLink
		return append(all, trips)
	}
	trips.Native, trips.Boxer = median(base), median(with)
	trips.Target = &target{"boxer", "<=", trips.Native + 2}
	return append(all, trips.judge())
}
