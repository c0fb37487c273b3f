// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// outcome of one test, as testdata/runner.py prints it.
type outcome struct {
	ID      string  `json:"id"`
	Outcome string  `json:"outcome"`
	Message string  `json:"message"`
	Seconds float64 `json:"seconds"`
}

func (o outcome) good() bool    { return o.Outcome == "ok" || o.Outcome == "xfail" }
func (o outcome) skipped() bool { return o.Outcome == "skip" }
func (o outcome) bad() bool     { return !o.good() && !o.skipped() }

// results of one module by test id.
type results map[string]outcome

// report of one run of a module.
type report struct {
	results
	head
	foot
	excluded map[string]string // the pattern, by test id
}

// head is the runner's first line: what it really ran with.
type head struct {
	Host    string `json:"host"`
	Preload string `json:"preload"`
}

// foot is its last.
type foot struct {
	Module string  `json:"module"`
	Took   float64 `json:"seconds"`
}

// read takes the runner's output apart. A module that did not come to its end
// is an error: what it did not run would look like what does not exist.
func read(out []byte) (report, error) {
	r := report{results: results{}, excluded: map[string]string{}}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var o outcome
		err := json.Unmarshal(lines.Bytes(), &o)
		switch {
		case err != nil:
		case o.ID != "" && o.Outcome == "excluded":
			r.excluded[o.ID] = o.Message
		case o.ID != "":
			r.results[o.ID] = o
		case r.Host == "":
			err = json.Unmarshal(lines.Bytes(), &r.head)
		default:
			err = json.Unmarshal(lines.Bytes(), &r.foot)
		}
		if err != nil {
			return r, fmt.Errorf("the runner printed %.200q: %w", lines.Text(), err)
		}
	}
	if err := lines.Err(); err != nil {
		return r, fmt.Errorf("read the runner's output: %w", err)
	}
	if r.Module == "" {
		return r, fmt.Errorf("the runner did not come to the end of its module (%d tests): %s", len(r.results), tail(string(out), 500))
	}
	return r, nil
}

// newFailures are the tests that a program on a network could tell Boxer by:
// good without it, not good with it.
func newFailures(bare, boxer report) []string {
	var ids []string
	for id, b := range bare.results {
		with, there := boxer.results[id]
		switch {
		case b.bad(), there && with.good(), boxer.excluded[id] != "":
		case !there, with.bad(), b.good(): // also what only Boxer skips
			ids = append(ids, id)
		}
	}
	for id, with := range boxer.results { // a class that cannot be set up has no test of its own
		if _, there := bare.results[id]; !there && with.bad() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// selecting is the pattern that runs a test again. What failed outside of tests
// is named by what it prepared: setUpClass (test.test_x.Class).
func selecting(id string) string {
	if what, of, ok := strings.Cut(id, " ("); ok && strings.HasPrefix(what, "setUp") {
		return strings.TrimSuffix(of, ")") + ".*"
	} else if strings.HasPrefix(id, "(") { // the module: it could not be loaded
		return "*"
	}
	return strings.ReplaceAll(id, "[", "[[]")
}

// exclusion says why tests are not run, and on which pairs of settings.
type exclusion struct {
	pattern, where, reason string
}

// places are the words for where: "overlay" is every pair but loopback.
var places = []string{"all", "loopback", "overlay", "native", "direct", "relay"}

// readExclusions reads lines of "PATTERN WHERE REASON"; a line without a reason
// is an error.
func readExclusions(file string) ([]exclusion, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []exclusion
	for i, line := range strings.Split(string(data), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 5 { // a reason of one or two words is none
			return nil, fmt.Errorf("%s:%d: %q: want PATTERN WHERE REASON", file, i+1, line)
		}
		e := exclusion{fields[0], fields[1], strings.Join(fields[2:], " ")}
		if !slices.Contains(places, e.where) {
			return nil, fmt.Errorf("%s:%d: %q: want one of %q after the pattern", file, i+1, line, places)
		}
		all = append(all, e)
	}
	return all, nil
}

// patterns that hold for a setting with these words.
func patterns(all []exclusion, where []string) []string {
	var some []string
	for _, e := range all {
		if slices.Contains(where, e.where) {
			some = append(some, e.pattern)
		}
	}
	return some
}

func tail(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return "..." + text[len(text)-size:]
}
