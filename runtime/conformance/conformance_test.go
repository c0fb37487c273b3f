// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Test hosts: what the runner binds to and connects to.
const (
	loopback = "127.0.0.1"
	overlay  = "overlay"
	underlay = "underlay"
)

const (
	// moduleTime bounds one module in one setting.
	moduleTime = 40 * time.Minute
	// reruns of what differs, on both sides, and most of them while it is undecided.
	reruns, mostReruns = 3, 10
)

// modules of CPython's test package, the long ones first.
var modules = []string{
	"test_multiprocessing_fork", "test_asyncio", "test_ssl", "test_socket", "test_subprocess", "test_socketserver",
	"test_selectors", "test_ftplib", "test_httpservers", "test_smtplib", "test_epoll",
}

// setting of a run. What one side of a pair leaves out the other does as well;
// bare runs that several pairs share leave out what all of them do.
type setting struct {
	bare            bool
	host, transport string
	function        bool     // else a VM
	excludes        []string // where exclusions hold
}

func (s setting) String() string {
	text := "Boxer on " + s.host
	switch {
	case s.bare:
		text = "bare on " + s.host
	case s.transport != "":
		text += " over " + s.transport
	}
	if s.function {
		text += " of a function"
	}
	return text
}

// node are the flags of the node that runs it. A function's NAT lets it reach
// itself from outside, and one CPU is its own.
func (s setting) node() []string {
	flags := []string{"--kind", "vm"}
	if s.function {
		flags = []string{"--kind", "function", "--nat", "hairpin", "--memory-size", "1769"}
	}
	if s.transport != "" {
		flags = append(flags, "--transports", s.transport)
	}
	return flags
}

// pair of settings to compare. Its bare side has what is closest: an address of
// an interface stands for the overlay address.
type pair struct {
	name        string
	bare, boxer setting
}

var pairs = []pair{
	{"loopback", bareOn(loopback, "loopback"), setting{host: loopback, excludes: []string{"all", "loopback"}}},
	{"native", bareOn(underlay, "overlay"), over("native")},
	{"direct", bareOn(underlay, "overlay"), over("direct")},
	{"relay", bareOn(underlay, "overlay"), over("relay")},
	{"punch", onFunction(bareOn(underlay, "overlay")), onFunction(over("punch"))},
}

func onFunction(s setting) setting {
	s.function = true
	return s
}

func bareOn(host, where string) setting {
	return setting{bare: true, host: host, excludes: []string{"all", where}}
}

func over(transport string) setting {
	return setting{host: overlay, transport: transport, excludes: []string{"all", "overlay", transport}}
}

// suite runs jobs, each once, some at a time.
type suite struct {
	*cloud
	excluded []exclusion
	places   chan struct{}

	mu   sync.Mutex
	done map[string]func() (report, error) // by setting and module
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	excluded, err := readExclusions("testdata/exclusions.txt")
	if err != nil {
		t.Fatal(err)
	}
	atOnce, err := strconv.Atoi(or(os.Getenv("BOXER_CONFORMANCE_JOBS"), "2"))
	if err != nil || atOnce < 1 {
		t.Fatalf("BOXER_CONFORMANCE_JOBS is %q: want how many modules run at a time", os.Getenv("BOXER_CONFORMANCE_JOBS"))
	}
	if _, err := exec.Command("/usr/bin/python3", "-c", "import test.test_epoll").CombinedOutput(); err != nil {
		t.Fatalf("python3's test package is not installed (%v): run `tools/deps.sh conformance`", err)
	}
	s := &suite{cloud: newCloud(t), excluded: excluded, places: make(chan struct{}, atOnce), done: map[string]func() (report, error){}}
	s.buildBare(t)
	return s
}

// once runs a job that several pairs have in common.
func (s *suite) once(ctx context.Context, j job) (report, error) {
	key := j.setting.String() + j.module
	s.mu.Lock()
	run, there := s.done[key]
	if !there {
		run = sync.OnceValues(func() (report, error) { return s.run(ctx, j, s.excluded) })
		s.done[key] = run
	}
	s.mu.Unlock()
	return run()
}

func (s *suite) run(ctx context.Context, j job, excluded []exclusion) (report, error) {
	s.places <- struct{}{}
	defer func() { <-s.places }()
	return s.cloud.run(ctx, j, excluded)
}

// row is what one module showed on one pair.
type row struct {
	Module      string            `json:"module"`
	Pair        string            `json:"pair"`
	Run         int               `json:"run"`
	Passed      int               `json:"passed"`
	Skipped     int               `json:"skipped"`
	FailedBare  []string          `json:"failed_bare"`
	New         map[string]string `json:"new_failures"` // the message, by test
	Flaky       map[string]string `json:"flaky"`        // differed once, and not again
	Excluded    map[string]int    `json:"excluded"`     // tests, by pattern
	SecondsBare float64           `json:"seconds_bare"`
	Seconds     float64           `json:"seconds"`
}

// compare runs both sides of a module, and what differs again.
func (s *suite) compare(ctx context.Context, p pair, module string, only []string) (row, error) {
	bare, err := s.once(ctx, job{p.bare, module, only})
	if err != nil {
		return row{}, err
	}
	boxer, err := s.once(ctx, job{p.boxer, module, only})
	if err != nil {
		return row{}, err
	}
	w := row{
		Module: module, Pair: p.name, Run: len(boxer.results), New: map[string]string{}, Flaky: map[string]string{},
		Excluded: map[string]int{}, SecondsBare: bare.Took, Seconds: boxer.Took,
	}
	for id, o := range bare.results {
		if o.bad() {
			w.FailedBare = append(w.FailedBare, id)
		}
	}
	slices.Sort(w.FailedBare)
	for _, pattern := range boxer.excluded {
		w.Excluded[pattern]++
	}
	for _, o := range boxer.results {
		if o.good() {
			w.Passed++
		} else if o.skipped() {
			w.Skipped++
		}
	}
	return w, s.settle(ctx, p, module, &w, newFailures(bare, boxer), boxer.results)
}

// settle tells new failures from what merely differed once: on a loaded machine
// tests of timing fail now and then on either side. A test is new when it fails
// under Boxer in every rerun, or in more than one when rerun more often, and in
// none bare.
func (s *suite) settle(ctx context.Context, p pair, module string, w *row, differing []string, boxer results) error {
	again, undecided := make(map[string]int), differing
	for i := range mostReruns {
		if i == reruns {
			undecided = slices.DeleteFunc(slices.Clone(undecided), func(id string) bool { return again[id] <= 0 || again[id] == reruns })
		}
		if len(undecided) == 0 {
			break
		}
		if err := s.again(ctx, p, module, undecided, again); err != nil {
			return err
		}
	}
	for _, id := range differing {
		o := boxer[id]
		message := strings.TrimSpace(or(o.Outcome, "not run") + "\n" + o.Message)
		if again[id] > 1 {
			w.New[id] = fmt.Sprintf("(again in %d reruns) %s", again[id], message)
		} else {
			w.Flaky[id] = message
		}
	}
	return nil
}

// again runs tests once more on both sides and counts who still differs.
func (s *suite) again(ctx context.Context, p pair, module string, ids []string, count map[string]int) error {
	var only []string
	for _, id := range ids {
		only = append(only, selecting(id))
	}
	bare, err := s.run(ctx, job{p.bare, module, only}, s.excluded)
	if err != nil {
		return err
	}
	boxer, err := s.run(ctx, job{p.boxer, module, only}, s.excluded)
	if err != nil {
		return err
	}
	still := newFailures(bare, boxer)
	for _, id := range ids {
		if bare.results[id].bad() {
			count[id] -= mostReruns // it fails bare, too
		} else if slices.Contains(still, id) {
			count[id]++
		}
	}
	return nil
}

// TestConformance takes about half an hour; `make conformance` runs it.
func TestConformance(t *testing.T) {
	out := os.Getenv("BOXER_CONFORMANCE_OUT")
	if out == "" {
		t.Skip("BOXER_CONFORMANCE_OUT is not set: `make conformance` runs every module on every transport")
	}
	chosen, on := modules, pairs
	if list := os.Getenv("BOXER_CONFORMANCE_MODULES"); list != "" {
		chosen = strings.Split(list, ",")
	}
	if list := os.Getenv("BOXER_CONFORMANCE_PAIRS"); list != "" {
		on = slices.DeleteFunc(slices.Clone(pairs), func(p pair) bool { return !slices.Contains(strings.Split(list, ","), p.name) })
	}
	s := newSuite(t)
	rows := s.all(t, chosen, on)
	data, err := json.MarshalIndent(rows, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Clean(out), append(data, '\n'), 0o644)
	}
	if err != nil {
		t.Error(err)
	}
	fmt.Print(table(rows))
	for _, w := range rows {
		for id, message := range w.New {
			t.Errorf("new failure on %s: %s: %s", w.Pair, id, message)
		}
		for id, message := range w.Flaky {
			t.Logf("differed once on %s: %s: %s", w.Pair, id, message)
		}
	}
	if len(chosen) == len(modules) && len(on) == len(pairs) {
		s.checkExclusions(t, rows)
	}
}

// few are tests that any run of the tests can afford: what exercises connections
// most in the least time.
var few = map[string][]string{
	"test_epoll":        {"test.test_epoll.TestEPoll.test_[!c]*"}, // control_and_wait times a poll to 10 ms
	"test_socketserver": nil,
	"test_selectors":    {"test.test_selectors.EpollSelectorTestCase.test_[!s]*"}, // select_interrupt sleeps
	"test_socket": {
		"test.test_socket.BasicTCPTest.*", "test.test_socket.NonBlockingTCPTests.*", "test.test_socket.InheritanceTest.*",
		"test.test_socket.SendmsgTCPTest.*", "test.test_socket.RecvmsgTCPTest.*", "test.test_socket.RecvmsgIntoTCPTest.*",
		"test.test_socket.NetworkConnectionAttributesTest.*", "test.test_socket.FileObjectClassTestCase.test[!R]*",
		"test.test_socket.NetworkConnectionNoServer.test_c[!r]*", "test.test_socket.CreateServerFunctionalTest.*",
	},
}

// TestFew is the part of the conformance run that an ordinary test run does.
func TestFew(t *testing.T) {
	if os.Getenv("BOXER_CONFORMANCE_OUT") != "" {
		t.Skip("the whole is run")
	}
	s := newSuite(t)
	for _, p := range pairs[2:] { // direct, relay and punch: the others are the kernel's
		for module, only := range few {
			t.Run(module+" on "+p.name, func(t *testing.T) {
				t.Parallel()
				w, err := s.compare(t.Context(), p, module, only)
				if err != nil {
					t.Fatal(err)
				}
				for id, message := range w.New {
					t.Errorf("new failure: %s: %s", id, message)
				}
				t.Logf("%d tests, %d passed, %d failed bare: %q", w.Run, w.Passed, len(w.FailedBare), w.FailedBare)
			})
		}
	}
}

// all compares every module on every pair, in the order of the modules.
func (s *suite) all(t *testing.T, modules []string, pairs []pair) []row {
	t.Helper()
	rows := make([]row, len(modules)*len(pairs))
	errs := make([]error, len(rows))
	var wg sync.WaitGroup
	for i := range rows {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := pairs[i%len(pairs)]
			began := time.Now()
			rows[i], errs[i] = s.compare(t.Context(), p, modules[i/len(pairs)], nil)
			fmt.Printf("conformance: %s on %s: %d run, %d new failures (%v)\n", modules[i/len(pairs)], p.name, rows[i].Run, len(rows[i].New), time.Since(began).Round(time.Second))
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	return rows
}

// checkExclusions finds those that exclude nothing any more.
func (s *suite) checkExclusions(t *testing.T, rows []row) {
	t.Helper()
	used := map[string]bool{}
	for _, w := range rows {
		for pattern := range w.Excluded {
			used[pattern] = true
		}
	}
	for _, e := range s.excluded {
		if !used[e.pattern] {
			t.Errorf("testdata/exclusions.txt: %s excludes nothing: remove it", e.pattern)
		}
	}
}

// table is the difference for people.
func table(rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n| module | on | run | passed | skipped | failed bare | new failures | differed once | excluded |\n|---|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, w := range rows {
		excluded := 0
		for _, n := range w.Excluded {
			excluded += n
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %d |\n", w.Module, w.Pair, w.Run, w.Passed, w.Skipped, len(w.FailedBare), len(w.New), len(w.Flaky), excluded)
	}
	return b.String()
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
