// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// result is one line of the probe. Times are nanoseconds.
type result struct {
	Label   string    `json:"label"` // measure/side/block
	N       int       `json:"n"`
	P50     float64   `json:"p50"`
	Rate    float64   `json:"per_s"` // bytes, connections, requests
	First   float64   `json:"first"`
	Samples []float64 `json:"samples"` // ascending, where the probe was asked for them
}

// results holds the blocks of each side of each measure.
type results map[string]map[string][]result

// add parses the output of the probe; lines that are not its own are skipped.
func (r results) add(output []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), []byte(`{"label":`)) {
			continue
		}
		var one result
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return fmt.Errorf("line of the probe %q: %w", lines.Text(), err)
		}
		part := strings.Split(one.Label, "/")
		if len(part) != 3 {
			return fmt.Errorf("line of the probe %q: want a label measure/side/block", lines.Text())
		}
		block, err := strconv.Atoi(part[2])
		if err != nil {
			return fmt.Errorf("line of the probe %q: block: %w", lines.Text(), err)
		}
		if r[part[0]] == nil {
			r[part[0]] = map[string][]result{}
		}
		if have := len(r[part[0]][part[1]]); block != have {
			return fmt.Errorf("%s of %s: block %d follows %d blocks", part[1], part[0], block, have)
		}
		r[part[0]][part[1]] = append(r[part[0]][part[1]], one)
	}
	return lines.Err()
}

// side returns the blocks of one side, or an error when there are none.
func (r results) side(measure, side string) ([]result, error) {
	if blocks := r[measure][side]; len(blocks) > 0 {
		return blocks, nil
	}
	return nil, fmt.Errorf("%s was not measured: no block of side %q", measure, side)
}

// statistic is how the blocks of a side become numbers.
type statistic int

const (
	blockValue statistic = iota // of each block its median, or its rate
	blockFirst                  // of each block its first sample
	pooledP99                   // of all samples of all blocks
)

// value of one block.
func (s statistic) value(r result) float64 {
	switch {
	case s == blockFirst:
		return r.First
	case r.Rate > 0:
		return r.Rate
	}
	return r.P50
}

// estimate is a number with its 95 % interval.
type estimate struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// scaled divides by a unit.
func (e estimate) scaled(by float64) estimate {
	return estimate{e.Value / by, e.Low / by, e.High / by}
}

// errFew: a busy machine did too little in the time.
var errFew = errors.New("too few")

// comparison of one side with another.
type comparison struct {
	base, with      float64
	ratio, more     estimate // with/base and with-base
	blocks, samples int
}

// resamples of a bootstrap; its seed is fixed, so that the same blocks give the
// same interval.
const (
	resamples     = 2000
	bootstrapSeed = 95
)

// compare pairs the blocks of two sides round by round, which ran next to each
// other, and resamples rounds: what moves a whole round moves both sides. Sides
// may come from different measures of one script.
func compare(base, with []result, s statistic) (comparison, error) {
	if len(base) != len(with) || len(base) == 0 {
		return comparison{}, fmt.Errorf("%d blocks against %d", len(base), len(with))
	}
	c := comparison{blocks: len(base)}
	for i := range base {
		if s.value(base[i]) <= 0 || s.value(with[i]) <= 0 {
			return comparison{}, fmt.Errorf("block %d measured nothing", i)
		}
		c.samples += with[i].N
	}
	if s == pooledP99 {
		return c, c.pooled(base, with)
	}
	c.paired(base, with, s)
	return c, nil
}

// paired takes the medians of the ratios, and of the differences, of neighbouring blocks.
func (c *comparison) paired(base, with []result, s statistic) {
	var bases, withs, ratios, more []float64
	for i := range base {
		b, w := s.value(base[i]), s.value(with[i])
		bases, withs = append(bases, b), append(withs, w)
		ratios, more = append(ratios, w/b), append(more, w-b)
	}
	c.base, c.with = median(bases), median(withs)
	of := func(values []float64) estimate {
		picked := make([]float64, len(values))
		return bootstrap(len(values), func(rounds []int) float64 {
			for i, round := range rounds {
				picked[i] = values[round]
			}
			slices.Sort(picked)
			return middle(picked)
		})
	}
	c.ratio, c.more = of(ratios), of(more)
}

// pooled compares the 99th percentiles of all samples of each side.
func (c *comparison) pooled(base, with []result) error {
	b, w := pool(base), pool(with)
	if len(b) < 1000 || len(w) < 1000 {
		return fmt.Errorf("%w: %d and %d samples for a 99th percentile, want 1,000 or more", errFew, len(b), len(w))
	}
	once := make([]int, c.blocks)
	for i := range once {
		once[i] = i
	}
	c.base, c.with = percentile(b, times(once), 0.99), percentile(w, times(once), 0.99)
	both := func(of func(base, with float64) float64) estimate {
		return bootstrap(c.blocks, func(rounds []int) float64 {
			weight := times(rounds)
			return of(percentile(b, weight, 0.99), percentile(w, weight, 0.99))
		})
	}
	c.ratio = both(func(base, with float64) float64 { return with / base })
	c.more = both(func(base, with float64) float64 { return with - base })
	return nil
}

// sample of a block.
type sample struct {
	value float64
	block int
}

// pool of all samples of a side, ascending.
func pool(blocks []result) []sample {
	var all []sample
	for i, b := range blocks {
		for _, v := range b.Samples {
			all = append(all, sample{v, i})
		}
	}
	slices.SortFunc(all, func(a, b sample) int {
		switch {
		case a.value < b.value:
			return -1
		case a.value > b.value:
			return 1
		}
		return 0
	})
	return all
}

// times counts how often each round was picked.
func times(rounds []int) []int {
	n := make([]int, len(rounds))
	for _, round := range rounds {
		n[round]++
	}
	return n
}

// percentile of ascending samples, each counted as often as its block.
func percentile(all []sample, weight []int, p float64) float64 {
	total := 0
	for _, one := range all {
		total += weight[one.block]
	}
	before := int(p * float64(total))
	for _, one := range all {
		if before -= weight[one.block]; before < 0 {
			return one.value
		}
	}
	return all[len(all)-1].value
}

// bootstrap is a statistic of n rounds, with the 95 % interval that resampling
// of the rounds gives (percentile method).
func bootstrap(n int, of func(rounds []int) float64) estimate {
	rounds := make([]int, n)
	for i := range rounds {
		rounds[i] = i
	}
	e := estimate{Value: of(rounds)}
	draw := rand.New(rand.NewPCG(bootstrapSeed, uint64(n)))
	values := make([]float64, resamples)
	for i := range values {
		for j := range rounds {
			rounds[j] = draw.IntN(n)
		}
		values[i] = of(rounds)
	}
	slices.Sort(values)
	e.Low, e.High = values[resamples*25/1000], values[resamples*975/1000-1]
	return e
}

// median of values, which must not be empty.
func median(values []float64) float64 {
	return middle(slices.Sorted(slices.Values(values)))
}

// middle of ascending values.
func middle(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
