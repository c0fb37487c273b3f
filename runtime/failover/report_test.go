// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

const (
	regained = 0.95 // of the throughput before
	steady   = 10   // bins that have it, on average
)

// report is what was measured. Times are in milliseconds.
type report struct {
	CPU      string    `json:"cpu"`
	CPUs     int       `json:"cpus"`
	Kernel   string    `json:"kernel"`
	Measured time.Time `json:"measured"`

	Victim  string  `json:"victim"` // leader or follower
	Before  float64 `json:"reads_per_second_before"`
	Without float64 `json:"reads_per_second_without"` // the victim, in the second half of its absence

	Noticed  int64 `json:"noticed_ms"` // by everybody, after the kill
	Joined   int64 `json:"standby_joined_ms"`
	Running  int64 `json:"standby_running_ms"`
	Serves   int64 `json:"standby_serves_ms"`
	Regained int64 `json:"regained_ms"` // 95 % of the throughput before
	Returned int64 `json:"vm_running_ms"`
	Left     int64 `json:"standby_left_ms"` // both after the apply that brings the VM back

	Reads      int   `json:"reads"`
	Writes     int64 `json:"writes"`
	Wrong      int   `json:"wrong_reads"`
	Failed     int   `json:"failed_requests"`
	CutByKill  int   `json:"requests_cut_by_the_kill"` // that were under way, and sent again
	CutByBack  int   `json:"requests_cut_by_the_handover"`
	CutElse    int   `json:"requests_cut_otherwise"`
	SlowestMS  int64 `json:"slowest_request_ms"`
	KilledAt   int64 `json:"killed_at_ms"`
	HandoverAt int64 `json:"handover_at_ms"`

	Bins []float64 `json:"reads_in_each_100_ms"`
}

func (e *ensemble) report(l *load, killed, handover time.Time) report {
	r := report{
		Measured: killed.UTC().Truncate(time.Second), Bins: l.throughput(l.began, time.Now()),
		Writes: l.writes.Load(), Wrong: len(l.wrong), Failed: len(l.failed), SlowestMS: l.slowest.Milliseconds(),
		KilledAt: killed.Sub(l.began).Milliseconds(), HandoverAt: handover.Sub(l.began).Milliseconds(),
	}
	r.machine()
	standby := func(state string) func(cluster.Member) bool {
		return func(m cluster.Member) bool { return m.Standby && (state == "" || m.State == state) }
	}
	r.Noticed = e.since(killed, func(m cluster.Member) bool { return m.State == cluster.StateLost || m.State == cluster.StateLeft }).Milliseconds()
	r.Joined = e.since(killed, standby("")).Milliseconds()
	r.Running = e.since(killed, standby(cluster.StateRunning)).Milliseconds()
	r.Left = e.since(handover, standby(cluster.StateLeft)).Milliseconds()
	r.Returned = e.since(handover, func(m cluster.Member) bool { return m.Kind == "vm" && m.State == cluster.StateRunning && m.Holds() }).Milliseconds()
	serves := e.servedAgain(l, killed)
	r.Serves = serves.Milliseconds()

	tenSeconds := l.throughput(killed.Add(-min(10*time.Second, killed.Sub(l.began))), killed)
	r.Before = median(tenSeconds) * float64(time.Second/bin)
	after := l.throughput(killed, handover)
	r.Regained = regainedAfter(after, median(tenSeconds)).Milliseconds()
	if down := int(serves / bin); down > 3 && down < len(after) {
		r.Without = median(after[down/2:down]) * float64(time.Second/bin)
	}
	for _, done := range l.done {
		for _, n := range done {
			r.Reads += n
		}
	}
	for _, at := range l.cut {
		switch {
		case at.After(handover):
			r.CutByBack++
		case at.After(killed):
			r.CutByKill++
		default:
			r.CutElse++
		}
	}
	return r
}

// servedAgain is when the victim's clients were answered first after the kill.
func (e *ensemble) servedAgain(l *load, killed time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := int(killed.Sub(l.began)/bin) + 2 // what was under way is over
	for at := from; at < from+1000; at++ {
		if l.done[victim][at] > 0 {
			return l.began.Add(time.Duration(at) * bin).Sub(killed)
		}
	}
	return 0
}

// regainedAfter is when the bins after the kill are what they were, and stay so for
// a second.
func regainedAfter(after []float64, before float64) time.Duration {
	low := false // at first the last bins of before are seen
	for i := range after {
		if after[i] < regained*before {
			low = true
		}
		if window := after[i:min(i+steady, len(after))]; low && len(window) == steady && after[i] >= regained*before && mean(window) >= regained*before {
			return time.Duration(i+1) * bin // the end of the bin
		}
	}
	return 0
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func (r *report) machine() {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			r.CPU = strings.TrimSpace(value)
			r.CPUs++
		}
	}
	data, _ = os.ReadFile("/proc/sys/kernel/osrelease")
	r.Kernel = strings.TrimSpace(string(data))
}

func (r *report) text() string {
	return fmt.Sprintf(`the node that is killed was the ensemble's %s
reads/s before the kill        %8.0f
reads/s without the node       %8.0f
the death is known after       %8d ms
the standby has joined after   %8d ms
its ZooKeeper listens after    %8d ms
it serves after                %8d ms
95 %% of the reads after        %8d ms
the VM has its slot back after %8d ms of the apply
the standby has left after     %8d ms of the apply
reads %d, writes %d, wrong reads %d, failed requests %d, slowest %d ms
connections that ended under a request, sent again: %d by the kill, %d by the hand-back, %d otherwise
%d x %s, Linux %s
`, r.Victim, r.Before, r.Without, r.Noticed, r.Joined, r.Running, r.Serves, r.Regained, r.Returned, r.Left,
		r.Reads, r.Writes, r.Wrong, r.Failed, r.SlowestMS, r.CutByKill, r.CutByBack, r.CutElse, r.CPUs, r.CPU, r.Kernel)
}

func (r *report) write(t *testing.T, dir string) {
	t.Helper()
	data, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	for name, content := range map[string]string{"failover.json": string(data), "failover.svg": r.svg(), "failover-table.md": r.table()} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (r *report) table() string {
	return "<!-- Written by make failover. -->\n\n```\n" + r.text() + "```\n"
}

// The figure's size, and its frame.
const (
	figureWidth, figureHeight = 760, 330
	left, top, width, height  = 60.0, 40.0, 670.0, 230.0
)

// svg draws the reads in each second over time, from 10 s before the kill.
func (r *report) svg() string {
	var b strings.Builder
	begin := max(float64(r.KilledAt)/1e3-10, 0)
	span := float64(len(r.Bins))*bin.Seconds() - begin
	most := 1.25 * r.Before
	x := func(s float64) float64 { return left + width*min(max((s-begin)/span, 0), 1) }
	y := func(reads float64) float64 { return top + height*(1-min(reads/most, 1)) }
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n", figureWidth, figureHeight)
	for reads := 0.0; reads <= most; reads += math.Pow(10, math.Floor(math.Log10(most/1.5))) {
		fmt.Fprintf(&b, `<path d="M%.1f %.1f h%.1f" stroke="#ddd"/><text x="%.1f" y="%.1f" text-anchor="end">%.0f</text>`+"\n", left, y(reads), width, left-6, y(reads)+4, reads)
	}
	killed, handover := float64(r.KilledAt)/1e3, float64(r.HandoverAt)/1e3
	for s := math.Ceil((begin-killed)/10) * 10; s <= begin+span-killed; s += 10 {
		fmt.Fprintf(&b, `<path d="M%.1f %.1f v%.1f" stroke="#ddd"/><text x="%.1f" y="%.1f" text-anchor="middle">%.0f s</text>`+"\n", x(killed+s), top, height, x(killed+s), top+height+17, s)
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">after the kill; reads/s in bins of 100 ms</text>`+"\n", left+width/2, top+height+38)
	command := "M"
	b.WriteString(`<path d="`)
	for i, n := range r.Bins {
		if s := float64(i) * bin.Seconds(); s >= begin {
			fmt.Fprintf(&b, "%s%.1f %.1f", command, x(s+bin.Seconds()/2), y(n/bin.Seconds()))
			command = " L"
		}
	}
	fmt.Fprint(&b, `" fill="none" stroke="#4477aa" stroke-width="1.3"/>`+"\n")
	for i, mark := range []struct {
		at   float64
		text string
	}{
		{killed, "zk-3 is killed"}, {killed + float64(r.Serves)/1e3, "its standby serves"},
		{handover + float64(r.Returned)/1e3, "the VM is back"}, {handover + float64(r.Left)/1e3, "the standby has left"},
	} {
		fmt.Fprintf(&b, `<path d="M%.1f %.1f v%.1f" stroke="#cc3366" stroke-dasharray="3 3"/><text x="%.1f" y="%.1f">%s</text>`+"\n",
			x(mark.at), top-4, height+4, x(mark.at)+3, top-22+float64(i%2)*14, mark.text)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func TestRegained(t *testing.T) {
	steadily := func(value float64, n int) []float64 { return slices.Repeat([]float64{value}, n) }
	after := slices.Concat(steadily(100, 1), steadily(60, 20), []float64{97}, steadily(70, 4), steadily(99, 30))
	if got := regainedAfter(after, 100); got != 27*bin { // the one good bin does not count
		t.Errorf("regained after %v", got)
	}
	if got := regainedAfter(steadily(60, 50), 100); got != 0 {
		t.Errorf("never regained, and yet after %v", got)
	}
}

func TestTheFigureShowsWhatWasMeasured(t *testing.T) {
	r := report{Before: 900, KilledAt: 12_000, HandoverAt: 25_000, Serves: 2000, Bins: slices.Repeat([]float64{90}, 400)}
	svg := r.svg()
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
		t.Errorf("not XML: %v", err)
	}
	if strings.Count(svg, " L") != 379 || !strings.Contains(svg, "its standby serves") { // from 2 s to 40 s
		t.Errorf("%d steps", strings.Count(svg, " L"))
	}
}
