// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The burst: examples/burst under load, whose logic tier is scaled by burstSize.
const (
	burstNetwork  = "burst"
	burstScaled   = 20 * time.Second // after the load began
	burstVMDelay  = 45 * time.Second // that a VM takes to start, in the paper's Figure 10
	burstLasts    = 80 * time.Second
	burstBin      = 500 * time.Millisecond
	burstClients  = 104 // of wrk: two for each worker of thirteen replicas
	burstDistrust = 30 * time.Second
)

// variant is one way to meet the burst.
type variant struct {
	Name  string
	Title string
	Color string
	VMs   int // from the start
	scale func(ctx context.Context, u *burst) error
}

var variants = []variant{
	{Name: "none", Title: "no scaling", Color: "#888888", VMs: 1},
	{Name: "functions", Title: "12 functions", Color: "#ee6677", VMs: 1, scale: func(ctx context.Context, u *burst) error {
		_, err := u.run(ctx, "scale", "--network", burstNetwork, "burst", strconv.Itoa(burstSize))
		return err
	}},
	{Name: "vms", Title: "12 VMs that take 45 s to start (simulated)", Color: "#4477aa", VMs: 1, scale: func(ctx context.Context, u *burst) error {
		select {
		case <-time.After(burstVMDelay):
			return u.apply(ctx, 1+burstSize)
		case <-ctx.Done():
			return ctx.Err()
		}
	}},
	{Name: "overprovisioned", Title: "13 VMs from the start", Color: "#228833", VMs: 1 + burstSize},
}

// traced is what was measured of a variant.
type traced struct {
	Variant    string    `json:"variant"`
	Measured   time.Time `json:"measured"`
	Machine    machine   `json:"machine"`
	Requests   int       `json:"requests"`
	Failed     int       `json:"failed"`
	Served     int       `json:"replicas_that_served"`
	AllServing int64     `json:"all_serving_ms,omitempty"` // after the scale decision, the last new replica's first answer
	Steady     float64   `json:"per_s_at_the_end"`
	BinMS      int64     `json:"bin_ms"`
	Bins       []int     `json:"bins"` // answers
}

// burst is the example, applied.
type burst struct {
	*boxer
	tf, dir string
}

// newBurst lays the example out and initialises it; it is destroyed when the test ends.
func newBurst(ctx context.Context, t *testing.T) *burst {
	t.Helper()
	u := &burst{boxer: newBoxer(t)}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tf, registry, err := tool(root)
	if err != nil {
		t.Fatal(err)
	}
	u.tf, u.dir = tf, filepath.Join(u.work, "burst")
	if err := os.CopyFS(u.dir, os.DirFS(filepath.Join(root, "examples", "burst"))); err != nil {
		t.Fatal(err)
	}
	version := strings.Fields(string(u.must(ctx, "version")))[1]
	mirror, err := u.mirror(registry, version)
	if err != nil {
		t.Fatal(err)
	}
	u.env = append(u.env, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1")
	if _, err := u.command(ctx, u.dir, u.tf, "init", "-input=false", "-plugin-dir="+mirror); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		if t.Failed() {
			t.Logf("the front end's last words: %s", tail(u.log("front"), 3000))
			t.Logf("%s", u.must(ctx, "events", "--network", burstNetwork))
		}
		if _, err := u.command(ctx, u.dir, u.tf, "destroy", "-input=false", "-auto-approve"); err != nil {
			t.Error(err)
		}
	})
	return u
}

func (u *burst) apply(ctx context.Context, vms int) error {
	_, err := u.command(ctx, u.dir, u.tf, "apply", "-input=false", "-auto-approve", fmt.Sprintf("-var=vms=%d", vms))
	return err
}

func (u *burst) log(slot string) string {
	text, _ := os.ReadFile(filepath.Join(u.work, "state", "networks", burstNetwork, "logs", slot+".log"))
	return string(text)
}

// answer is one request's, as the front end logged it.
type answer struct {
	at      time.Time
	status  int
	replica string // its address
}

var requestLine = regexp.MustCompile(`(?m)^request (\d+) (\d+|-1) (\S+) \d+$`)

// answers that the front end logged after the first skip bytes of its log.
func (u *burst) answers(skip int) (all []answer) {
	text := u.log("front")
	for _, m := range requestLine.FindAllStringSubmatch(text[min(skip, len(text)):], -1) {
		ms, _ := strconv.ParseInt(m[1], 10, 64)
		status, _ := strconv.Atoi(m[2])
		all = append(all, answer{time.UnixMilli(ms), status, m[3]})
	}
	return all
}

// wrk is one load under way.
type wrk struct {
	skip int // of the front end's log
	done chan error
	out  []byte
}

// begin starts wrk on a VM of its own and returns with the first answer.
func (u *burst) begin(ctx context.Context, lasts time.Duration) (*wrk, time.Time, error) {
	l := &wrk{skip: len(u.log("front")), done: make(chan error, 1)}
	// Without keep-alive, so that a front end that is replaced would fail no request either.
	go func() {
		var err error
		l.out, err = u.run(ctx, "run", "--network", burstNetwork, "--kind", "vm", "--name", "load", "--",
			"wrk", "-t1", "-c"+strconv.Itoa(burstClients), "-d"+strconv.Itoa(int(lasts.Seconds()))+"s", "--timeout", "60s",
			"-H", "Connection: close", "http://front:8080/")
		l.done <- err
	}()
	for end := time.Now().Add(burstDistrust); ; time.Sleep(20 * time.Millisecond) {
		if all := u.answers(l.skip); len(all) > 0 {
			return l, all[0].at, nil
		}
		select {
		case err := <-l.done:
			return nil, time.Time{}, fmt.Errorf("the load ended at once: %w", err)
		default:
		}
		if time.Now().After(end) {
			return nil, time.Time{}, errors.New("no answer came")
		}
	}
}

var (
	wrkErrors = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkOthers = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkCount  = regexp.MustCompile(`(\d+) requests in`)
)

// end waits for wrk and says how many of its requests were answered and failed.
func (l *wrk) end() (requests, failed int, err error) {
	if err := <-l.done; err != nil {
		return 0, 0, err
	}
	for _, m := range slices.Concat(wrkErrors.FindAllStringSubmatch(string(l.out), -1), wrkOthers.FindAllStringSubmatch(string(l.out), -1)) {
		for _, number := range m[1:] {
			n, _ := strconv.Atoi(number)
			failed += n
		}
	}
	m := wrkCount.FindStringSubmatch(string(l.out))
	if m == nil {
		return 0, 0, fmt.Errorf("wrk said nothing of its requests: %s", l.out)
	}
	requests, err = strconv.Atoi(m[1])
	return requests, failed, err
}

// trace runs one variant.
func (u *burst) trace(ctx context.Context, v variant) (traced, error) {
	tr := traced{Variant: v.Name, Measured: time.Now().UTC().Truncate(time.Second), Machine: describeMachine(), BinMS: burstBin.Milliseconds()}
	if err := u.apply(ctx, v.VMs); err != nil {
		return tr, err
	}
	l, began, err := u.begin(ctx, burstLasts)
	if err != nil {
		return tr, err
	}
	time.Sleep(time.Until(began.Add(burstScaled)))
	decided := time.Now()
	if v.scale != nil {
		if err := v.scale(ctx, u); err != nil {
			return tr, err
		}
		say("%s: scaled %v after the decision", v.Name, time.Since(decided).Round(time.Millisecond))
	}
	if tr.Requests, tr.Failed, err = l.end(); err != nil {
		return tr, err
	}
	tr.Machine.LoadAfter = load()
	tr.count(u.answers(l.skip), began, decided)
	if v.Name == "functions" {
		_, err = u.run(ctx, "scale", "--network", burstNetwork, "burst", "0")
	}
	return tr, err
}

// count fills in what the answers say.
func (tr *traced) count(all []answer, began, decided time.Time) {
	tr.Bins = make([]int, int(burstLasts/burstBin))
	first := map[string]time.Time{}
	atEnd := 0
	for _, a := range all {
		if a.status != 200 {
			tr.Failed++
			continue
		}
		if first[a.replica].IsZero() {
			first[a.replica] = a.at
		}
		since := a.at.Sub(began)
		if bin := int(since / burstBin); bin >= 0 && bin < len(tr.Bins) {
			tr.Bins[bin]++
		}
		if since >= burstLasts-10*time.Second && since < burstLasts-time.Second {
			atEnd++
		}
	}
	tr.Served, tr.Steady = len(first), float64(atEnd)/9
	for _, at := range first {
		if at.After(decided) {
			tr.AllServing = max(tr.AllServing, at.Sub(decided).Milliseconds())
		}
	}
}

// TestBurst measures and draws the variants; what it leaves is judged by nobody but
// its reader, except that no request may fail.
func TestBurst(t *testing.T) {
	out := os.Getenv("BOXER_BURST_OUT")
	if out == "" {
		t.Skip("BOXER_BURST_OUT is not set: `make burst` measures; TestBurstServes is the short version")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	u := newBurst(ctx, t)
	only := strings.FieldsFunc(os.Getenv("BOXER_BURST_ONLY"), func(r rune) bool { return r == ',' })
	for _, v := range variants {
		if len(only) > 0 && !slices.Contains(only, v.Name) {
			continue
		}
		say("%s, for %v", v.Title, burstLasts)
		tr, err := u.trace(ctx, v)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		say("%s: %d requests, %d failed, %d replicas served, all %d ms after the decision, %.0f requests a second at the end",
			v.Name, tr.Requests, tr.Failed, tr.Served, tr.AllServing, tr.Steady)
		if tr.Failed > 0 {
			t.Errorf("%s: %d requests failed", v.Name, tr.Failed)
		}
		data, err := json.MarshalIndent(tr, "", " ")
		if err == nil {
			err = os.WriteFile(filepath.Join(out, "burst-"+v.Name+".json"), append(data, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := drawBurst(out); err != nil {
		t.Fatal(err)
	}
}

// TestBurstServes is the burst in small: scaled out and in under load, no request
// fails, and everybody has served.
func TestBurstServes(t *testing.T) {
	if os.Getenv("BOXER_BIN") == "" {
		t.Skip("BOXER_BIN is not set")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	const replicas = 3
	u := newBurst(ctx, t)
	if err := u.apply(ctx, 1); err != nil {
		t.Fatal(err)
	}
	l, _, err := u.begin(ctx, 9*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	u.must(ctx, "scale", "--network", burstNetwork, "burst", strconv.Itoa(replicas))
	served := map[string]bool{}
	for end := time.Now().Add(burstDistrust); len(served) < 1+replicas; time.Sleep(50 * time.Millisecond) {
		for _, a := range u.answers(l.skip) {
			served[a.replica] = true
		}
		if time.Now().After(end) {
			t.Fatalf("%d replicas have served, want %d", len(served), 1+replicas)
		}
	}
	u.must(ctx, "scale", "--network", burstNetwork, "burst", "0")
	requests, failed, err := l.end()
	if err != nil || failed > 0 || requests == 0 {
		t.Errorf("%d requests, %d failed: %v: %s", requests, failed, err, l.out)
	}
	for _, a := range u.answers(l.skip) {
		if a.status != 200 {
			t.Errorf("a request at %v to %s: status %d", a.at, a.replica, a.status)
		}
	}
}
