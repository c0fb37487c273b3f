// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
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
	c, err := compare(r["rtt"]["native"], r["rtt"]["boxer"])
	if err != nil {
		t.Fatal(err)
	}
	// A drift of a factor ten in block 1 must not show in the ratio.
	if math.Abs(c.ratio-1.03) > 1e-9 || c.low != 0.9 || c.high != 1.1 || c.base != 100 || c.with != 110 || c.blocks != 3 || c.samples != 30 {
		t.Errorf("got %+v", c)
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
	if _, err := compare([]result{{P50: 1}}, nil); err == nil {
		t.Error("unequal numbers of blocks: want an error")
	}
	if _, err := compare([]result{{P50: 1}}, []result{{}}); err == nil {
		t.Error("a block without a value: want an error")
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
