// SPDX-License-Identifier: Apache-2.0

// Command calls plays random sequences of socket calls twice, on the kernel's
// sockets and on the overlay's, and tells where the two differ. It is a guest
// itself; its players are native when the process monitor is taken away from
// them.
//
//	calls -player PROGRAM [-seed N] [-sequences N] [-workers N]
//
// A sequence is played by two processes with four sockets each. Everything
// they see is compared: results, errno, addresses, readiness. What has to travel
// first is waited for, until it is as it was natively or the patience ends.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	o := options{}
	flag.StringVar(&o.player, "player", "", "the program that makes the calls")
	flag.Uint64Var(&o.seed, "seed", 1, "of the first sequence")
	flag.Uint64Var(&o.sequences, "sequences", 1000, "how many")
	flag.IntVar(&o.workers, "workers", 4, "sequences played at a time")
	flag.IntVar(&o.shown, "shown", 10, "differences printed in full")
	flag.DurationVar(&o.limit, "limit", time.Hour, "stop after this time")
	flag.BoolVar(&o.control, "control", false, "compare the kernel with itself")
	flag.BoolVar(&pastNAT, "nat", false, "the overlay's connections cross a NAT")
	flag.BoolVar(&o.print, "print", false, "print the sequences and what came of them")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "calls:", err)
		os.Exit(1)
	}
}

type options struct {
	player          string
	seed, sequences uint64
	workers, shown  int
	limit           time.Duration
	control, print  bool
}

// errDiffer says that the overlay's sockets are not the kernel's.
var errDiffer = errors.New("the overlay's sockets differ from the kernel's")

func run(o options) error {
	underlay, err := underlayAddress()
	if err != nil {
		return err
	}
	native := side{name: "native", player: o.player, self: underlay, ports: portRange{2000, 16000}}
	boxed := side{name: "boxer", player: o.player, self: underlay, ports: portRange{17000, 31000}}
	if !o.control {
		if boxed.self, err = netip.ParseAddr(os.Getenv("BOXER_NODE_ADDRESS")); err != nil {
			return fmt.Errorf("BOXER_NODE_ADDRESS: %w: run this as a guest, or with -control", err)
		}
		boxed.env = os.Environ()
	}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LD_PRELOAD=") && !strings.HasPrefix(kv, "BOXER_") {
			native.env = append(native.env, kv)
		}
	}
	if o.control {
		boxed.env = native.env
	}
	f := &fuzzer{options: o, began: time.Now(), found: map[string]*difference{}, excused: map[string]int{}}
	f.next.Store(o.seed)
	var workers sync.WaitGroup
	errs := make(chan error, o.workers)
	for n := range o.workers {
		workers.Go(func() {
			if err := f.work(native.share(n, o.workers), boxed.share(n, o.workers)); err != nil {
				errs <- err
			}
		})
	}
	workers.Wait()
	close(errs)
	f.report()
	for err := range errs {
		return err
	}
	if len(f.found) > 0 {
		return errDiffer
	}
	return nil
}

// underlayAddress is this host's own address.
func underlayAddress() (netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("own address: %w", err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr(), nil
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
}

// fuzzer is one run.
type fuzzer struct {
	options
	began  time.Time
	next   atomic.Uint64
	played atomic.Uint64
	steps  atomic.Uint64
	stuck  atomic.Uint64 // sequences compared only to a connect that goes on trying

	mu      sync.Mutex
	found   map[string]*difference // by signature
	excused map[string]int         // by reason
	races   int                    // sequences whose native side differs from itself
}

// work plays sequences until there are no more.
func (f *fuzzer) work(native, boxed *side) error {
	defer native.stop()
	defer boxed.stop()
	for {
		seed := f.next.Add(1) - 1
		if seed >= f.seed+f.sequences || time.Since(f.began) > f.limit {
			return nil
		}
		s := generate(seed)
		d, err := f.play(native, boxed, s)
		if err != nil {
			return fmt.Errorf("sequence %d: %w", seed, err)
		}
		f.steps.Add(uint64(len(s)))
		if f.played.Add(1)%10000 == 0 {
			fmt.Printf("%d sequences, %v\n", f.played.Load(), time.Since(f.began).Round(time.Second))
		}
		if d != nil {
			if err := f.examine(native, boxed, seed, d); err != nil {
				return fmt.Errorf("sequence %d: %w", seed, err)
			}
		}
	}
}

// play plays a sequence on both sides.
func (f *fuzzer) play(native, boxed *side, s sequence) (*difference, error) {
	first, err := native.play(s, nil)
	if err != nil {
		return nil, err
	}
	second, err := boxed.play(s, first)
	if err != nil {
		return nil, err
	}
	d := compare(s, first, second)
	if f.print {
		fmt.Println(render(s, first, second))
	}
	if d == nil {
		f.stuck.Add(uint64(min(1, len(first)-len(second))))
		return nil, nil
	}
	if reason := excuse(s, d); reason != "" {
		f.mu.Lock()
		f.excused[reason]++
		f.mu.Unlock()
		return nil, nil
	}
	return d, nil
}

// examine plays a sequence that differed again, to tell a difference from a
// race of the sequence itself, and makes it short.
func (f *fuzzer) examine(native, boxed *side, seed uint64, d *difference) error {
	const again = 3
	native.rest = longRest
	defer func() { native.rest = quickRest }()
	times := 1
	for range again {
		first, err := native.play(d.sequence, nil)
		if err != nil {
			return err
		}
		if e := compare(d.sequence, d.native, first); e != nil {
			f.mu.Lock()
			if f.races++; f.races <= 2 {
				e.seed = seed
				fmt.Printf("a race of the kernel with itself: %v\n", e)
			}
			f.mu.Unlock()
			return nil
		}
		if e, err := f.play(native, boxed, d.sequence); err != nil {
			return err
		} else if e != nil {
			times++
		}
	}
	d.seed, d.times, d.of = seed, times, again+1
	f.mu.Lock()
	known := f.found[d.signature()]
	if known != nil {
		known.count++
	}
	full := len(f.found) >= f.shown
	f.mu.Unlock()
	if known != nil {
		return nil
	}
	if times > 1 && !full {
		var err error
		if d, err = f.shrink(native, boxed, d); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.found[d.signature()]; known != nil {
		known.count++
		return nil
	}
	d.count = 1
	f.found[d.signature()] = d
	fmt.Println(d)
	return nil
}

func (f *fuzzer) report() {
	took := time.Since(f.began)
	fmt.Printf("%d sequences, %d steps in %v (%.0f/s), seeds from %d\n", f.played.Load(), f.steps.Load(),
		took.Round(time.Second), float64(f.played.Load())/took.Seconds(), f.seed)
	var reasons []string
	for reason, n := range f.excused {
		reasons = append(reasons, fmt.Sprintf("excused %d: %s", n, reason))
	}
	sort.Strings(reasons)
	for _, line := range reasons {
		fmt.Println(line)
	}
	fmt.Printf("compared up to a connect to a full accept queue: %d\n", f.stuck.Load())
	fmt.Printf("races of the kernel with itself: %d\n", f.races)
	var kinds []string
	for signature, d := range f.found {
		kinds = append(kinds, fmt.Sprintf("%6d  %s  (seed %d, %d of %d times)", d.count, signature, d.seed, d.times, d.of))
	}
	sort.Sort(sort.Reverse(sort.StringSlice(kinds)))
	fmt.Printf("differences: %d kinds\n", len(kinds))
	for _, line := range kinds {
		fmt.Println(line)
	}
}
