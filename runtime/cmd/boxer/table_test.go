// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// TestTable: what does not fit is left out, then truncated, and never wrapped.
func TestTable(t *testing.T) {
	nodes := table{
		columns: []column{{title: "ID", fixed: true}, {title: "NAME"}, {title: "STATE", fixed: true}, {title: "NAT", fixed: true, optional: true}},
		rows: [][]string{
			{"1", "seed-0", "running", "none"},
			{"12", "a-node-with-a-long-name", "starting", "behind"},
		},
	}
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, `
ID  NAME                     STATE     NAT
1   seed-0                   running   none
12  a-node-with-a-long-name  starting  behind`},
		{45, `
ID  NAME                     STATE     NAT
1   seed-0                   running   none
12  a-node-with-a-long-name  starting  behind`},
		{44, `
ID  NAME                     STATE
1   seed-0                   running
12  a-node-with-a-long-name  starting`},
		{30, `
ID  NAME              STATE
1   seed-0            running
12  a-node-with-a-l…  starting`},
		{12, `
ID  NAME   …
1   seed-0 …
12  a-nod… …`},
	} {
		got := "\n" + strings.Join(nodes.lines(c.width), "\n")
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("width %d (-want +got):\n%s", c.width, diff)
		}
		for _, line := range strings.Split(got, "\n") {
			if n := utf8.RuneCountInString(line); c.width > 0 && n > c.width {
				t.Errorf("width %d: %d in %q", c.width, n, line)
			}
		}
	}
}
