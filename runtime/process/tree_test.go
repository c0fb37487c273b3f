// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"testing"
	"time"
)

// TestTreeTime: what descendants use counts, while they run and when they have been
// waited for; what others use does not.
func TestTreeTime(t *testing.T) {
	p, err := Start(Spec{Argv: []string{"sh", "-c", `sh -c 'i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done'; sleep 1000 & (while :; do :; done) & wait`}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.SignalAll(9) }()
	var last time.Duration
	missed := false // who ended between two reads may be in neither
	for _, least := range []time.Duration{30 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond} {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			used, err := TreeTime(p.PID())
			if err != nil {
				t.Fatal(err)
			}
			if used < last && missed {
				t.Fatalf("%v, after %v", used, last)
			}
			missed = used < last
			if last = max(used, last); used >= least {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%v of CPU time in 20 s", used)
			}
		}
	}
	idle, err := Start(Spec{Argv: []string{"sleep", "1000"}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.SignalAll(9) }()
	if used, err := TreeTime(idle.PID()); err != nil || used > 50*time.Millisecond {
		t.Errorf("an idle one: %v %v", used, err)
	}
	if _, err := TreeTime(1 << 30); err == nil {
		t.Error("there is no such process")
	}
}

func TestParseUsage(t *testing.T) {
	parent, used, err := parseUsage("7 (a (b) c) S 3 7 7 0 -1 4194304 0 0 0 0 11 22 33 44 20 0 1 0 100")
	if err != nil || parent != 3 || used != 1100*time.Millisecond {
		t.Errorf("%d %v %v", parent, used, err)
	}
	for _, stat := range []string{"", "7 (a) S 3", "7 (a) S x 7 7 0 -1 4194304 0 0 0 0 11 22 33 44", "7 (a) S 3 7 7 0 -1 4194304 0 0 0 0 11 x 33 44"} {
		if _, _, err := parseUsage(stat); err == nil {
			t.Errorf("%q is one", stat)
		}
	}
}
