// SPDX-License-Identifier: Apache-2.0

// Package bench measures what Boxer costs, as ratios against the same machine
// without Boxer in the same run: `make bench` prints a table and writes JSON.
// Blocks of both sides alternate, so that a drifting machine moves both; a ratio
// is the median of the ratios of neighbouring blocks, given with the smallest
// and largest. A control row, native against native, shows the noise.
package bench
