// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func appendTo(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// read gives all that r finds now.
func read(t *testing.T, r *LogReader) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Copy(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestCutLog: a log is cut under a writer that holds it and a reader that
// follows: nothing is lost but the oldest, and the reader sees whole lines.
func TestCutLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	guest := appendTo(t, path)
	const most, keep = 256 << 10, 64 << 10
	var written sync.WaitGroup
	const lines = 40000 // some 1.2 MB
	written.Go(func() {
		for i := range lines {
			fmt.Fprintf(guest, "line %08d of the guest\n", i)
		}
	})
	done := make(chan struct{})
	go func() { written.Wait(); close(done) }()
	var lost int64
	follower := NewLogReader(path)
	defer follower.Close()
	follower.Lost = func(n int64) { lost += n }
	var followed bytes.Buffer
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if err := cutLog(path, most, keep); err != nil {
			t.Fatal(err)
		}
		if err := follower.Copy(&followed); err != nil {
			t.Fatal(err)
		}
	}
	size, used := int64(lines*len("line 00000000 of the guest\n")), blocks(t, path)
	if used > most+4*logBlock {
		t.Errorf("%d bytes are used, want at most %d", used, most)
	}
	if int64(followed.Len())+lost != size {
		t.Errorf("%d followed + %d lost, want %d", followed.Len(), lost, size)
	}
	checkLines(t, "followed", followed.String(), lines)

	late := NewLogReader(path)
	defer late.Close()
	var missed int64
	late.Lost = func(n int64) { missed += n }
	kept := read(t, late)
	if int64(len(kept))+missed != size || len(kept) < keep-1000 {
		t.Errorf("%d kept + %d lost, want %d, and at least %d kept", len(kept), missed, size, keep)
	}
	checkLines(t, "kept", kept, lines)
}

// checkLines: whole lines in their order, up to the last.
func checkLines(t *testing.T, what, text string, count int) {
	t.Helper()
	last := -1
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		var n int
		if _, err := fmt.Sscanf(line, "line %08d of the guest", &n); err != nil || n <= last {
			t.Fatalf("%s: after line %d comes %.60q", what, last, line)
		}
		last = n
	}
	if last != count-1 {
		t.Errorf("%s: ends with line %d, want %d", what, last, count-1)
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size() - dataFrom(f, 0)
}

// TestLogReader: it waits for a log, begins with the last lines, and goes on
// with the next launch.
func TestLogReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r := NewLogReader(path)
	defer r.Close()
	if got := read(t, r); got != "" {
		t.Errorf("of no log: %q", got)
	}
	f := appendTo(t, path)
	fmt.Fprint(f, "one\ntwo\nthree\n")
	if got := read(t, r); got != "one\ntwo\nthree\n" {
		t.Errorf("the first lines: %q", got)
	}
	for lines, want := range map[int]string{0: "", 1: "three\n", 2: "two\nthree\n", 9: "one\ntwo\nthree\n"} {
		late := NewLogReader(path)
		if err := late.Last(lines); err != nil {
			t.Fatal(err)
		}
		if got := read(t, late); got != want {
			t.Errorf("the last %d: %q, want %q", lines, got, want)
		}
		late.Close()
	}
	fmt.Fprint(f, "last words\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(appendTo(t, path), "a long first line of the next launch\n")
	if got := read(t, r); got != "last words\na long first line of the next launch\n" {
		t.Errorf("the end of one launch and the next: %q", got)
	}
}
