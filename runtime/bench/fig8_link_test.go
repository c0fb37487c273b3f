// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The delaying link in the middle of a network: the router sends what it gets
// from a node into one TUN device and takes it from the other, linkDelay later.
const (
	delayIn, delayOut = "delay0", "delay1"
	delayTable        = 90 // of routes
	firstRule         = 100
)

// overLink repeats over a link with a delay, and counts the trips packets made.
func (w *fig8World) overLink(ctx context.Context, draw *rand.Rand, p *pairResult, s samples) error {
	link, err := w.delayRouter()
	if err != nil {
		p.NoLink = err.Error()
		return nil
	}
	type window struct {
		c          combination
		began, end time.Duration
	}
	var windows []window
	err = w.repeat(ctx, draw, p.Run.linkReps(), s, "link.", func(c combination, r repetition) {
		windows = append(windows, window{c, r.began, r.began + time.Duration(r.first)})
	})
	if err != nil {
		return err
	}
	if err := w.stopDelay(link); err != nil {
		return err
	}
	hops, err := readHops(filepath.Join(w.dir, traceFile))
	if err != nil {
		return err
	}
	p.Trips = map[string][]int{}
	for _, one := range windows {
		n := trips(hops, w.addresses[one.c.slot()], w.addresses["hub"], one.began, one.end)
		if n > 0 { // else the trace was full
			p.Trips[one.c.name] = append(p.Trips[one.c.name], n)
		}
	}
	return nil
}

// inRouter runs f on a thread in the network namespace of the router.
func (w *fig8World) inRouter(f func() error) error {
	pid, err := w.router()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this
		ns, err := netns.GetFromPid(pid)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err != nil {
			done <- fmt.Errorf("enter the middle of the network (it takes root): %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// delayRouter puts the link into the middle of the network.
func (w *fig8World) delayRouter() (*delayer, error) {
	var near, far *os.File
	err := w.inRouter(func() (err error) {
		if near, err = openTUN(delayIn); err != nil {
			return err
		}
		if far, err = openTUN(delayOut); err != nil {
			return err
		}
		return routeByDelay()
	})
	if err != nil {
		return nil, err
	}
	defer near.Close()
	defer far.Close()
	link, err := startDelayer(w.dir, w.other, near, far)
	if err != nil {
		return nil, err
	}
	if err := link.delay(linkDelay); err != nil {
		return nil, err
	}
	return link, w.inRouter(func() error { return netlink.RuleAdd(delayRule(2, "")) })
}

// routeByDelay makes everything that comes from elsewhere than the link, or from
// the router itself, go into it once there is the last rule, for all.
func routeByDelay() error {
	for _, device := range []string{"all", delayOut} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/rp_filter", []byte("0"), 0); err != nil {
			return err
		}
	}
	in, err := netlink.LinkByName(delayIn)
	if err != nil {
		return err
	}
	err = netlink.RouteAdd(&netlink.Route{LinkIndex: in.Attrs().Index, Table: delayTable, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}})
	if err != nil {
		return fmt.Errorf("route into %s: %w", delayIn, err)
	}
	for i, from := range []string{delayOut, "lo"} {
		if err := netlink.RuleAdd(delayRule(i, from)); err != nil {
			return fmt.Errorf("routes of what comes from %s: %w", from, err)
		}
	}
	return nil
}

// delayRule: what comes from a device is routed as ever; with none, all else by the link.
func delayRule(i int, from string) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.IifName, r.Table = unix.AF_INET, firstRule+i, from, unix.RT_TABLE_MAIN
	if from == "" {
		r.Table = delayTable
	}
	return r
}

// stopDelay takes the link out, so that the network still works without it.
func (w *fig8World) stopDelay(link *delayer) error {
	if err := w.inRouter(func() error { return netlink.RuleDel(delayRule(2, "")) }); err != nil {
		return err
	}
	return link.end()
}

// hop is a packet as the link saw it, with who sent it to whom.
type hop struct {
	when     time.Duration
	from, to netip.Addr
}

func readHops(path string) ([]hop, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []hop
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		words := bytes.Fields(lines.Bytes())
		var when int64
		var from, to netip.Addr
		if len(words) != 8 {
			err = fmt.Errorf("%d words", len(words))
		} else if _, err = fmt.Sscan(string(words[0]), &when); err == nil {
			if from, err = netip.ParseAddr(string(words[6])); err == nil {
				to, err = netip.ParseAddr(string(words[7]))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("line %q of the link's trace: %w", lines.Text(), err)
		}
		all = append(all, hop{time.Duration(when), from, to})
	}
	return all, lines.Err()
}

// trips counts how many packets, each sent when the one before had arrived, led
// from the client, when it began, to the client, when it had its first byte.
// Packets of hub are not of the connection. It is the most that this can have
// been: what was sent after another's arrival need not have waited for it.
func trips(all []hop, client, hub netip.Addr, began, end time.Duration) int {
	at, _ := slices.BinarySearchFunc(all, began, func(h hop, t time.Duration) int { return int(h.when - t) })
	depth := map[netip.Addr]int{client: 0}
	type arrival struct {
		when time.Duration
		to   netip.Addr
		n    int
	}
	var under []arrival // way, in the order of their arrival
	arrive := func(until time.Duration) {
		for len(under) > 0 && under[0].when <= until {
			depth[under[0].to] = max(depth[under[0].to], under[0].n)
			under = under[1:]
		}
	}
	for _, h := range all[at:] {
		if h.when > end {
			break
		}
		arrive(h.when)
		if n, reached := depth[h.from]; reached && h.from != hub && h.to != hub {
			under = append(under, arrival{h.when + linkDelay, h.to, n + 1})
		}
	}
	arrive(end)
	return depth[client]
}

func TestTripsFollowOneAnother(t *testing.T) {
	us := func(n int) time.Duration { return time.Duration(n) * time.Microsecond }
	name := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 1, last}) }
	client, server, relay, hub := name(1), name(2), name(3), name(9)
	native := []hop{
		{us(0), hub, client}, {us(10), client, server}, {us(120), server, client}, {us(230), client, server}, {us(340), server, client},
		{us(500), client, server}, {us(620), server, client},
	}
	if got := trips(native, client, hub, us(5), us(450)); got != 4 {
		t.Errorf("SYN, SYN-ACK, ACK, byte: %d trips, want 4", got)
	}
	// The peer is asked by way of a relay, and dials: three trips.
	back := []hop{{us(10), client, relay}, {us(120), relay, server}, {us(230), server, client}}
	if got := trips(back, client, hub, us(5), us(340)); got != 3 {
		t.Errorf("dialled back: %d trips, want 3", got)
	}
	// What the server sends by itself, or before the packet it would answer has
	// arrived, follows from nothing.
	apart := []hop{{us(6), server, client}, {us(10), client, server}, {us(50), server, client}, {us(115), server, client}}
	if got := trips(apart, client, hub, us(5), us(200)); got != 0 {
		t.Errorf("before anything came back: %d trips, want 0", got)
	}
	if got := trips(apart, client, hub, us(5), us(230)); got != 2 {
		t.Errorf("there and back: %d trips, want 2", got)
	}
	asked := []hop{{us(10), client, hub}, {us(120), hub, client}}
	if got := trips(asked, client, hub, us(5), us(400)); got != 0 {
		t.Errorf("of the hub: %d trips, want 0", got)
	}
}
