// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestProgress: one line drawn anew on a terminal, plain lines now and then
// elsewhere, nothing of what is over soon, and nothing after the end.
func TestProgress(t *testing.T) {
	for width, want := range map[int]string{
		0: "boxer: waiting 2s for store\nboxer: waiting 7s for front (starting)\n",
		24: "\r\x1b[Kboxer: waiting 1s for …\r\x1b[Kboxer: waiting 2s for …" +
			"\r\x1b[Kboxer: waiting 6s for …\r\x1b[Kboxer: waiting 7s for …\r\x1b[K",
	} {
		var out bytes.Buffer
		p := &progress{w: &out, began: time.Unix(0, 0), what: "store", over: make(chan struct{})}
		for _, s := range []int64{0, 1, 2, 6} {
			p.say(time.Unix(s, 0), width)
		}
		p.now("front (starting)")
		p.say(time.Unix(7, 0), width)
		p.done()
		p.done()
		p.say(time.Unix(20, 0), width)
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("width %d (-want +got):\n%s", width, diff)
		}
	}
}
