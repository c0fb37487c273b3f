// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Both ways a guest's failure is noticed end in the same words.
func TestReadable(t *testing.T) {
	type words struct {
		Cause  string
		Output []string
		Remedy string
	}
	joined := `{"level":"info","slot":"logic-0","message":"joined"}`
	failed := `{"level":"error","slot":"logic-0","error":"command \"x\" not found in /bin","message":"guest cannot be started"}`
	const ended = "A node runs a program that keeps running: check the command and its arguments."
	cases := map[string]struct {
		failure Failure
		want    words
	}{
		"unknown command, member": {
			Failure{Cause: `command "x" not found in /bin`, Output: []string{joined, failed}},
			words{Cause: `command "x" not found in /bin`},
		},
		"unknown command, invocation": {
			Failure{
				Cause:  `StartError: command "x" not found in /bin: ` + joined + " | " + failed,
				Output: []string{joined, failed, `2026/11/21 21:35:13 {"errorMessage":"command \"x\" not found in /bin","errorType":"StartError"}`},
			},
			words{Cause: `command "x" not found in /bin`},
		},
		"guest ended, member": {
			Failure{Cause: "the guest ended with exit status 3", Output: []string{"no shop here"}, Remedy: ended},
			words{Cause: "the guest ended with exit status 3", Output: []string{"no shop here"}, Remedy: ended},
		},
		"guest ended, invocation": {
			Failure{
				Cause:  `wrapError: node "logic-0": the guest ended with exit status 3; its last output: no shop here: ` + joined,
				Output: []string{"no shop here"},
			},
			words{Cause: "the guest ended with exit status 3", Output: []string{"no shop here"}, Remedy: ended},
		},
		"supervisor": {
			Failure{Cause: "its host ended", Output: []string{`{"level":"warn","message":"seed lost"}`, `{"level":"error","error":"refused","message":"join"}`}},
			words{Cause: "its host ended", Output: []string{"seed lost", "join: refused"}},
		},
		"damaged layer": {
			Failure{
				Cause:  "bootstrap: exit status 1: boxer bootstrap: layer checksum mismatch: file:///x",
				Output: []string{"boxer bootstrap: layer checksum mismatch: file:///x"},
			},
			words{
				Cause:  "bootstrap: exit status 1: boxer bootstrap: layer checksum mismatch: file:///x",
				Remedy: "The network's own copy of the layer is damaged: delete the network and create it again.",
			},
		},
		"guest's JSON": {
			Failure{Cause: "its host ended", Output: []string{`{"msg":"hello"}`, `{not JSON}`}},
			words{Cause: "its host ended", Output: []string{`{"msg":"hello"}`, `{not JSON}`}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := c.failure.readable()
			if diff := cmp.Diff(c.want, words{f.Cause, f.Output, f.Remedy}); diff != "" {
				t.Error(diff)
			}
		})
	}
}
