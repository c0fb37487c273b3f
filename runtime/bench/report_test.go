// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
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

// row is one line of the report. Native, ratio and target may be absent.
type row struct {
	Name    string  `json:"name"`
	Unit    string  `json:"unit"` // us, ms, s, MB/s
	Native  float64 `json:"native,omitempty"`
	Boxer   float64 `json:"boxer"`
	Ratio   float64 `json:"ratio,omitempty"`
	Low     float64 `json:"ratio_min,omitempty"`
	High    float64 `json:"ratio_max,omitempty"`
	Blocks  int     `json:"blocks,omitempty"`
	Samples int     `json:"samples,omitempty"` // of Boxer, all blocks
	Target  *target `json:"target,omitempty"`
	Met     *bool   `json:"met,omitempty"`
	Note    string  `json:"note,omitempty"`
}

// target of a row: a bound of the ratio, or of the value itself.
type target struct {
	Of    string  `json:"of"`    // ratio, boxer
	Bound string  `json:"bound"` // <=, >=
	Value float64 `json:"value"`
}

func (t target) String() string {
	if t.Of == "ratio" {
		return fmt.Sprintf("%s %.2fx", t.Bound, t.Value)
	}
	return fmt.Sprintf("%s %g", t.Bound, t.Value)
}

// judge fills in whether the row meets its target.
func (r row) judge() row {
	if r.Target == nil {
		return r
	}
	value := r.Boxer
	if r.Target.Of == "ratio" {
		value = r.Ratio
	}
	met := value <= r.Target.Value
	if r.Target.Bound == ">=" {
		met = value >= r.Target.Value
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
	Version    string     `json:"version"`
	Measured   time.Time  `json:"measured"`
	Took       string     `json:"took"`
	Machine    machine    `json:"machine"`
	Method     string     `json:"method"`
	Rows       []row      `json:"rows"`
	Quickstart quickstart `json:"quickstart"`
}

const method = "One local-cloud network. Native: the same program run without the process monitor, to a server " +
	"without it, on the same hosts and wires. Both sides alternate in short blocks; a ratio is the median of " +
	"the ratios of neighbouring blocks, with the smallest and largest. Client and servers share one CPU, where waking " +
	"costs least and Boxer's share therefore shows most, except where two are named."

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "\nboxer %s on %d x %s, Linux %s, load %s before and %s after, took %s\n\n",
		r.Version, r.Machine.CPUs, r.Machine.CPU, r.Machine.Kernel, r.Machine.LoadBefore, r.Machine.LoadAfter, r.Took)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "WHAT\tUNIT\tNATIVE\tBOXER\tRATIO\tMIN..MAX\tTARGET\tMET")
	for _, one := range r.Rows {
		fmt.Fprintln(tw, strings.Join(one.cells(), "\t"))
	}
	return tw.Flush()
}

func (r row) cells() []string {
	cells := []string{r.Name, r.Unit, number(r.Native), number(r.Boxer), "-", "-", "-", "-"}
	if r.Ratio > 0 {
		digits := 3
		if r.Ratio >= 10 {
			digits = 1
		}
		cells[4] = fmt.Sprintf("%.*fx", digits, r.Ratio)
		cells[5] = fmt.Sprintf("%.*f..%.*f", digits-1, r.Low, digits-1, r.High)
	}
	if r.Target != nil {
		cells[6], cells[7] = r.Target.String(), "no"
		if *r.Met {
			cells[7] = "yes"
		}
	}
	return cells
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
