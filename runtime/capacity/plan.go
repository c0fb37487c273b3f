// SPDX-License-Identifier: Apache-2.0

// Package capacity plans how much of a load VMs should serve, and functions the
// rest, from the requests of each second and from prices. The cost is the paper's
// (section 2.2): a baseline of VMs that runs all the time, and functions for as
// long as the load exceeds it.
package capacity

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// VM is what serves the baseline.
type VM struct {
	PricePerHour      float64 `json:"price_per_hour"` // of the VM, in US dollars
	Cores             float64 `json:"cores"`
	RequestsPerSecond float64 `json:"requests_per_second"` // that one core serves
}

// Function is what serves the excess.
type Function struct {
	PricePerGBSecond  float64 `json:"price_per_gb_second"` // in US dollars
	MemoryGB          float64 `json:"memory_gb"`
	RequestsPerSecond float64 `json:"requests_per_second"` // that one function serves
}

// DefaultVM is c6g.2xlarge, on demand in us-east-2, by the list of November 2026.
func DefaultVM() VM { return VM{PricePerHour: 0.272, Cores: 8, RequestsPerSecond: 100} }

// DefaultFunction is an arm64 function of 2 GB in us-east-2, by the list of
// November 2026; as in the paper it serves what a core of the VM does.
func DefaultFunction() Function {
	return Function{PricePerGBSecond: 0.0000133334, MemoryGB: 2, RequestsPerSecond: 100}
}

var (
	// percentiles of the load that VMs alone may be provisioned for (c100 ... in the paper).
	percentiles = [...]float64{100, 99, 95, 90}
	// multipliers of what a request needs of functions.
	multipliers = [...]float64{1, 2, 4, 8}
)

// Plan is what a load costs, provisioned for and split.
type Plan struct {
	VM       VM       `json:"vm"`
	Function Function `json:"function"`

	Seconds  int     `json:"seconds"`
	Requests float64 `json:"requests"`
	Mean     float64 `json:"mean_requests_per_second"`
	Peak     float64 `json:"peak_requests_per_second"`

	Provisioning []Provisioning `json:"provisioning"`
	Splits       []Split        `json:"splits"`

	load load
}

// Provisioning is VMs alone, for the load of a share of the seconds.
type Provisioning struct {
	Percentile        float64 `json:"percentile"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	RequestsShare     float64 `json:"requests_share"` // that these VMs serve in time
	CostPerHour       float64 `json:"cost_per_hour"`
}

// Split is the cheapest one if functions need so many times as much for a request.
type Split struct {
	FunctionRequirement float64 `json:"function_requirement"`
	VMRequestsPerSecond float64 `json:"vm_requests_per_second"` // the baseline
	SecondsShare        float64 `json:"seconds_share"`          // in which the baseline is enough
	RequestsShare       float64 `json:"requests_share"`         // that the baseline serves
	VMCores             float64 `json:"vm_cores"`
	Functions           int     `json:"functions"` // at once, in the busiest second
	CostPerHour         float64 `json:"cost_per_hour"`
	// Savings against VMs alone for each percentile: p100, p99, p95, p90. Below 0
	// there are none; nil if those VMs cost nothing.
	Savings map[string]*float64 `json:"savings"`
}

// New plans for a trace.
func New(trace Trace, vm VM, function Function) (*Plan, error) {
	for _, input := range []struct {
		what         string
		value, least float64
	}{
		{"the VM's price per hour", vm.PricePerHour, 1e-12}, {"the VM's number of cores", vm.Cores, 1e-3},
		{"the requests/s of a VM's core", vm.RequestsPerSecond, 1e-3},
		{"the function's price per GB-second", function.PricePerGBSecond, 1e-12}, {"the function's memory", function.MemoryGB, 1e-3},
		{"the requests/s of a function", function.RequestsPerSecond, 1e-3},
	} {
		const most = 1e12 // so that nothing that is calculated has no end
		if math.IsNaN(input.value) || input.value < input.least || input.value > most {
			return nil, fmt.Errorf("%s is %g: give a number from %g to %g", input.what, input.value, input.least, most)
		}
	}
	l := newLoad(trace)
	if l.total() == 0 {
		return nil, fmt.Errorf("there is no request in %d seconds: give a trace of a time with load", len(trace))
	}
	p := &Plan{VM: vm, Function: function, Seconds: len(trace), Requests: l.total(), Mean: l.total() / float64(len(trace)), Peak: l.percentile(100), load: l}
	for _, percentile := range percentiles {
		level := l.percentile(percentile)
		p.Provisioning = append(p.Provisioning, Provisioning{percentile, level, p.served(level), p.cost(level, 0)})
	}
	for _, m := range multipliers {
		p.Splits = append(p.Splits, p.split(m))
	}
	return p, nil
}

// vmSecond is what it costs to be able to serve one request per second on VMs, for a second.
func (p *Plan) vmSecond() float64 {
	return p.VM.PricePerHour / 3600 / p.VM.Cores / p.VM.RequestsPerSecond
}

// functionSecond is what it costs to serve one request on functions.
func (p *Plan) functionSecond() float64 {
	return p.Function.PricePerGBSecond * p.Function.MemoryGB / p.Function.RequestsPerSecond
}

// cost of an hour with VMs for a baseline of so many requests/s and functions,
// which need so many times as much for a request, for what exceeds it.
func (p *Plan) cost(baseline, requirement float64) float64 {
	return 3600 * (baseline*p.vmSecond() + requirement*p.functionSecond()*p.load.excess(baseline)/float64(p.Seconds))
}

// served is the share of the requests that do not exceed a baseline.
func (p *Plan) served(baseline float64) float64 { return 1 - p.load.excess(baseline)/p.Requests }

// split finds the baseline at which one more request/s of VMs costs as much as
// functions do in the seconds that have this request: the cost is convex in the
// baseline, with its corners at the loads that occur.
func (p *Plan) split(requirement float64) Split {
	baseline := 0.0
	if above := p.vmSecond() / (requirement * p.functionSecond()); above < 1 {
		baseline = p.load.sorted[max(p.Seconds-1-int(above*float64(p.Seconds)), 0)]
	}
	s := Split{
		FunctionRequirement: requirement, VMRequestsPerSecond: baseline, RequestsShare: p.served(baseline),
		SecondsShare: float64(p.load.upTo(baseline)) / float64(p.Seconds), VMCores: baseline / p.VM.RequestsPerSecond,
		Functions:   int(math.Ceil((p.Peak - baseline) * requirement / p.Function.RequestsPerSecond)),
		CostPerHour: p.cost(baseline, requirement), Savings: map[string]*float64{},
	}
	for _, alone := range p.Provisioning {
		key := fmt.Sprintf("p%g", alone.Percentile)
		s.Savings[key] = nil
		if alone.CostPerHour > 0 {
			saving := 1 - s.CostPerHour/alone.CostPerHour
			s.Savings[key] = &saving
		}
	}
	return s
}

// load is a trace without its order.
type load struct {
	trace  Trace
	sorted []float64
	sums   []float64 // of the first so many of sorted
}

func newLoad(trace Trace) load {
	l := load{trace: trace, sorted: slices.Clone(trace), sums: make([]float64, len(trace)+1)}
	sort.Float64s(l.sorted)
	for i, requests := range l.sorted {
		l.sums[i+1] = l.sums[i] + requests
	}
	return l
}

func (l load) total() float64 { return l.sums[len(l.sorted)] }

// percentile is the load that so many percent of the seconds do not exceed.
func (l load) percentile(percent float64) float64 {
	rank := int(math.Ceil(percent / 100 * float64(len(l.sorted))))
	return l.sorted[min(max(rank, 1), len(l.sorted))-1]
}

// upTo is in how many seconds the load does not exceed level.
func (l load) upTo(level float64) int {
	return sort.Search(len(l.sorted), func(i int) bool { return l.sorted[i] > level })
}

// excess is how many requests exceed level in all.
func (l load) excess(level float64) float64 {
	n := l.upTo(level)
	return max(l.total()-l.sums[n]-level*float64(len(l.sorted)-n), 0)
}
