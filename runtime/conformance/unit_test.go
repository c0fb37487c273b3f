// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const headLine = `{"host": "100.80.0.2", "preload": "/opt/boxer/lib/libboxer.so"}` + "\n"

func TestReadWantsTheEndOfTheModule(t *testing.T) {
	line := `{"id": "a.b", "outcome": "fail", "seconds": 0.5, "message": "m"}` + "\n"
	line += `{"id": "a.c", "outcome": "excluded", "message": "a.[c-d]"}` + "\n"
	end := `{"module": "m", "seconds": 2}` + "\n"
	r, err := read([]byte(headLine + line + end))
	if err != nil || r.results["a.b"].Message != "m" || r.excluded["a.c"] != "a.[c-d]" || len(r.results) != 1 || r.Preload == "" {
		t.Errorf("read: %+v, %v", r, err)
	}
	for _, out := range []string{"", headLine + line, headLine + line + "Traceback\n" + end} {
		if r, err := read([]byte(out)); err == nil {
			t.Errorf("read(%q) = %+v: want an error", out, r)
		}
	}
}

func TestNewFailures(t *testing.T) {
	of := func(pairs ...string) results {
		r := results{}
		for i := 0; i < len(pairs); i += 2 {
			r[pairs[i]] = outcome{ID: pairs[i], Outcome: pairs[i+1]}
		}
		return r
	}
	bare := of("both", "ok", "fixed", "fail", "fails", "ok", "hangs", "ok", "skips", "ok", "skipped", "skip", "lost", "ok", "expected", "xfail", "bad", "error")
	boxer := of("both", "ok", "fixed", "ok", "fails", "fail", "hangs", "hang", "skips", "skip", "skipped", "skip", "setUpClass (x.Y)", "error", "expected", "xfail", "bad", "hang")
	want := []string{"fails", "hangs", "lost", "setUpClass (x.Y)", "skips"}
	bare["left"], bare["out"] = outcome{Outcome: "ok"}, outcome{Outcome: "ok"}
	excluded := map[string]string{"left": "l*", "out": "o*"}
	if got := newFailures(report{results: bare}, report{results: boxer, excluded: excluded}); !slices.Equal(got, want) {
		t.Errorf("new failures %q, want %q", got, want)
	}
}

func TestExclusionsNeedReasons(t *testing.T) {
	file := filepath.Join(t.TempDir(), "exclusions.txt")
	for line, ok := range map[string]bool{
		"# nothing":                              true,
		"a.b.* all hangs without Boxer":          true,
		"a.b.* overlay UDP is not carried":       true,
		"a.b.* all":                              false,
		"a.b.* all flaky":                        false,
		"a.b.* underlay it has to be left alone": false,
	} {
		if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readExclusions(file); (err == nil) != ok {
			t.Errorf("%q: %v", line, err)
		}
	}
	if _, err := readExclusions("testdata/exclusions.txt"); err != nil {
		t.Error(err)
	}
}

func TestSelecting(t *testing.T) {
	for id, want := range map[string]string{
		"test.a.B.test_c":           "test.a.B.test_c",
		"setUpClass (test.a.B)":     "test.a.B.*",
		"setUpModule (test.a)":      "test.a.*",
		"(loading) test_a":          "*",
		"test.a.B.test_c (i=[1,2])": "test.a.B.test_c (i=[[]1,2])",
	} {
		if got := selecting(id); got != want || strings.ContainsAny(got, "\n") {
			t.Errorf("selecting(%q) = %q, want %q", id, got, want)
		}
	}
}
