// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one line of the report. What a row does not have is absent.
type row struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit"` // us, ms, s, MB/s, 1/s, %, MB, or nothing for a count
	Native  float64   `json:"native,omitempty"`
	Boxer   float64   `json:"boxer"`
	Ratio   *estimate `json:"ratio,omitempty"`
	More    *estimate `json:"difference,omitempty"` // Boxer - native
	Control *estimate `json:"native_against_native,omitempty"`
	Blocks  int       `json:"blocks,omitempty"`
	Samples int       `json:"samples,omitempty"` // of Boxer, all blocks
	Target  *target   `json:"target,omitempty"`
	Met     *bool     `json:"met,omitempty"`
	Note    string    `json:"note,omitempty"`
	Missing string    `json:"not_measured,omitempty"` // why
}

// target of a row: a bound of the ratio, of the difference to native, or of
// Boxer's value itself.
type target struct {
	Of    string  `json:"of"`    // ratio, difference, boxer
	Bound string  `json:"bound"` // <=, >=
	Value float64 `json:"value"`
}

func (t target) String() string {
	switch t.Of {
	case "ratio":
		return fmt.Sprintf("%s %.2fx", t.Bound, t.Value)
	case "difference":
		return fmt.Sprintf("%s native + %g", t.Bound, t.Value)
	}
	return fmt.Sprintf("%s %g", t.Bound, t.Value)
}

// judge fills in whether the row meets its target: it misses an upper bound
// when its whole interval is above, a lower bound when it is all below. A value
// without an interval is its own.
func (r row) judge() row {
	if r.Target == nil || r.Missing != "" {
		return r
	}
	of := estimate{r.Boxer, r.Boxer, r.Boxer}
	switch r.Target.Of {
	case "ratio":
		of = *r.Ratio
	case "difference":
		of = *r.More
	}
	met := of.Low <= r.Target.Value
	if r.Target.Bound == ">=" {
		met = of.High >= r.Target.Value
	}
	r.Met = &met
	return r
}

// machine is what the numbers were measured on.
type machine struct {
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	Memory     string `json:"memory"`
	Kernel     string `json:"kernel"`
	Arch       string `json:"arch"`
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

func describeMachine() machine {
	m := machine{CPUs: runtime.NumCPU(), Arch: runtime.GOARCH, CPU: field("/proc/cpuinfo", "model name"), Memory: field("/proc/meminfo", "MemTotal")}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	m.LoadBefore = load()
	return m
}

// field is the value of the first "key : value" line of a file, or nothing.
func field(path, key string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	if part := strings.Fields(string(text)); len(part) >= 3 {
		return strings.Join(part[:3], " ")
	}
	return ""
}

// report is the JSON that is written.
type report struct {
	Version    string             `json:"version"`
	Measured   time.Time          `json:"measured"`
	Took       string             `json:"took"`
	Plan       plan               `json:"plan"`
	Machine    machine            `json:"machine"`
	Method     string             `json:"method"`
	Rows       []row              `json:"rows"`
	Captures   map[string]capture `json:"captures,omitempty"` // by side
	Quickstart quickstart         `json:"quickstart"`
}

const method = "One local-cloud network. Native: the same program run without the process monitor, to a server " +
	"without it, on the same hosts and wires. Sides have short blocks; each round draws their order. A ratio is the " +
	"median of the ratios of the blocks of a round, a 99th percentile that of all samples of all rounds; the interval " +
	"holds 95 % and comes from resampling rounds. A limit is missed when the whole interval is beyond it. Client and " +
	"servers share one CPU, where waking costs least and Boxer's share therefore shows most, except where two are " +
	"named and for the rows about many processes."

// write leaves the report as JSON, and beside it the table and the plot of docs/bench.md.
func (r *report) write(path string, measured results) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	err = errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(path, append(data, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "bench-table.md"), []byte(r.markdown()), 0o644),
		os.WriteFile(filepath.Join(dir, "bench-connect.svg"), []byte(plot(measured)), 0o644))
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// head says what was measured on what.
func (r *report) head() string {
	return fmt.Sprintf("boxer %s on %d x %s, Linux %s, load %s before and %s after, took %s, order drawn from seed %d",
		r.Version, r.Machine.CPUs, r.Machine.CPU, r.Machine.Kernel, r.Machine.LoadBefore, r.Machine.LoadAfter, r.Took, r.Plan.Seed)
}

var columns = []string{"what", "unit", "native", "Boxer", "ratio", "95 %", "native : native", "target", "met"}

func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s\n\n", r.head())
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.Join(columns, "\t")))
	for _, one := range r.Rows {
		fmt.Fprintln(tw, strings.Join(one.cells(), "\t"))
	}
	err := tw.Flush()
	for _, note := range r.notes() {
		fmt.Fprintln(w, note)
	}
	return err
}

// markdown is the table of docs/bench-table.md.
func (r *report) markdown() string {
	text := "<!-- SPDX-License-Identifier: Apache-2.0 -->\n<!-- Written by make bench, put here by make bench-docs. -->\n\n" +
		r.Measured.Format("2 January 2006") + ": " + r.head() + ".\n\n| " + strings.Join(columns, " | ") + " |\n" +
		strings.Repeat("|---", len(columns)) + "|\n"
	for _, one := range r.Rows {
		text += "| " + strings.Join(one.cells(), " | ") + " |\n"
	}
	for _, note := range r.notes() {
		text += "\n" + note + "\n"
	}
	return text
}

func (r *report) notes() []string {
	var all []string
	for _, one := range r.Rows {
		if one.Missing != "" {
			all = append(all, fmt.Sprintf("%s: not measured: %s", one.Name, one.Missing))
		} else if one.Note != "" {
			all = append(all, fmt.Sprintf("%s: %s", one.Name, one.Note))
		}
	}
	return all
}

func (r row) cells() []string {
	cells := []string{r.Name, r.Unit, number(r.Native), number(r.Boxer), "-", "-", "-", "-", "-"}
	if r.Target != nil {
		cells[7] = r.Target.String()
	}
	if r.Missing != "" {
		cells[3], cells[8] = "-", "not measured"
		return cells
	}
	if r.Ratio != nil {
		cells[4], cells[5] = digits(r.Ratio.Value)+"x", r.Ratio.span("")
	}
	if r.Target != nil && r.Target.Of == "difference" {
		cells[4], cells[5] = fmt.Sprintf("%s, %+.0f", cells[4], r.More.Value), r.More.span("+")
	}
	if r.Control != nil {
		cells[6] = fmt.Sprintf("%s (%s)", digits(r.Control.Value), r.Control.span(""))
	}
	if r.Met != nil {
		cells[8] = map[bool]string{true: "yes", false: "no"}[*r.Met]
	}
	return cells
}

// span is the interval; with a sign it is one of differences.
func (e estimate) span(sign string) string {
	if sign != "" {
		return fmt.Sprintf("%+.0f..%+.0f", e.Low, e.High)
	}
	return digits(e.Low) + ".." + digits(e.High)
}

// digits of a ratio that mean something.
func digits(ratio float64) string {
	if ratio >= 10 {
		return fmt.Sprintf("%.1f", ratio)
	}
	return fmt.Sprintf("%.3f", ratio)
}

// number with as many digits as mean something.
func number(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
