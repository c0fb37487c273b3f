// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/capacity"
)

// TestShipped: the trace in examples/capacity is what this program writes.
func TestShipped(t *testing.T) {
	file, err := os.Open("../../../examples/capacity/trace.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got, err := capacity.Read(file, false)
	if err != nil || !slices.Equal(got, day()) {
		t.Errorf("it is another (%v): go run ./runtime/capacity/sample > examples/capacity/trace.csv.gz", err)
	}
}
