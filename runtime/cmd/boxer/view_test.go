// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPaintPlain: where there is no terminal a watched view is printed again
// only when its data has changed, as tables or as JSON lines.
func TestPaintPlain(t *testing.T) {
	show := func(data, cell string) view {
		return view{data: data, table: table{columns: []column{{title: "NAME"}}, rows: [][]string{{cell}}}}
	}
	views := []view{show("a", "one, 1s"), show("a", "one, 2s"), show("b", "two")}
	for _, c := range []struct {
		json bool
		want string
	}{
		{false, "NAME\none, 1s\n\nNAME\ntwo\n"},
		{true, "\"a\"\n\"b\"\n"},
	} {
		var out bytes.Buffer
		p := &painter{w: &out, json: c.json}
		for _, v := range views {
			if err := p.paint(v); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(c.want, out.String()); diff != "" {
			t.Errorf("json %v (-want +got):\n%s", c.json, diff)
		}
	}
}
