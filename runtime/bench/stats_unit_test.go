// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestCompareTakesTheMedianOfNeighbouringRatios(t *testing.T) {
	r := results{}
	err := r.add([]byte("words of the guest\n" +
		`{"label":"rtt/native/0","n":10,"p50":100}` + "\n" + `{"label":"rtt/boxer/0","n":10,"p50":110}` + "\n" +
		`{"label":"rtt/boxer/1","n":10,"p50":1030}` + "\n" + `{"label":"rtt/native/1","n":10,"p50":1000}` + "\n" +
		`{"label":"rtt/native/2","n":10,"p50":100}` + "\n" + `{"label":"rtt/boxer/2","n":10,"p50":90}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := compare(r["rtt"]["native"], r["rtt"]["boxer"], blockValue)
	if err != nil {
		t.Fatal(err)
	}
	// A drift of a factor ten in block 1 must not show in the ratio.
	if math.Abs(c.ratio.Value-1.03) > 1e-9 || c.ratio.Low != 0.9 || c.ratio.High != 1.1 || c.base != 100 || c.with != 110 || c.blocks != 3 || c.samples != 30 {
		t.Errorf("got %+v", c)
	}
	if c.more.Value != 10 || c.more.Low != -10 || c.more.High != 30 {
		t.Errorf("difference: %+v", c.more)
	}
}

func TestIncompleteMeasurementsAreErrors(t *testing.T) {
	r := results{}
	if err := r.add([]byte(`{"label":"rtt/native/1","n":10,"p50":100}`)); err == nil {
		t.Error("a block is missing: want an error")
	}
	if err := r.add([]byte(`{"label":"rtt","n":10,"p50":100}`)); err == nil {
		t.Error("a label without side and block: want an error")
	}
	if _, err := r.side("rtt", "boxer"); err == nil || !strings.Contains(err.Error(), "rtt was not measured") {
		t.Errorf("got %v", err)
	}
	if _, err := compare([]result{{P50: 1}}, nil, blockValue); err == nil {
		t.Error("unequal numbers of blocks: want an error")
	}
	if _, err := compare([]result{{P50: 1}}, []result{{}}, blockValue); err == nil {
		t.Error("a block without a value: want an error")
	}
	few := []result{{P50: 1, Samples: []float64{1, 2, 3}}}
	if _, err := compare(few, few, pooledP99); err == nil {
		t.Error("a 99th percentile of three samples: want an error")
	}
}

// The interval holds the true ratio in about 95 of 100 measurements, however
// much the machine drifts from round to round.
func TestTheIntervalHoldsTheTruthAsOftenAsItSays(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	const runs, truth = 60, 1.2
	held, width := 0, 0.0
	for range runs {
		var base, with []result
		for range 48 {
			drift := 20 * math.Exp(draw.NormFloat64())
			base = append(base, result{N: 1, P50: drift * math.Exp(0.05*draw.NormFloat64())})
			with = append(with, result{N: 1, P50: truth * drift * math.Exp(0.05*draw.NormFloat64())})
		}
		c, err := compare(base, with, blockValue)
		if err != nil {
			t.Fatal(err)
		}
		if c.ratio.Low <= truth && truth <= c.ratio.High {
			held++
		}
		width += (c.ratio.High - c.ratio.Low) / runs
	}
	t.Logf("held the truth %d of %d times, mean width %.3f", held, runs, width)
	if held < runs*90/100 || held > runs*99/100 {
		t.Errorf("held the truth %d of %d times", held, runs)
	}
	if width > 0.1 {
		t.Errorf("mean width %.3f: it tells nothing", width)
	}
}

func TestPooledPercentileCountsEachBlockAsOftenAsDrawn(t *testing.T) {
	// Block 0 holds 1..1000, block 1 the same a hundred times slower.
	block := func(by float64) (r result) {
		for i := range 1000 {
			r.Samples = append(r.Samples, by*float64(i+1))
		}
		r.N, r.P50 = 1000, by*500
		return r
	}
	all := pool([]result{block(100), block(1)})
	for _, tt := range []struct {
		weight []int
		p      float64
		want   float64
	}{{[]int{0, 2}, 0.99, 991}, {[]int{2, 0}, 0.99, 99100}, {[]int{0, 1}, 0.5, 501}} {
		if got := percentile(all, tt.weight, tt.p); got != tt.want {
			t.Errorf("weights %v: %v, want %v", tt.weight, got, tt.want)
		}
	}
	c, err := compare([]result{block(1), block(1)}, []result{block(2), block(2)}, pooledP99)
	if err != nil || c.ratio != (estimate{2, 2, 2}) || c.base != 991 || c.with != 1982 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestALimitIsMissedOnlyByTheWholeInterval(t *testing.T) {
	for _, tt := range []struct {
		target target
		ratio  estimate
		met    bool
	}{
		{target{"ratio", "<=", 1.05}, estimate{1.04, 1.02, 1.06}, true},
		{target{"ratio", "<=", 1.05}, estimate{1.08, 1.05, 1.12}, true},
		{target{"ratio", "<=", 1.05}, estimate{1.08, 1.06, 1.12}, false},
		{target{"ratio", ">=", 0.97}, estimate{0.95, 0.93, 0.97}, true},
		{target{"ratio", ">=", 0.97}, estimate{0.95, 0.93, 0.96}, false},
		{target{"ratio", ">=", 0.97}, estimate{1.95, 1.93, 1.96}, true},
	} {
		got := row{Boxer: 1, Ratio: &tt.ratio, Target: &tt.target}.judge()
		if got.Met == nil || *got.Met != tt.met {
			t.Errorf("%v with %+v: met %v, want %v", tt.target, tt.ratio, *got.Met, tt.met)
		}
	}
	more := &estimate{130, 110, 150}
	if got := (row{Boxer: 160, More: more, Unit: "us", Target: &target{"difference", "<=", 120}}).judge(); !*got.Met {
		t.Errorf("a difference whose lower end is within: %+v", got)
	}
	if got := (row{Boxer: 25.5, Target: &target{"boxer", "<=", 25}}).judge(); *got.Met {
		t.Error("a value beyond its limit is met")
	}
}

func TestTheOrderOfSidesIsDrawnAndRepeatable(t *testing.T) {
	sides := []side{{name: "a"}, {name: "b"}, {name: "c"}}
	draw := func(seed uint64) []string {
		s := plan{Seed: seed}.script("x")
		s.blocks(600, "m", sides, func(side) string { return "nothing" })
		return s.lines
	}
	first := draw(7)
	if !slices.Equal(first, draw(7)) {
		t.Error("one seed gave two orders")
	}
	if slices.Equal(first, draw(8)) {
		t.Error("two seeds gave one order")
	}
	orders := map[string]int{}
	for round := range 600 {
		var order []string
		for _, line := range first[3*round : 3*round+3] {
			label, _, _ := strings.Cut(strings.TrimPrefix(line, "PROBE_LABEL="), " ")
			part := strings.Split(label, "/")
			if part[2] != fmt.Sprint(round) {
				t.Fatalf("%s in round %d", line, round)
			}
			order = append(order, part[1])
		}
		orders[strings.Join(order, "")]++
	}
	for _, order := range []string{"abc", "acb", "bac", "bca", "cab", "cba"} {
		if n := orders[order]; n < 60 || n > 140 {
			t.Errorf("order %s: %d of 600 rounds", order, n)
		}
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("odd: got %v", got)
	}
	if got := median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("even: got %v", got)
	}
}
