// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// result is one line of the probe. Times are nanoseconds.
type result struct {
	Label  string  `json:"label"` // measure/side/block
	N      int     `json:"n"`
	P50    float64 `json:"p50"`
	Rate   float64 `json:"bytes_per_s"`
	First  float64 `json:"first"`
	Second float64 `json:"second"`
}

// value is what the result measured: a time, or a rate.
func (r result) value() float64 {
	if r.Rate > 0 {
		return r.Rate
	}
	return r.P50
}

// results holds the blocks of each side of each measure.
type results map[string]map[string][]result

// add parses the output of the probe; lines that are not its own are skipped.
func (r results) add(output []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(output))
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

// comparison of one side with another.
type comparison struct {
	base, with       float64 // medians of the blocks
	ratio, low, high float64 // of the ratios of neighbouring blocks: median, smallest, largest
	blocks, samples  int
}

// compare pairs the blocks of two sides, which ran next to each other. Sides
// may come from different measures of one script.
func compare(base, with []result) (comparison, error) {
	if len(base) != len(with) || len(base) == 0 {
		return comparison{}, fmt.Errorf("%d blocks against %d", len(base), len(with))
	}
	var ratios, bases, withs []float64
	samples := 0
	for i := range base {
		if base[i].value() <= 0 || with[i].value() <= 0 {
			return comparison{}, fmt.Errorf("block %d measured nothing", i)
		}
		bases = append(bases, base[i].value())
		withs = append(withs, with[i].value())
		ratios = append(ratios, with[i].value()/base[i].value())
		samples += with[i].N
	}
	return comparison{
		base: median(bases), with: median(withs),
		ratio: median(ratios), low: slices.Min(ratios), high: slices.Max(ratios),
		blocks: len(base), samples: samples,
	}, nil
}

// median of values, which must not be empty.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
