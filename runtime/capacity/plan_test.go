// SPDX-License-Identifier: Apache-2.0

package capacity

import (
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the figure of the documentation anew")

// dollars: a core-second of a VM costs one and serves 10 requests, a function-second
// costs three and serves as many.
var (
	dollarVM       = VM{PricePerHour: 4 * 3600, Cores: 4, RequestsPerSecond: 10}
	dollarFunction = Function{PricePerGBSecond: 1.5, MemoryGB: 2, RequestsPerSecond: 10}
)

func planFor(t *testing.T, trace Trace, vm VM, function Function) *Plan {
	t.Helper()
	p, err := New(trace, vm, function)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func cents(dollars float64) int64 { return int64(math.Round(100 * dollars)) }

// TestByHand: ten seconds with 10, 10, 10, 10, 10, 20, 20, 30, 40 and 140 requests, 300 in all.
//
// At 1x a function costs 3/1 of what a VM does, so VMs are worth having for what is
// needed in 10/3 seconds or more: in 3 of 10 the load is above 20. VMs for 20/s are
// two cores, 10 s x 2 x $1 = $20; above are 10 + 20 + 120 = 150 requests, 15
// function-seconds of $3, $45. Together $65 in 10 s, $23,400 an hour.
// At 2x: 10/6 seconds, so 40/s: $40, and 100 requests, 2 x 10 x $3 = $60; $100, $36,000.
// At 4x: 10/12 of a second: VMs for the peak, $140, $50,400; 8x the same.
//
// VMs alone: P100 and P99 140/s, 10 x 14 x $1 = $140. P95 (the 10th of 10) the
// same; P90 (the 9th) 40/s, $40 or $14,400 an hour.
func TestByHand(t *testing.T) {
	p := planFor(t, Trace{10, 20, 10, 140, 10, 40, 10, 20, 30, 10}, dollarVM, dollarFunction)
	if p.Seconds != 10 || p.Requests != 300 || p.Mean != 30 || p.Peak != 140 {
		t.Errorf("%d seconds, %v requests, mean %v, peak %v", p.Seconds, p.Requests, p.Mean, p.Peak)
	}
	for i, want := range []struct{ percentile, level, hour float64 }{{100, 140, 50400}, {99, 140, 50400}, {95, 140, 50400}, {90, 40, 14400}} {
		got := p.Provisioning[i]
		if got.Percentile != want.percentile || got.RequestsPerSecond != want.level || cents(got.CostPerHour) != cents(want.hour) {
			t.Errorf("VMs alone: %+v, want %+v", got, want)
		}
	}
	if share := p.Provisioning[3].RequestsShare; math.Abs(share-200.0/300) > 1e-12 {
		t.Errorf("VMs for 40/s serve %v of the requests, want 2/3", share)
	}
	for i, want := range []struct {
		requirement, baseline, seconds, requests, cores float64
		functions                                       int
		hour, p100, p90                                 float64
	}{
		{1, 20, 0.7, 0.5, 2, 12, 23400, 1 - 65.0/140, 1 - 65.0/40},
		{2, 40, 0.9, 2.0 / 3, 4, 20, 36000, 1 - 100.0/140, 1 - 100.0/40},
		{4, 140, 1, 1, 14, 0, 50400, 0, 1 - 140.0/40},
		{8, 140, 1, 1, 14, 0, 50400, 0, 1 - 140.0/40},
	} {
		got := p.Splits[i]
		if got.FunctionRequirement != want.requirement || got.VMRequestsPerSecond != want.baseline || got.VMCores != want.cores ||
			got.Functions != want.functions || cents(got.CostPerHour) != cents(want.hour) {
			t.Errorf("split: %+v, want %+v", got, want)
		}
		for _, near := range [][2]float64{{got.SecondsShare, want.seconds}, {got.RequestsShare, want.requests}, {*got.Savings["p100"], want.p100}, {*got.Savings["p90"], want.p90}} {
			if math.Abs(near[0]-near[1]) > 1e-12 {
				t.Errorf("%gx: %v, want %v", want.requirement, near[0], near[1])
			}
		}
	}
}

// paperCost is the sum of the paper's section 2.2 as it stands there.
func paperCost(trace Trace, vm VM, function Function, baseline, requirement float64) (cost float64) {
	ec2, lambda := vm.PricePerHour/3600/vm.Cores, function.PricePerGBSecond*function.MemoryGB*requirement
	for _, load := range trace {
		cost += baseline/vm.RequestsPerSecond*ec2 + max(0, (load-baseline)/function.RequestsPerSecond*lambda)
	}
	return cost
}

// TestNoBaselineIsCheaper: of random loads and prices, by the formula itself.
func TestNoBaselineIsCheaper(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		trace := make(Trace, 1+random.IntN(40))
		for i := range trace {
			trace[i] = float64(random.IntN(30))
		}
		trace[0]++
		vm := VM{PricePerHour: 0.01 + random.Float64(), Cores: float64(1 + random.IntN(8)), RequestsPerSecond: 1 + 100*random.Float64()}
		function := Function{PricePerGBSecond: 1e-6 + 1e-4*random.Float64(), MemoryGB: 1, RequestsPerSecond: 1 + 100*random.Float64()}
		p := planFor(t, trace, vm, function)
		for _, s := range p.Splits {
			hour := 3600 / float64(len(trace))
			if want := hour * paperCost(trace, vm, function, s.VMRequestsPerSecond, s.FunctionRequirement); math.Abs(s.CostPerHour-want) > 1e-9*want {
				t.Fatalf("%v: split %+v, the formula says %v", trace, s, want)
			}
			for baseline := 0.0; baseline <= 31; baseline += 0.5 {
				if other := hour * paperCost(trace, vm, function, baseline, s.FunctionRequirement); other < s.CostPerHour*(1-1e-9) {
					t.Fatalf("%v with %+v, %+v: %v for a baseline of %v, less than %+v", trace, vm, function, other, baseline, s)
				}
			}
		}
	}
}

func shipped(t *testing.T) *Plan {
	t.Helper()
	file, err := os.Open("../../examples/capacity/trace.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	trace, err := Read(file, false)
	if err != nil {
		t.Fatal(err)
	}
	return planFor(t, trace, DefaultVM(), DefaultFunction())
}

// TestShippedTrace has the shape of the paper's Table 1: savings fall the more
// functions need, and the less VMs alone are provisioned for, until there are none.
func TestShippedTrace(t *testing.T) {
	p := shipped(t)
	if p.Seconds != 24*3600 {
		t.Errorf("%d seconds", p.Seconds)
	}
	// The paper's best splits follow from the prices: 65 % of the seconds, 82 % at 2x.
	for i, want := range []float64{65, 82} {
		if got := 100 * p.Splits[i].SecondsShare; math.Abs(got-want) > 2 {
			t.Errorf("%gx: VMs are enough in %.1f %% of the seconds, want %g", p.Splits[i].FunctionRequirement, got, want)
		}
	}
	// 65 % of the seconds are below 3 % of the peak there.
	if level := p.load.percentile(65) / p.Peak; level > 0.03 {
		t.Errorf("the 65th percentile is %.1f %% of the peak", 100*level)
	}
	saved := func(i int, percentile float64) float64 { return *p.Splits[i].Savings[fmt.Sprintf("p%g", percentile)] }
	for i := range multipliers {
		for j, percentile := range percentiles {
			if i > 0 && saved(i, percentile) >= saved(i-1, percentile) {
				t.Errorf("P%g: %gx saves no less than %gx", percentile, multipliers[i], multipliers[i-1])
			}
			if j > 0 && saved(i, percentile) >= saved(i, percentiles[j-1]) {
				t.Errorf("%gx: P%g is saved no less than P%g", multipliers[i], percentile, percentiles[j-1])
			}
		}
	}
	for _, cell := range []struct {
		split       int
		percentile  float64
		least, most float64
	}{{0, 100, 0.9, 1}, {1, 100, 0.85, 0.95}, {3, 100, 0.7, 0.85}, {1, 99, 0.6, 0.7}, {0, 95, 0.4, 0.5}, {0, 90, 0, 0.25}, {2, 90, -9, 0}, {3, 95, -9, 0}} {
		if got := saved(cell.split, cell.percentile); got < cell.least || got > cell.most {
			t.Errorf("%gx against P%g saves %.3f, want %g to %g", multipliers[cell.split], cell.percentile, got, cell.least, cell.most)
		}
	}
}

// TestFigure: docs/capacity.svg is the shipped trace's.
func TestFigure(t *testing.T) {
	const path = "../../docs/capacity.svg"
	got := shipped(t).SVG()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || got != string(want) {
		t.Errorf("%s is not as it would be drawn now (%v): go test ./runtime/capacity -run Figure -update", path, err)
	}
	for name, trace := range map[string]Trace{"short": {3}, "flat": {0.5, 0.5}, "tiny": {1e-6, 0}, "huge": {maxRequests, 0, 1}} {
		svg := planFor(t, trace, dollarVM, dollarFunction).SVG()
		if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
			t.Errorf("%s: not XML: %v", name, err)
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") || strings.Contains(svg, "%!") {
			t.Errorf("%s:\n%s", name, svg)
		}
	}
}

func TestRefused(t *testing.T) {
	for want, change := range map[string]func(*VM, *Function){
		"the VM's price per hour is 0: give a number":             func(v *VM, _ *Function) { v.PricePerHour = 0 },
		"the VM's number of cores is -1: ":                        func(v *VM, _ *Function) { v.Cores = -1 },
		"the requests/s of a VM's core is NaN: ":                  func(v *VM, _ *Function) { v.RequestsPerSecond = math.NaN() },
		"the function's price per GB-second is +Inf: ":            func(_ *VM, f *Function) { f.PricePerGBSecond = math.Inf(1) },
		"the function's memory is 1e-09: ":                        func(_ *VM, f *Function) { f.MemoryGB = 1e-9 },
		"the requests/s of a function is 0: give a number from 0": func(_ *VM, f *Function) { f.RequestsPerSecond = 0 },
	} {
		vm, function := DefaultVM(), DefaultFunction()
		change(&vm, &function)
		if _, err := New(Trace{1}, vm, function); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, silent := range []Trace{nil, {0, 0}} {
		if _, err := New(silent, DefaultVM(), DefaultFunction()); err == nil || !strings.Contains(err.Error(), "there is no request in ") {
			t.Errorf("%v: %v", silent, err)
		}
	}
}

// Where VMs alone would cost nothing there is nothing to compare with, also in JSON.
func TestNothingToSave(t *testing.T) {
	trace := make(Trace, 100)
	trace[7] = 1
	p := planFor(t, trace, dollarVM, dollarFunction)
	if s := p.Splits[0]; s.VMRequestsPerSecond != 0 || s.Savings["p99"] != nil || s.Savings["p100"] == nil {
		t.Errorf("%+v", s)
	}
	if text, err := json.Marshal(p); err != nil || !strings.Contains(string(text), `"p99":null`) {
		t.Errorf("%s, %v", text, err)
	}
}

// Functions that cost less than VMs serve everything.
func TestCheapFunctions(t *testing.T) {
	p := planFor(t, Trace{5, 5, 5}, dollarVM, Function{PricePerGBSecond: 0.9, MemoryGB: 1, RequestsPerSecond: 10})
	if s := p.Splits[0]; s.VMRequestsPerSecond != 0 || s.Functions != 1 || cents(s.CostPerHour) != cents(3600*0.45) {
		t.Errorf("%+v", s)
	}
}
