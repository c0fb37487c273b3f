// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// ask sends one request and returns its answer.
func ask(t *testing.T, method, url, host string) (status int, header http.Header, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

func TestGuard(t *testing.T) {
	source := &fake{}
	source.set(crowd(6), nil)
	url := serve(t, source)
	base, token := url[:strings.LastIndex(url[:len(url)-1], "/")+1], url[strings.LastIndex(url[:len(url)-1], "/")+1:len(url)-1]
	port := base[strings.LastIndex(base, ":")+1 : len(base)-1]
	cases := map[string]struct {
		method, url, host string
		status            int
	}{
		"page":              {"GET", url, "", 200},
		"head":              {"HEAD", url, "", 200},
		"style":             {"GET", url + "style.css", "", 200},
		"script":            {"GET", url + "live.js", "", 200},
		"unknown":           {"GET", url + "no-such", "", 404},
		"files above":       {"GET", url + "%2e%2e/page.html", "", 403}, // led to a path without token
		"templates":         {"GET", url + "page.html", "", 404},
		"no token":          {"GET", base, "", 403},
		"no token, file":    {"GET", base + "style.css", "", 403},
		"no token, stream":  {"GET", base + "live", "", 403},
		"wrong token":       {"GET", base + strings.Repeat("A", len(token)) + "/", "", 403},
		"token cut":         {"GET", base + token[:len(token)-1] + "/", "", 403},
		"token without end": {"GET", base + token, "", 403},
		"token in a query":  {"GET", base + "?token=" + token, "", 403},
		"name of loopback":  {"GET", url, "localhost:" + port, 200},
		"rebound name":      {"GET", url, "evil.example:" + port, 421},
		"other port":        {"GET", url, "127.0.0.1:1", 421},
		"no port":           {"GET", url, "127.0.0.1", 421},
		"post":              {"POST", url, "", 405},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			status, header, body := ask(t, c.method, c.url, c.host)
			if status != c.status {
				t.Errorf("%s %s (Host %q): %d, want %d", c.method, c.url, c.host, status, c.status)
			}
			if c.status != 200 && strings.Contains(body, "store") {
				t.Errorf("facts without the right to them: %s", body)
			}
			csp := header.Get("Content-Security-Policy")
			if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") ||
				header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("headers: %v", header)
			}
		})
	}
}

func TestLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80", "example.com:80", "127.0.0.1"} {
		if l, err := Listen(context.Background(), address); err == nil {
			l.Close()
			t.Errorf("it listens on %q", address)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "127.9.9.9:0"} {
		l, err := Listen(context.Background(), address)
		if err != nil {
			t.Error(err)
			continue
		}
		l.Close()
	}
}

// A page that is open often, and whoever never sends a request, are bounded.
func TestBounds(t *testing.T) {
	source := &fake{}
	source.set(crowd(6), nil)
	url := serve(t, source)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	open := func() *http.Response {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"live", nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var first io.Closer
	for range maxStreams {
		resp := open()
		defer resp.Body.Close()
		if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
			t.Fatalf("stream: %q, %v", line, err)
		}
		if first == nil {
			first = resp.Body
		}
	}
	refused := open()
	refused.Body.Close()
	if refused.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one stream too many: %s", refused.Status)
	}
	first.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp := open()
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the place of a stream that ended is not given back")
		}
	}
}

// Ending takes the open pages with it.
func TestEnd(t *testing.T) {
	source := &fake{}
	source.set(crowd(6), nil)
	ctx, cancel := context.WithCancel(context.Background())
	l, err := Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Network: "shop", Source: source})
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, l) }()
	resp, err := http.Get(d.URL(l) + "live")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	began := time.Now()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the dashboard does not end")
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil && time.Since(began) > 5*time.Second {
		t.Error("the open stream kept it")
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}

func TestClean(t *testing.T) {
	cases := map[string]string{
		"plain":                                 "plain",
		"a\tb":                                  "a b",
		"\x1b[1;31mred\x1b[0m and \x1bMmore":    "red and more",
		"cut \x1b[":                             "cut ",
		"cut \x1b":                              "cut ",
		"data: x\r\n\r\nevent: evil\x00":        "data: xevent: evil",
		"bad \xff\xfe bytes":                    "bad \uFFFD bytes",
		"turned \u202Egnp.exe\u2066 and \u2028": "turned gnp.exe and ",
		strings.Repeat("é", 400):                strings.Repeat("é", maxLine) + "…",
	}
	for in, want := range cases {
		if got := clean(in, maxLine); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestNews(t *testing.T) {
	at := time.Now()
	a, b, c, d := member(1, "vm", "a", "running"), member(2, "vm", "b", "starting"), member(3, "vm", "c", "running"), member(4, "vm", "d", "starting")
	visitor := member(5, "client", "visitor", "running")
	h := history{}.next(Facts{Members: []cluster.Member{a, b, c}}, at)
	if len(h.news) != 0 {
		t.Errorf("what was there before is no news: %+v", h.news)
	}
	before := h
	b.State = "running"
	c.Guest.Restarts++
	h = h.next(Facts{Members: []cluster.Member{b, c, d}, Events: []cluster.Event{
		{Type: cluster.EventJoin, Member: visitor}, {Type: cluster.EventLeave, Member: visitor}, // between two looks
		{Type: cluster.EventLeave, Member: a}, {Type: cluster.EventUpdate, Member: b},
	}}, at)
	h = h.next(Facts{Members: []cluster.Member{b, c, d}, Events: []cluster.Event{
		{Type: cluster.EventJoin, Member: visitor}, {Type: cluster.EventJoin, Member: c}, // another session begins
	}}, at)
	h = h.next(Facts{Members: []cluster.Member{b, c, d}, Deeds: []Deed{{"e-5", "launched,\x1b[2J to follow node-4"}}}, at)
	var words []string
	for _, n := range h.news {
		words = append(words, fmt.Sprintf("%d %s %s", n.ID, n.Slot, n.What))
	}
	want := []string{"7 e-5 controller: launched, to follow node-4", "6 d-4 joined, starting", "5 c-3 guest restarted (1)", "4 b-2 running, was starting", "3 a-1 left", "2 visitor-5 left", "1 visitor-5 joined, running"}
	if diff := cmp.Diff(want, words); diff != "" {
		t.Error(diff)
	}
	if h.left[5] != "visitor-5" || len(before.members) != 3 || before.left[5] != "" {
		t.Errorf("left: %v; before: %v, %v", h.left, before.members, before.left)
	}
	for i := range uint32(maxNews) {
		h = h.next(Facts{Members: []cluster.Member{member(10+i, "vm", "e", "running")}}, at)
	}
	if len(h.news) != maxNews || h.news[0].What != "left" {
		t.Errorf("%d news, the latest %+v", len(h.news), h.news[0])
	}
	if len(h.news) > 1 && h.news[0].ID != h.news[1].ID+1 {
		t.Errorf("numbers: %+v", h.news[:2])
	}
}

// While a slot changes hands it has two members, and is one.
func TestSuccession(t *testing.T) {
	old, next := member(1, "function", "web", "running"), member(2, "function", "web", "running")
	next.Slot, next.Succeeds = old.Slot, 1
	h := history{}.next(Facts{Members: []cluster.Member{old, next}}, time.Now())
	if s := services([]cluster.Member{old, next}); len(s) != 1 || s[0].Running != 1 || s[0].Total != 1 || len(s[0].Holders) != 2 {
		t.Errorf("services %+v", s)
	}
	if row := newNodeRow(next, nil, time.Now()); row.Guest != "successor of node-1" {
		t.Errorf("row %+v", row)
	}
	old.Retired, next.Succeeds = true, 0
	h = h.next(Facts{Members: []cluster.Member{old, next}}, time.Now())
	if len(h.news) != 2 || h.news[0].What != "node-2 has the name now, after node-1" || h.news[1].What != "node-1 drains" {
		t.Errorf("news %+v", h.news)
	}
}

// Callers are on the left of what they call, circles included, and no two boxes
// share a place.
// TestDormant: what has no process is shown, and not counted as one.
func TestDormant(t *testing.T) {
	facts := Facts{Members: []cluster.Member{member(2, "vm", "front", "running")}}
	facts.Dormant = cluster.Dormant(nil, []cluster.Reserved{
		{Slot: "cart-0", Name: "cart", Service: "cart", Address: netip.MustParseAddr("100.80.0.7")},
		{Slot: "logic-0", Name: "logic", Service: "front", Address: netip.MustParseAddr("100.80.0.9")},
	})
	v := New(Options{}).view(snapshot{facts: facts}, "")
	if len(v.Nodes) != 3 || v.Total != 3 || v.Nodes[1].Key != "dormant-cart-0" || v.Nodes[2].Slot != "logic-0" || v.Nodes[2].Address != "100.80.0.9" || v.Nodes[2].Behind != "" {
		t.Errorf("nodes %+v", v.Nodes)
	}
	if diff := cmp.Diff([]count{{"running", "●", 1}, {"dormant", "◌", 2}}, v.States); diff != "" {
		t.Error(diff)
	}
	if s := v.Services; len(s) != 2 || s[0].Total != 0 || s[1].Running != 1 || s[1].Total != 1 || len(s[1].Holders) != 2 {
		t.Errorf("services %+v", s)
	}
	var boxes []string
	for _, b := range v.Picture.Boxes {
		boxes = append(boxes, b.Name+": "+b.Detail)
	}
	if diff := cmp.Diff([]string{"cart: function · dormant", "front: mixed · 1 of 1 running"}, boxes); diff != "" {
		t.Error(diff)
	}
	if one := New(Options{}).view(snapshot{facts: facts}, "dormant cart"); len(one.Nodes) != 1 {
		t.Errorf("found %+v", one.Nodes)
	}
	source := &fake{}
	source.set(facts, nil)
	if _, _, body := ask(t, "GET", serve(t, source), ""); !strings.Contains(body, `id="dormant-cart-0" class="dormant"`) || strings.Contains(body, `id="node-0"`) {
		t.Errorf("the page is %s", body)
	}
}

func TestPicture(t *testing.T) {
	services := []string{"front", "logic", "store", "zoo", "alone"}
	members := []cluster.Member{member(1, "seed", "seed", "running")}
	for i, s := range services {
		members = append(members, member(uint32(i+2), "vm", s, "running"))
	}
	p := draw(members, []cluster.Path{
		{From: 2, To: 3, Transport: "relay", Count: 3}, {From: 2, To: 3, Transport: "direct", Count: 1}, {From: 3, To: 4, Transport: "direct", Count: 5},
		{From: 2, To: 4, Transport: "native", Count: 1}, {From: 4, To: 2, Transport: "native", Count: 1}, // skips, and closes a circle
		{From: 5, To: 5, Transport: "native", Count: 2}, {From: 99, To: 4, Transport: "relay", Count: 1}, // itself; and one that left
	})
	boxes := map[string]*box{}
	places := map[[2]int]string{}
	for _, b := range p.Boxes {
		boxes[b.Name] = b
		if other, taken := places[[2]int{b.X, b.Y}]; taken {
			t.Errorf("%s and %s share a place", b.Name, other)
		}
		places[[2]int{b.X, b.Y}] = b.Name
		if b.X < 0 || b.Y < 0 || b.X+boxWidth > p.Width || b.Y+boxHeight > p.Height {
			t.Errorf("%s sticks out: %+v", b.Name, b)
		}
	}
	if len(boxes) != len(services) {
		t.Errorf("boxes: %v", boxes)
	}
	if f, l, s := boxes["front"].X, boxes["logic"].X, boxes["store"].X; f >= l || l >= s {
		t.Errorf("from left to right: front %d, logic %d, store %d", f, l, s)
	}
	want := "Connections. front to logic: direct 1, relay 3; front to store: native ~1; logic to store: direct 5; store to front: native ~1; zoo to zoo: native ~2."
	if p.Words != want {
		t.Errorf("words: %s", p.Words)
	}
	if draw(nil, nil) != nil || draw(crowdOfServices(maxBoxes+1), nil) != nil {
		t.Error("a picture of nothing, or of too much")
	}
}

func crowdOfServices(n int) []cluster.Member {
	var all []cluster.Member
	for i := range n {
		all = append(all, member(uint32(i+1), "vm", fmt.Sprintf("s%d", i), "running"))
	}
	return all
}
