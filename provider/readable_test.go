// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/boxer-overlay/boxer/runtime/launch"
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
		failure launch.Failure
		want    words
	}{
		"unknown command, member": {
			launch.Failure{Cause: `command "x" not found in /bin`, Output: []string{joined, failed}},
			words{Cause: `command "x" not found in /bin`},
		},
		"unknown command, invocation": {
			launch.Failure{
				Cause:  `StartError: command "x" not found in /bin: ` + joined + " | " + failed,
				Output: []string{joined, failed, `2026/11/21 21:35:13 {"errorMessage":"command \"x\" not found in /bin","errorType":"StartError"}`},
			},
			words{Cause: `command "x" not found in /bin`},
		},
		"guest ended, member": {
			launch.Failure{Cause: "the guest ended with exit status 3", Output: []string{"no shop here"}, Remedy: ended},
			words{Cause: "the guest ended with exit status 3", Output: []string{"no shop here"}, Remedy: ended},
		},
		"guest ended, invocation": {
			launch.Failure{
				Cause:  `wrapError: node "logic-0": the guest ended with exit status 3; its last output: no shop here: ` + joined,
				Output: []string{"no shop here"},
			},
			words{Cause: "the guest ended with exit status 3", Output: []string{"no shop here"}, Remedy: ended},
		},
		"supervisor": {
			launch.Failure{Cause: "its host ended", Output: []string{`{"level":"warn","message":"seed lost"}`, `{"level":"error","error":"refused","message":"join"}`}},
			words{Cause: "its host ended", Output: []string{"seed lost", "join: refused"}},
		},
		"guest's JSON": {
			launch.Failure{Cause: "its host ended", Output: []string{`{"msg":"hello"}`, `{not JSON}`}},
			words{Cause: "its host ended", Output: []string{`{"msg":"hello"}`, `{not JSON}`}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got words
			got.Cause, got.Output, got.Remedy = readable(&c.failure)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
