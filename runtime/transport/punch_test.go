// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"golang.org/x/sys/unix"
)

// A member of each kind; the names are those of the local cloud's NATs.
func memberBehind(id uint32, kind string) cluster.Member {
	m := cluster.Member{ID: id, NAT: cluster.NATBehind}
	r := cluster.NATReport{
		Mapped:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 128, byte(id)}), 7717),
		Mapping: cluster.MappingIndependent, Filtering: cluster.FilteringClosed, Unexpected: cluster.UnexpectedDrop,
	}
	switch kind {
	case "vm":
		m.NAT, m.UnderlayAddress = cluster.NATNone, netip.MustParseAddrPort("100.64.1.1:7717")
		return m
	case "unknown":
		return m
	case "cone":
		r.Filtering, r.Unexpected = cluster.FilteringOpen, ""
	case "symmetric", "symmetric-rst":
		r.Mapping = cluster.MappingDependent
	}
	if strings.HasSuffix(kind, "-rst") {
		r.Unexpected = cluster.UnexpectedReset
	}
	m.NATReport = &r
	return m
}

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		active, passive string
		want            mode
		waits           bool
	}{
		{"restricted", "vm", modeDial, false},
		{"vm", "restricted", modeBack, false},
		{"vm", "symmetric-rst", modeBack, false},
		{"vm", "unknown", modeBack, false},
		{"restricted", "cone", modeDial, false},
		{"symmetric-rst", "cone", modeDial, false},
		{"cone", "symmetric", modeBack, false},
		{"restricted", "restricted", modeActiveFirst, true},
		{"restricted-rst", "restricted", modeActiveFirst, false},
		{"restricted", "restricted-rst", modePassiveFirst, true},
		{"restricted-rst", "restricted-rst", modeNone, false},
		{"symmetric", "restricted", modeNone, false},
		{"restricted", "symmetric", modeNone, false},
		{"symmetric", "symmetric", modeNone, false},
		{"unknown", "restricted", modeNone, false},
		{"restricted", "unknown", modeNone, false},
	} {
		a, b := memberBehind(2, test.active), memberBehind(3, test.passive)
		if got := choose(a, b); got != test.want || waits(a, b) != test.waits {
			t.Errorf("%s to %s: %q, waits %v; want %q, %v", test.active, test.passive, got, waits(a, b), test.want, test.waits)
		}
	}
	a, b := memberBehind(2, "restricted"), memberBehind(3, "restricted")
	b.NATReport.Mapped = netip.AddrPortFrom(a.NATReport.Mapped.Addr(), 9)
	if got := choose(a, b); got != modeNone {
		t.Errorf("behind one NAT: %q", got)
	}
	a.NATReport.Hairpin = true
	if got := choose(a, b); got != modeActiveFirst {
		t.Errorf("behind one NAT that hairpins: %q", got)
	}
	a.NATReport.HairpinOpen = true // then the listener answers, and there is nothing to open
	if got := choose(a, b); got != modeDial {
		t.Errorf("behind one NAT that lets in its own: %q", got)
	}
}

// seenAt is a member behind a NAT with this address outside.
func seenAt(address string) func(*cluster.Member, *Options) {
	return func(m *cluster.Member, o *Options) {
		*m = cluster.Member{ID: m.ID, NAT: cluster.NATBehind, State: m.State, OverlayAddress: m.OverlayAddress, UnderlayAddress: m.UnderlayAddress}
		r := memberBehind(m.ID, "restricted").NATReport
		r.Mapped = netip.AddrPortFrom(netip.MustParseAddr(address), 7717)
		m.NATReport = r
	}
}

// said is an answer of either kind.
type said struct {
	meetAnswer
	shut []uint16
}

// asked is v's answer to a call of another member.
func (v *node) asked(from *node, method string, call any) (said, error) {
	eventually(v.t, "it serves its overlay port", func() bool {
		v.openings.mu.Lock()
		defer v.openings.mu.Unlock()
		return v.openings.local.IsValid()
	})
	body, err := json.Marshal(call)
	must(v.t, err)
	answer, err := v.Handlers()[method](context.Background(), from.id, body)
	if err != nil {
		return said{}, err
	}
	if punched, ok := answer.(punchAnswer); ok {
		return said{punched.meetAnswer, punched.Shut}, nil
	}
	return said{meetAnswer: answer.(meetAnswer)}, nil
}

// A peer may be reached by the first SYN, as behind a NAT that hairpins: it has
// the connection then, and cannot dial who is connected.
func TestPunchThatNeedsNoOpening(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	a, b := n.node(seenAt("127.0.0.1")), n.node(seenAt("127.69.0.2"))
	n.mu.Lock()
	n.on[b.id-1].NATReport.Mapped = n.on[b.id-1].UnderlayAddress
	n.mu.Unlock()
	for range 2 {
		arrivals := b.listen(80)
		g := a.connect(b.port(80), false)
		in := receive(t, arrivals)
		if got := g.events(5 * time.Second); got != unix.POLLOUT {
			t.Fatalf("events %#x", got)
		}
		talk(t, g.conn(), in.conn)
	}
	for _, p := range a.Paths() {
		if p.Transport != pathPunch {
			t.Errorf("connected over %s", p.Transport)
		}
	}
	g := a.connect(b.port(81), false)
	if got := g.events(5 * time.Second); got&unix.POLLERR == 0 {
		t.Errorf("where nobody listens: events %#x", got)
	}
}

func listenOn(t *testing.T, address string) (*net.TCPListener, uint16) {
	t.Helper()
	ln, err := net.Listen("tcp4", address+":0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener), ln.Addr().(*net.TCPAddr).AddrPort().Port()
}

// A node dials nobody but who asks it to, few times, and for a listener only.
func TestCallsLeadToTheCallerOnly(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	passive, caller, other, vm := n.node(seenAt("127.69.0.2")), n.node(seenAt("127.69.0.3")), n.node(behindNAT), n.node()
	own, port := listenOn(t, "127.69.0.3")
	victim, err := net.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.69.0.4"), port).String())
	must(t, err)
	defer victim.Close()

	answer, err := passive.asked(caller, methodPunch, punchCall{Ports: []uint16{port}, Port: 80})
	if err != nil || answer.Status != statusRefused {
		t.Errorf("for nobody who listens: %+v, %v", answer, err)
	}
	passive.listen(80)
	// Whatever else a call says, it does not say where to.
	answer, err = passive.asked(caller, methodPunch, map[string]any{
		"ports": []uint16{port}, "port": 80, "address": "127.69.0.4", "endpoint": victim.Addr().String(), "mapped": victim.Addr().String(),
	})
	if err != nil || answer.Status != statusOK {
		t.Fatalf("%+v, %v", answer, err)
	}
	own.SetDeadline(time.Now().Add(5 * time.Second))
	conn, err := own.Accept()
	must(t, err)
	defer conn.Close()
	if from := remote(conn); from != passive.Self().UnderlayAddress {
		t.Errorf("it was dialled from %s, not from the overlay port %s", from, passive.Self().UnderlayAddress)
	}
	victim.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond))
	if c, err := victim.Accept(); err == nil {
		t.Errorf("somebody else was dialled, from %s", c.RemoteAddr())
	}
	near, at := listenOn(t, vm.Self().UnderlayAddress.Addr().String())
	if answer, err := passive.asked(vm, methodPunch, punchCall{Ports: []uint16{at}, Port: 80}); err != nil || answer.Status != statusOK {
		t.Errorf("a caller that can be dialled: %+v, %v", answer, err)
	}
	near.SetDeadline(time.Now().Add(5 * time.Second))
	if c, err := near.Accept(); err != nil {
		t.Errorf("a caller that can be dialled: %v", err)
	} else {
		c.Close()
	}
	for what, call := range map[string]punchCall{"no ports": {Port: 80}, "too many": {Port: 80, Ports: make([]uint16, maxPorts+1)}} {
		if answer, err := passive.asked(caller, methodPunch, call); err == nil {
			t.Errorf("%s: %+v", what, answer)
		}
	}
	if answer, _ := passive.asked(other, methodPunch, punchCall{Ports: []uint16{port}, Port: 80}); answer.Status != statusUnreachable {
		t.Errorf("a caller whose place is not known: %+v", answer)
	}
	for from, endpoint := range map[*node]string{caller: victim.Addr().String(), other: "127.69.0.4:80"} {
		answer, err := passive.asked(from, methodDialBack, meetCall{Session: make([]byte, 16), Port: 80, From: from.port(1), Endpoint: endpoint})
		if err != nil || answer.Status != statusUnreachable {
			t.Errorf("dial back to %s: %+v, %v", endpoint, answer, err)
		}
	}
}

// What waits at an open NAT is bounded, for each caller and in time.
func TestOpeningsAreBounded(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	passive, caller := n.node(seenAt("127.69.0.2")), n.node(seenAt("127.69.0.3"))
	passive.listen(80)
	h, err := dig(301) // its SYNs vanish, as they do at a NAT
	must(t, err)
	defer h.close()
	n.mu.Lock()
	n.on[caller.id-1].NATReport.Mapped = h.addr
	n.mu.Unlock()
	call := punchCall{Ports: []uint16{h.addr.Port()}, Port: 80}
	for range 3 { // a new one takes the place of the old one
		if answer, err := passive.asked(caller, methodPunch, call); err != nil || answer.Status != statusOK {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	waiting := func() int {
		passive.openings.mu.Lock()
		defer passive.openings.mu.Unlock()
		return len(passive.openings.by)
	}
	if waiting() != 1 {
		t.Errorf("%d wait", waiting())
	}
	more := func(n int) {
		passive.openings.mu.Lock()
		defer passive.openings.mu.Unlock()
		passive.openings.each[caller.id] += n
	}
	// One too many takes the place of the oldest: who wants it has forgotten that.
	newer, err := dig(301)
	must(t, err)
	defer newer.close()
	more(maxOpenEach - 1)
	answer, err := passive.asked(caller, methodPunch, punchCall{Ports: []uint16{newer.addr.Port()}, Port: 80})
	if err != nil || answer.Status != statusOK || waiting() != 1 || passive.openings.by[newer.addr] == nil {
		t.Errorf("one too many: %+v, %v, %d wait", answer, err, waiting())
	}
	more(1)
	if answer, _ := passive.asked(caller, methodPunch, call); answer.Status != statusUnreachable {
		t.Errorf("there is no more room to be made: %+v", answer)
	}
	more(-maxOpenEach)
	if answer, err := passive.asked(caller, methodPunch, call); err != nil || answer.Status != statusOK {
		t.Errorf("there is room: %+v, %v", answer, err)
	}
	n.mu.Lock()
	all := n.on
	n.on = n.on[:caller.id-1] // which is the last one
	n.mu.Unlock()
	eventually(t, "nothing waits for who has left", func() bool { return waiting() == 0 })
	n.mu.Lock()
	n.on = all
	n.mu.Unlock()
	if answer, err := passive.asked(caller, methodPunch, call); err != nil || answer.Status != statusOK {
		t.Errorf("it is back: %+v, %v", answer, err)
	}
	passive.openings.mu.Lock()
	for _, w := range passive.openings.by {
		w.expiry.Reset(0)
	}
	passive.openings.mu.Unlock()
	eventually(t, "it is given up", func() bool { return waiting() == 0 })
}

// A caller may ask to have its ports kept open, not for ever, and is told which
// are not open any more.
func TestOpeningsAreKeptOpen(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	passive, caller := n.node(seenAt("127.69.0.2")), n.node(seenAt("127.69.0.3"))
	passive.listen(80)
	h, err := dig(302) // its SYNs vanish, as they do at a NAT
	must(t, err)
	defer h.close()
	n.mu.Lock()
	n.on[caller.id-1].NATReport.Mapped = h.addr
	n.mu.Unlock()
	o, open := &passive.openings, h.addr.Port()
	left := func() int {
		passive.descriptors.mu.Lock()
		defer passive.descriptors.mu.Unlock()
		return passive.descriptors.left
	}
	before := left()
	ask := func(keep bool, ports ...uint16) (shut []uint16) {
		t.Helper()
		answer, err := passive.asked(caller, methodPunch, punchCall{Ports: ports, Port: 80, Keep: keep})
		must(t, err)
		return answer.shut
	}
	if shut := ask(false, open); len(shut) > 0 {
		t.Fatalf("not opened: %d", shut)
	}
	o.mu.Lock()
	first := o.by[h.addr]
	first.expiry.Reset(time.Hour)
	o.mu.Unlock()
	if shut := ask(true, open, open+1); !slices.Equal(shut, []uint16{open + 1}) {
		t.Errorf("not open any more: %d, want %d", shut, open+1)
	}
	o.mu.Lock()
	if len(o.by) != 1 || o.by[h.addr] != first {
		t.Errorf("it does not wait on: %v", o.by)
	}
	if !first.expiry.Stop() {
		t.Error("it has expired")
	}
	first.since = time.Now().Add(-openAtMost) // as long as the kernel tries
	o.mu.Unlock()
	ask(true, open)
	eventually(t, "it is given up", func() bool { return left() == before })
}

// Where the caller's NAT resets, nothing waits any more.
func TestOpeningThatIsRefusedEnds(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	passive, caller := n.node(seenAt("127.69.0.2")), n.node(seenAt("127.69.0.3"))
	passive.listen(80)
	own, port := listenOn(t, "127.69.0.3")
	own.Close()
	_, err := passive.asked(caller, methodPunch, punchCall{Ports: []uint16{port}, Port: 80})
	must(t, err)
	eventually(t, "it is given up", func() bool {
		passive.openings.mu.Lock()
		defer passive.openings.mu.Unlock()
		return len(passive.openings.by) == 0
	})
}

// All that wait are bounded, too.
func TestAllOpeningsAreBounded(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	passive, caller := n.node(seenAt("127.69.0.2")), n.node(seenAt("127.69.0.3"))
	passive.listen(80)
	o := &passive.openings
	place := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 70, 0, 1}), uint16(i+1))
	}
	o.mu.Lock()
	for i := range maxOpen {
		o.by[place(i)] = &opening{}
	}
	o.mu.Unlock()
	if answer, _ := passive.asked(caller, methodPunch, punchCall{Ports: []uint16{1}, Port: 80}); answer.Status != statusUnreachable {
		t.Errorf("one too many: %+v", answer)
	}
	o.mu.Lock()
	clear(o.by)
	o.mu.Unlock()
}

// Who comes while the port is asked to be opened again is not hung up on.
func TestOpeningThatIsMetStays(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	passive := n.node(seenAt("127.69.0.2"))
	own, port := listenOn(t, "127.69.0.3")
	to := netip.AddrPortFrom(netip.MustParseAddr("127.69.0.3"), port)
	o := &passive.openings
	eventually(t, "it serves its overlay port", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.local.IsValid()
	})
	fd, err := dialOut(o.local, to)
	must(t, err)
	conn, err := own.Accept()
	must(t, err)
	defer conn.Close()
	o.mu.Lock()
	// Nobody has looked at it yet.
	met := &opening{to: to, fd: fd, stop: func() {}, expiry: time.AfterFunc(time.Hour, func() {})}
	o.by[to], o.each[0] = met, 1
	o.mu.Unlock()
	must(t, o.open(passive.Layer, 0, to, false, maxOpen))
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("who came reads %v", err)
	}
}

// The punched port is the overlay port: what comes there proves itself, once.
func TestPunchedConnectionsProveThemselves(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	passive, caller := n.node(seenAt("127.69.0.2")), n.node(seenAt("127.69.0.3"))
	arrivals := passive.listen(80)
	punched := func() net.Conn {
		t.Helper()
		own, port := listenOn(t, "127.69.0.3")
		own.SetDeadline(time.Now().Add(10 * time.Second))
		answer, err := passive.asked(caller, methodPunch, punchCall{Ports: []uint16{port}, Port: 80})
		if err != nil || answer.Status != statusOK {
			t.Fatalf("%+v, %v", answer, err)
		}
		conn, err := own.Accept()
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		return conn
	}
	b := preface{kind: kindDirect, id: caller.id, src: caller.port(4321), dst: passive.port(80)}.fresh().seal(*passive.key.Load())
	conn := punched()
	_, err := conn.Write(b)
	must(t, err)
	a := receive(t, arrivals)
	if a.local != passive.port(80) || a.peer != caller.port(4321) {
		t.Errorf("arrived at %s from %s", a.local, a.peer)
	}
	talk(t, conn, a.conn)
	forged := append([]byte(nil), b...)
	forged[40]++
	for what, bytes := range map[string][]byte{"replayed": b, "forged": forged, "another protocol": []byte("GET / HTTP/1.1\r\n\r\n")} {
		conn := punched()
		_, err := conn.Write(bytes)
		must(t, err)
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	select {
	case a := <-arrivals:
		t.Errorf("delivered from %s", a.peer)
	default:
	}
}

// A node dials its own overlay port, but for one that may use punch alone and
// whose NAT lets it come back in.
func TestPunchAloneLoops(t *testing.T) {
	n := newNetwork(t)
	for _, test := range []struct {
		name, reach string
		only        []string
		hairpin     bool
		filtering   string
		want        mode
	}{
		{"alone", reachAny, []string{pathPunch}, true, cluster.FilteringClosed, modeActiveFirst},
		{"no hairpin", reachAny, []string{pathPunch}, false, cluster.FilteringClosed, modeDial},
		{"with others", reachAny, []string{pathPunch, pathRelay}, true, cluster.FilteringClosed, modeDial},
		{"not known yet", reachAny, []string{pathPunch}, false, "", modeNone},
		{"a client, which is never probed", "seeds", []string{pathPunch}, false, "", modeDial},
	} {
		v := n.node(seenAt("127.69.0.9"), only(test.only...), func(m *cluster.Member, o *Options) {
			m.NATReport.Hairpin, m.NATReport.Filtering, m.Since, o.Reach = test.hairpin, test.filtering, time.Now(), test.reach
		})
		self, place := v.Self(), v.Self().UnderlayAddress
		if test.want == modeActiveFirst {
			place = self.NATReport.Mapped
		}
		if how := v.punches(self, self); how != test.want || v.placeOf(self, self) != place {
			t.Errorf("%s: %q at %s, want %q at %s", test.name, how, v.placeOf(self, self), test.want, place)
		}
		if err := v.barred(self, self); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// What ought to have been punched and was not is tried again after some time, or
// when either side knows more of its NAT.
func TestFailuresAreRemembered(t *testing.T) {
	self, m, other := memberBehind(1, "restricted"), memberBehind(2, "restricted"), memberBehind(3, "restricted")
	moved := func(m cluster.Member) cluster.Member {
		m.NATReport = memberBehind(9, "restricted").NATReport
		return m
	}
	for name, test := range map[string]struct {
		self, m cluster.Member
		ago     time.Duration
		want    bool
	}{
		"the same pair":   {self, m, failedFor / 2, true},
		"another peer":    {self, other, 0, false},
		"the peer moved":  {self, moved(m), 0, false},
		"this node moved": {moved(self), m, 0, false},
		"long ago":        {self, m, failedFor + time.Second, false},
	} {
		f := failures{by: map[uint32]failure{}}
		f.add(self, m)
		is := f.by[m.ID]
		is.until = is.until.Add(-test.ago)
		f.by[m.ID] = is
		if f.has(test.self, test.m) != test.want {
			t.Errorf("%s: want %v", name, test.want)
		}
	}
}

// A pair that cannot be punched meets at a relay, and does not try again at once.
func TestPunchThatFailsIsNotTriedAgain(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	a, b := n.node(seenAt("127.0.0.1")), n.node(seenAt("127.69.0.2"))
	h, err := dig(303) // its SYNs vanish
	must(t, err)
	defer h.close()
	n.mu.Lock()
	n.on[b.id-1].NATReport.Mapped = h.addr
	n.mu.Unlock()
	var asked atomic.Int32
	b.punched = func(punchCall) punchAnswer {
		asked.Add(1)
		return punchAnswer{meetAnswer: meetAnswer{Status: statusOK}}
	}
	arrivals := b.listen(80)
	for range 2 {
		g := a.connect(b.port(80), false)
		in := receive(t, arrivals)
		g.events(5 * time.Second)
		talk(t, g.conn(), in.conn)
		eventually(t, "that it failed is known", func() bool { return a.failed.has(a.Self(), b.Self()) })
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("the peer was asked to open %d times", got)
	}
}

// Of what waits at this node's NAT some places are for connections that are made now:
// what others have prepared for later may not keep them out.
func TestPreparedPathsLeaveRoom(t *testing.T) {
	n := newNetwork(t)
	n.node(seed)
	passive, other, caller := n.node(seenAt("127.69.0.2")), n.node(seenAt("127.69.0.3")), n.node(seenAt("127.69.0.4"))
	passive.listen(80)
	var ports []uint16
	for range 2 {
		h, err := dig(303) // its SYNs vanish, as they do at a NAT
		must(t, err)
		defer h.close()
		ports = append(ports, h.addr.Port())
		n.mu.Lock()
		n.on[caller.id-1].NATReport.Mapped = netip.AddrPortFrom(h.addr.Addr(), 7717)
		n.mu.Unlock()
	}
	o := &passive.openings
	eventually(t, "the overlay port is served", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.local.IsValid()
	})
	o.mu.Lock()
	for i := range maxPrepared {
		to := netip.AddrPortFrom(netip.MustParseAddr("127.69.0.3"), uint16(1000+i))
		o.by[to] = &opening{caller: other.id, to: to, fd: -1, stop: func() {}, expiry: time.AfterFunc(time.Hour, func() {})}
	}
	o.each[other.id] = maxPrepared
	o.mu.Unlock()
	if answer, err := passive.asked(caller, methodPunch, punchCall{Ports: ports, Port: 80}); err != nil || answer.Status != statusUnreachable {
		t.Errorf("more is prepared: %+v, %v", answer, err)
	}
	if answer, err := passive.asked(caller, methodPunch, punchCall{Ports: ports[:1], Port: 80}); err != nil || answer.Status != statusOK {
		t.Errorf("a connection is kept out: %+v, %v", answer, err)
	}
}
