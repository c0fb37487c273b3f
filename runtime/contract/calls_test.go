// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ofFunction is how many sequences a function plays in its life of 15 minutes.
const ofFunction = 10_000

// TestCalls plays random sequences of socket calls on the kernel's sockets and
// on the overlay's, over each transport to the node itself, and finds no
// difference but those that runtime/contract/calls excuses (docs/contract.md).
// `make fuzz-calls` plays many more, and others each time.
func TestCalls(t *testing.T) {
	w := theWorld(t)
	sequences, seed, limit := 200, uint64(1), time.Minute
	if text := os.Getenv("BOXER_CALLS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("BOXER_CALLS=%q: want a number of sequences", text)
		}
		sequences, seed, limit = n, uint64(time.Now().Unix())<<20, 4*time.Hour
	}
	if text := os.Getenv("BOXER_CALLS_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("BOXER_CALLS_SEED=%q: %v", text, err)
		}
		seed = n
	}
	w.callsPrograms(t)
	for _, transport := range []string{"native", "direct", "relay", "punch"} {
		t.Run(transport, func(t *testing.T) {
			args := []string{"run", "--kind", "vm"}
			guest := []string{"/var/task/calls", "-player", "/var/task/player", "-workers", "12"}
			most := sequences
			if transport == "punch" { // with itself, past its NAT
				args = []string{"run", "--kind", "function", "--nat", "hairpin", "--memory-size", "1769"}
				guest = append(guest, "-nat")
				most = min(sequences, ofFunction)
			}
			args = append(args, "--transports", transport, "--source-dir", w.task, "--")
			for first := 0; first < sequences; first += most {
				out, err := w.boxer(limit, slices.Concat(args, guest, []string{
					"-sequences", strconv.Itoa(min(most, sequences-first)), "-seed", strconv.FormatUint(seed+uint64(first), 10),
				})...)
				t.Logf("\n%s", out)
				if err != nil {
					t.Errorf("%s: %v", transport, err)
				}
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		// The kernel does not differ from itself.
		out, err := w.boxer(limit, "run", "--kind", "vm", "--source-dir", w.task, "--",
			"/var/task/calls", "-control", "-player", "/var/task/player", "-workers", "12", "-sequences", "200")
		if err != nil || !strings.Contains(out, "differences: 0") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// callsPrograms builds the guest and its players. The guest is linked
// statically: only the players are interposed.
func (w *world) callsPrograms(t *testing.T) {
	t.Helper()
	if err := w.compile("player.c", "player"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(w.task, "calls"), "./calls")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v\n%s", err, out)
	}
}
