// SPDX-License-Identifier: Apache-2.0

// Command sample writes examples/capacity/trace.csv.gz: a day of requests by second
// that nobody ever sent. No measured trace could be shipped, so this one imitates
// what the paper says of one of Reddit's (sections 2 and 2.2): a daily pattern, load
// that changes by more than an order of magnitude in a few seconds, and 65 % of the
// seconds below 3 % of the peak. The numbers are the same wherever it runs.
package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"

	"github.com/boxer-overlay/boxer/runtime/capacity"
)

const (
	seconds = 24 * 3600
	seed    = 2024

	base        = 16.0    // requests/s on average over the day, without bursts
	swing       = 0.35    // of the daily pattern, relative to it
	busiest     = 20.0    // o'clock
	drift       = 0.15    // of the base, drifting with a memory of
	driftMemory = 15 * 60 // seconds

	burstEvery  = 60.0  // seconds between bursts, on average
	burstLeast  = 60.0  // requests/s that a burst adds
	burstShape  = 1.5   // Pareto: the smaller, the more large ones
	burstMost   = 500.0 // requests/s
	burstLength = 7.0   // seconds beyond the first, on average
)

func main() {
	if err := write(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sample:", err)
		os.Exit(1)
	}
}

func write(w io.Writer) error {
	packed, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := day().Write(packed); err != nil {
		return err
	}
	return packed.Close()
}

// day adds bursts to a base that follows the time of day, and draws the requests of
// each second. Products are converted where an addition follows: fused, they would
// have other last digits on some processors.
func day() capacity.Trace {
	random := rand.New(rand.NewPCG(seed, seed))
	bursts := make([]float64, seconds)
	for at := 0.0; at < seconds; at += float64(random.ExpFloat64() * burstEvery) {
		height := min(burstLeast*math.Pow(1-random.Float64(), -1/burstShape), burstMost)
		length := 1 + float64(random.ExpFloat64()*burstLength)
		for second := int(at); second < min(int(at+length), seconds); second++ {
			bursts[second] += height
		}
	}
	trace := make(capacity.Trace, seconds)
	drifted := 0.0
	for second := range trace {
		hour := float64(second) / 3600
		daily := 1 + float64(swing*math.Cos((hour-busiest)*math.Pi/12))
		drifted = float64(drifted*(1-1.0/driftMemory)) + float64(random.NormFloat64()*drift*math.Sqrt(2.0/driftMemory))
		mean := float64(base*daily*math.Exp(drifted)) + float64(bursts[second]*daily)
		// As many as come by chance (near enough to Poisson's distribution).
		trace[second] = max(math.Round(mean+float64(random.NormFloat64()*math.Sqrt(mean))), 0)
	}
	return trace
}
