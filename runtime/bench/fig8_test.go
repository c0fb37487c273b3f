// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Figure 8 of the paper: connection set-up and round trip for every combination
// of endpoint kinds, and of transports these can use.

// The scale, unless variables say otherwise, and what is a share of it.
const (
	fig8Pairs    = 32
	fig8Reps     = 32
	fig8LinkPart = 4  // of them over the link with a delay
	fig8OpenPart = 4  // of them with round trips
	fig8Turn     = 16 // repetitions of a combination in a row
	fig8Wake     = 8  // connections before them that do not count
	fig8Rounds   = 128
	hubPort      = 7900
)

// combination is one way from a kind of endpoint to another: a curve of the figure.
type combination struct {
	name      string // of its side in the results
	ends, how string
	agent     string // who connects
	server    string // a slot
	transport string // as `boxer paths` says; none without Boxer
}

var combinations = []combination{
	{"vm-vm.bare", "VM to VM", "without Boxer", "vm-bare", "srv", ""},
	{"vm-vm.native", "VM to VM", "native", "vm", "srv", "native"},
	{"vm-vm.direct", "VM to VM", "direct", "vm-direct", "srv", "direct"},
	{"vm-vm.relay", "VM to VM", "relay", "vm-relay", "srv", "relay"},
	{"fn-vm.bare", "function to VM", "without Boxer", "fn-bare", "srv", ""},
	{"fn-vm.direct", "function to VM", "direct", "fn", "srv", "direct"},
	{"fn-vm.relay", "function to VM", "relay", "fn-relay", "srv", "relay"},
	{"vm-fn.punch", "VM to function", "punch", "vm", "sfn-0", "punch"},
	{"vm-fn.relay", "VM to function", "relay", "vm-relay", "sfn-0", "relay"},
	{"fn-fn.punch", "function to function", "punch", "fn", "sfn-0", "punch"},
	{"fn-fn.relay", "function to function", "relay", "fn-relay", "sfn-0", "relay"},
}

// slot of the node that connects.
func (c combination) slot() string {
	name := strings.TrimSuffix(c.agent, "-bare")
	if strings.HasPrefix(name, "fn") {
		return name + "-0"
	}
	return name
}

// fig8Run is what all pairs of a figure must have in common.
type fig8Run struct {
	Version string `json:"version"`
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"`
	Kernel  string `json:"kernel"`
	Reps    int    `json:"repetitions"`
}

// linkReps are those over the link with a delay.
func (r fig8Run) linkReps() int { return max(r.Reps/fig8LinkPart, 1) }

// pairResult is what one pair of endpoints measured, as it is kept in a file of
// its own: a figure may be measured in pieces.
type pairResult struct {
	Run      fig8Run          `json:"run"`
	Pair     int              `json:"pair"`
	Seed     uint64           `json:"seed"`
	Measured time.Time        `json:"measured"`
	Load     string           `json:"load"`
	Results  results          `json:"results"`                  // one block of each side
	Trips    map[string][]int `json:"trips"`                    // of packets one after the other, by combination
	NoLink   string           `json:"link_missing,omitempty"`   // why there is nothing of the link
	Wrong    map[string]int   `json:"other_paths,omitempty"`    // connections over another transport
	Made     map[string]int   `json:"expected_paths,omitempty"` // over the one that was meant
}

// TestFigure8 measures the pairs it is told to and writes the figure of all that
// have been measured. It judges nothing.
func TestFigure8(t *testing.T) {
	out := os.Getenv("BOXER_FIG8_OUT")
	if out == "" {
		t.Skip("BOXER_FIG8_OUT is not set: `make bench-fig8` measures; an ordinary test run does not take the time")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
	defer cancel()
	b := newBoxer(t)
	first, pairs := int(variable(t, "BOXER_FIG8_FIRST", 0)), int(variable(t, "BOXER_FIG8_PAIRS", fig8Pairs))
	m := describeMachine()
	version := strings.TrimSpace(strings.TrimPrefix(string(b.must(ctx, "version")), "boxer "))
	run := fig8Run{Version: version, CPU: m.CPU, CPUs: m.CPUs, Kernel: m.Kernel, Reps: int(variable(t, "BOXER_FIG8_REPS", fig8Reps))}
	seed := variable(t, "BOXER_BENCH_SEED", uint64(time.Now().Unix()))
	kept := filepath.Join(out, "pairs")
	if first == 0 {
		if err := os.RemoveAll(kept); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(b.work, "probe")
	if err := errors.Join(os.MkdirAll(kept, 0o755), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	b.buildProbe(ctx, dir)
	for pair := first; pair < first+pairs; pair++ {
		began := time.Now()
		p := &pairResult{Run: run, Pair: pair, Seed: seed, Measured: began.UTC().Truncate(time.Second), Load: load()}
		if err := b.measurePair(ctx, dir, p); err != nil {
			t.Fatalf("pair %d: %v", pair, err)
		}
		if err := p.keep(kept); err != nil {
			t.Fatal(err)
		}
		say("pair %d, until %d: %s", pair, first+pairs-1, time.Since(began).Round(time.Second))
	}
	f, err := readFigure(kept)
	if err == nil {
		fmt.Println(f.markdown())
		err = f.write(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	say("written to %s", out)
}

func (p *pairResult) keep(dir string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, fmt.Sprintf("pair-%04d.json", p.Pair)), data, 0o644)
}

// fig8World is the network of one pair: a node for each kind of endpoint and set
// of transports.
type fig8World struct {
	*boxer
	dir        string // has the probe
	cpu, other string
	hub        *hubClient
	server     string                // underlay address of the VM that serves
	addresses  map[string]netip.Addr // of slots, as the middle of the network sees them
}

// measurePair measures one pair in a network of its own.
func (b *boxer) measurePair(ctx context.Context, dir string, p *pairResult) (err error) {
	w := &fig8World{boxer: b, dir: dir, addresses: map[string]netip.Addr{}}
	w.cpu, w.other = cpus(b.t)
	if _, err := b.run(ctx, "network", "create", networkName); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_, gone := b.run(ctx, "network", "delete", networkName)
		err = errors.Join(err, gone)
	}()
	if err := w.start(ctx); err != nil {
		return err
	}
	defer w.hub.conn.Close()
	draw := rand.New(rand.NewPCG(p.Seed, uint64(p.Pair)))
	s := samples{}
	if err := w.repeat(ctx, draw, p.Run.Reps, s, "", nil); err != nil {
		return err
	}
	if err := w.overLink(ctx, draw, p, s); err != nil {
		return err
	}
	p.Results = s.blocks()
	return w.countPaths(ctx, p)
}

// samples by measure and side.
type samples map[string]map[string][]float64

func (s samples) add(measure, side string, values ...float64) {
	if s[measure] == nil {
		s[measure] = map[string][]float64{}
	}
	s[measure][side] = append(s[measure][side], values...)
}

// blocks makes one block of each side.
func (s samples) blocks() results {
	all := results{}
	for measure, sides := range s {
		all[measure] = map[string][]result{}
		for side, values := range sides {
			slices.Sort(values)
			all[measure][side] = []result{{Label: measure, N: len(values), P50: middle(values), Samples: values}}
		}
	}
	return all
}

// repeat has all combinations take turns, in each round in an order that is drawn,
// until each has had so many repetitions. The connections that count are told of.
func (w *fig8World) repeat(ctx context.Context, draw *rand.Rand, repetitions int, s samples, prefix string, counted func(combination, repetition)) error {
	for done := 0; done < repetitions; done += fig8Turn {
		for _, i := range draw.Perm(len(combinations)) {
			c := combinations[i]
			n := min(fig8Turn, repetitions-done)
			turn, err := w.turn(ctx, c, fig8Wake+n, max(n/fig8OpenPart, 1))
			if err != nil {
				return fmt.Errorf("%s, %s, repetitions from %d: %w", c.ends, c.how, done, err)
			}
			first := "paused"
			if done == 0 {
				first = "cold"
			}
			s.add(prefix+first, c.name, turn[0].first)
			for _, r := range turn[fig8Wake:] {
				if len(r.rounds) > 0 {
					s.add(prefix+"rtt", c.name, r.rounds...)
					continue
				}
				s.add(prefix+"connect", c.name, r.first)
				if counted != nil {
					counted(c, r)
				}
			}
		}
	}
	return nil
}

func (w *fig8World) turn(ctx context.Context, c combination, connections, open int) ([]repetition, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if c.transport == "" {
		return w.hub.ask(c.agent, w.server, boxerPort+native, connections, open)
	}
	return w.hub.ask(c.agent, c.server, boxerPort, connections, open)
}

const fig8Server = `# SPDX-License-Identifier: Apache-2.0
T=/var/task
$T/probe-static bare $T/probe serve 7002 &
exec $T/probe serve 7001
`

// fig8Client: an agent in the guest, and beside it one without the monitor.
const fig8Client = `# SPDX-License-Identifier: Apache-2.0
T=/var/task
$T/probe-static bare $T/probe agent $1 $2 $3-bare &
exec $T/probe agent $1 $2 $3
`

// start starts the hub, and then the other nodes at the same time.
func (w *fig8World) start(ctx context.Context) error {
	err := errors.Join(os.WriteFile(filepath.Join(w.dir, "server.sh"), []byte(fig8Server), 0o644),
		os.WriteFile(filepath.Join(w.dir, "client.sh"), []byte(fig8Client), 0o644))
	if err != nil {
		return err
	}
	published, err := freePort()
	if err != nil {
		return err
	}
	clients := []struct{ name, kind, transports string }{
		{"vm", "vm", ""}, {"vm-direct", "vm", "direct"}, {"vm-relay", "vm", "relay"}, {"fn", "function", ""}, {"fn-relay", "function", "relay"},
	}
	err = w.node(ctx, "hub", "vm", w.other, []string{"--publish", fmt.Sprintf("%d:%d", published, hubPort)},
		"/var/task/probe", "hub", strconv.Itoa(hubPort), strconv.Itoa(2*len(clients)))
	if err != nil {
		return err
	}
	hub := w.underlay(ctx, "hub")
	var all sync.WaitGroup
	problems := make(chan error, len(clients)+2)
	for name, kind := range map[string]string{"srv": "vm", "sfn": "function"} {
		all.Go(func() { problems <- w.node(ctx, name, kind, w.cpu, nil, "sh", "/var/task/server.sh") })
	}
	for _, c := range clients {
		var more []string
		if c.transports != "" {
			more = []string{"--transports", c.transports}
		}
		all.Go(func() {
			problems <- w.node(ctx, c.name, c.kind, w.cpu, more, "sh", "/var/task/client.sh", hub, strconv.Itoa(hubPort), c.name)
		})
	}
	all.Wait()
	close(problems)
	for one := range problems {
		err = errors.Join(err, one)
	}
	if err != nil {
		return err
	}
	w.server = w.underlay(ctx, "srv")
	if err := w.learnAddresses(ctx); err != nil {
		return err
	}
	w.hub, err = dialHub(ctx, published)
	return err
}

func (w *fig8World) node(ctx context.Context, name, kind, cpu string, more []string, argv ...string) error {
	args := []string{"run", "--network", networkName, "--kind", kind, "--name", name, "--detach", "--source-dir", w.dir,
		"-e", "PROBE_CPU=" + cpu, "-e", fmt.Sprintf("PROBE_PAUSE_US=%d", pausedUS)}
	if kind == "function" {
		args = append(args, "--memory-size", fastFunction)
	}
	args = append(append(append(args, more...), "--"), argv...)
	_, err := w.run(ctx, args...)
	return err
}

// learnAddresses waits until the functions know about their NATs, and takes up
// where each node is seen.
func (w *fig8World) learnAddresses(ctx context.Context) error {
	var missing string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var nodes []struct {
			Slot, Kind      string
			UnderlayAddress netip.AddrPort `json:"underlay_address"`
			NATReport       *struct {
				Mapped    netip.AddrPort
				Filtering string
			} `json:"nat_report"`
		}
		out, err := w.run(ctx, "nodes", "--network", networkName, "--json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, &nodes); err != nil {
			return fmt.Errorf("nodes --json: %w", err)
		}
		missing = ""
		for _, n := range nodes {
			at := n.UnderlayAddress
			if n.Kind == "function" {
				if n.NATReport == nil || n.NATReport.Filtering == "" {
					missing = n.Slot
					continue
				}
				at = n.NATReport.Mapped
			}
			w.addresses[n.Slot] = at.Addr()
		}
		if missing == "" {
			return nil
		}
	}
	return fmt.Errorf("%s does not know its NAT after 20 s", missing)
}

// countPaths counts the connections that took another transport than the one meant.
func (w *fig8World) countPaths(ctx context.Context, p *pairResult) error {
	time.Sleep(1200 * time.Millisecond) // supervisors report once a second
	var paths []struct {
		From, To, Transport string
		Connections         int
	}
	out, err := w.run(ctx, "paths", "--network", networkName, "--json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, &paths); err != nil {
		return fmt.Errorf("paths --json: %w", err)
	}
	p.Wrong, p.Made = map[string]int{}, map[string]int{}
	for _, c := range combinations {
		for _, one := range paths {
			switch {
			case c.transport == "" || one.From != c.slot() || one.To != c.server:
			case one.Transport == c.transport:
				p.Made[c.name] += one.Connections
			default:
				p.Wrong[c.name] += one.Connections
			}
		}
		if c.transport != "" && c.transport != "native" && p.Made[c.name] < 9*p.Wrong[c.name]+1 {
			return fmt.Errorf("%s, %s: %d connections took it and %d did not: the numbers would be of something else",
				c.ends, c.how, p.Made[c.name], p.Wrong[c.name])
		}
	}
	return nil
}

// repetition is one connection: when it began (the machine's monotonic clock),
// what its first byte and its round trips took, if it made any; nanoseconds.
type repetition struct {
	began  time.Duration
	first  float64
	rounds []float64
}

func parseRepetition(line string) (r repetition, err error) {
	words := strings.Fields(line)
	if len(words) != 2 && len(words) != 2+fig8Rounds {
		return r, fmt.Errorf("%d numbers, want 2 or %d: %.80q", len(words), 2+fig8Rounds, line)
	}
	numbers := make([]float64, len(words))
	for i, word := range words {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil || n <= 0 {
			return r, fmt.Errorf("number %d of a repetition: %q", i, word)
		}
		if i == 0 {
			r.began = time.Duration(n)
		}
		numbers[i] = float64(n)
	}
	r.first, r.rounds = numbers[1], numbers[2:]
	return r, nil
}

// hubClient asks agents, through the hub.
type hubClient struct {
	conn  net.Conn
	lines *bufio.Reader
}

// dialHub connects to the hub's published port and waits for all its agents.
func dialHub(ctx context.Context, port int) (*hubClient, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("the hub: %w", err)
	}
	h := &hubClient{conn, bufio.NewReader(conn)}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintln(conn, "control")
	if line, err := h.lines.ReadString('\n'); err != nil || line != "ready\n" {
		conn.Close()
		return nil, fmt.Errorf("the hub does not have all its agents: %q, %w", line, err)
	}
	return h, nil
}

// ask has an agent make so many connections, and so many with round trips.
func (h *hubClient) ask(agent, host string, port, connections, open int) (all []repetition, err error) {
	h.conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(h.conn, "%s %s %d %d %d\n", agent, host, port, connections, open)
	for {
		line, err := h.lines.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("no answer of %s: %w", agent, err)
		}
		if line == "end\n" {
			break
		}
		r, err := parseRepetition(line)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(all) != connections+open {
		return nil, fmt.Errorf("%s made %d connections, want %d", agent, len(all), connections+open)
	}
	return all, nil
}
