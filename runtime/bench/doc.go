// SPDX-License-Identifier: Apache-2.0

// Package bench measures what Boxer costs, as ratios against the same machine
// without Boxer in the same run: `make bench` prints a table and writes JSON, a
// table for the documentation and a plot. All sides have a short block in each
// round, in an order that is drawn, so that a drifting machine moves all of them;
// ratios have an interval, and native against native beside them shows the noise
// (docs/bench.md).
package bench
