// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/browser"
	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// fake is a source that a test changes.
type fake struct {
	mu    sync.Mutex
	facts Facts
	err   error
}

func (f *fake) Look(context.Context) (Facts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.facts, f.err
}

func (f *fake) set(facts Facts, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.facts, f.err = facts, err
}

// member makes one; its name ends in its number.
func member(id uint32, kind, service, state string) cluster.Member {
	m := cluster.Member{
		ID: id, Name: service, Service: service, Slot: fmt.Sprintf("%s-%d", service, id), Kind: kind, State: state,
		OverlayAddress: netip.AddrFrom4([4]byte{100, 80, byte(id >> 8), byte(id)}),
		NAT:            cluster.NATNone, Since: time.Now().Add(-time.Duration(id) * time.Minute), Listeners: []uint16{8080},
		Guest: cluster.Guest{State: cluster.GuestRunning, Restarts: int(id % 3)},
	}
	if kind == "function" {
		m.NAT = cluster.NATBehind
	}
	return m
}

// serve runs a dashboard for the length of the test and returns its address.
func serve(t *testing.T, source Source) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Network: "shop", CIDR: "100.80.0.0/16", Source: source, Interval: 20 * time.Millisecond})
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the dashboard does not end")
		}
	})
	return d.URL(l)
}

// window is a browser with the deadline of a test.
type window struct {
	*browser.Browser
	t   *testing.T
	ctx context.Context
}

func newWindow(t *testing.T) *window {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	b := browser.StartFor(ctx, t)
	return &window{b, t, ctx}
}

func (w *window) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// text of what a selector finds first, "" if nothing.
func (w *window) text(selector string) string {
	w.t.Helper()
	s, err := w.Text(w.ctx, selector)
	w.do(err)
	return s
}

// until waits for a selector's text to satisfy ok.
func (w *window) until(what, selector string, ok func(string) bool) {
	w.t.Helper()
	var seen string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if seen = w.text(selector); ok(seen) {
			return
		}
	}
	w.t.Fatalf("%s: %s still says %q", what, selector, seen)
}

func contains(word string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, word) }
}

func is(word string) func(string) bool { return func(s string) bool { return s == word } }

// crowd is a network of n nodes with a little of everything.
func crowd(n int) Facts {
	facts := Facts{Lines: map[string][]string{}}
	services := []struct{ kind, name string }{{"vm", "front"}, {"function", "logic"}, {"vm", "store"}, {"function", "resize"}, {"client", "psql"}}
	states := []string{"running", "running", "running", "running", "starting", "running", "exited", "running", "failed", "lost"}
	facts.Members = append(facts.Members, member(1, "seed", "seed", "running"))
	for i := 2; i <= n; i++ {
		s := services[i%len(services)]
		m := member(uint32(i), s.kind, s.name, states[i/len(services)%len(states)])
		if m.State == "failed" {
			m.Guest = cluster.Guest{State: "failed", Error: `command "no-such-program" not found in /usr/bin:/bin`}
		}
		facts.Members = append(facts.Members, m)
		facts.Lines[m.Slot] = []string{"started", fmt.Sprintf("10.0.0.%d - - \"GET /some/rather/long/path/%d HTTP/1.1\" 200 512 \"-\" \"curl/8.0\"", i, i)}
		if i > 3 {
			facts.Paths = append(facts.Paths, cluster.Path{From: uint32(i - 1), To: uint32(i), Transport: []string{"native", "direct", "relay"}[i%3], Count: uint64(i)})
		}
	}
	return facts
}

// asleep adds a node that is started on use.
func asleep(facts Facts) Facts {
	facts.Dormant = cluster.Dormant(nil, []cluster.Reserved{{Slot: "mail-0", Name: "mail", Service: "mail", Address: netip.MustParseAddr("100.80.200.1")}})
	return facts
}

// TestBrowser is the page as a browser has it, in one Chromium.
func TestBrowser(t *testing.T) {
	source := &fake{}
	source.set(crowd(6), nil)
	url := serve(t, source)
	w := newWindow(t)
	t.Run("live", func(t *testing.T) { w.t = t; w.live(source, url) })
	t.Run("markup of guests", func(t *testing.T) { w.t = t; w.markup(source, url) })
	t.Run("keeps what is open", func(t *testing.T) { w.t = t; w.keeps(source, url) })
	t.Run("find", func(t *testing.T) { w.t = t; w.find(source, url) })
	t.Run("token", func(t *testing.T) { w.t = t; w.token(url) })
	t.Run("without JavaScript", func(t *testing.T) { w.t = t; w.plain(source, url) })
	t.Run("layout", func(t *testing.T) { w.t = t; w.layout(source, url) })
	t.Run("contrast", func(t *testing.T) { w.t = t; w.contrast(source, url) })
}

func (w *window) live(source *fake, url string) {
	w.do(w.Open(w.ctx, url))
	w.until("the stream opens", "#link", is("live"))
	w.do(w.Run(w.ctx, nil, `window.loaded = 'once'`))
	facts := crowd(6)

	facts.Members = append(facts.Members, member(7, "vm", "late", "starting"))
	source.set(facts, nil)
	w.until("a node appears", "#node-7", contains("starting"))
	w.until("so does its service", "#service-late", contains("0 of 1"))

	facts = crowd(6)
	facts.Members = append(facts.Members, member(7, "vm", "late", "running"))
	facts.Paths = append(facts.Paths, cluster.Path{From: 7, To: 2, Transport: "relay", Count: 3})
	source.set(facts, nil)
	w.until("it changes its state", "#node-7 .state", contains("running"))
	w.until("a pair appears", "#pair-late-7-to-store-2", contains("relay 3"))
	w.until("the picture follows", "#picture svg", contains("late"))
	w.until("the change is told", "#news", contains("late-7 running, was starting"))

	source.set(crowd(6), nil)
	w.until("it vanishes", "#node-7", is(""))
	w.until("its leaving is told", "#news", contains("late-7 left"))

	source.set(crowd(6), fmt.Errorf("network %q: its seed does not answer", "shop"))
	w.until("a seed that is lost is told", "#problem", contains("its seed does not answer"))
	if rows := w.text("#node-2"); rows == "" {
		w.t.Error("the nodes known last are gone with the seed")
	}
	source.set(crowd(6), nil)
	w.until("a seed that is back", "#problem", is(""))
	var loaded string
	if w.do(w.Run(w.ctx, &loaded, `return window.loaded || ''`)); loaded != "once" {
		w.t.Error("the page was loaded again instead of being kept live")
	}
}

func (w *window) markup(source *fake, url string) {
	const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>&amp;`
	facts := crowd(6)
	facts.Lines["front-5"] = []string{"</samp></pre><h1>big</h1>", evil}
	facts.Members[3].Guest.Error = evil
	for _, how := range []string{"streamed", "loaded"} {
		if how == "streamed" {
			w.do(w.Open(w.ctx, url))
			w.until("the stream opens", "#link", is("live"))
			source.set(facts, nil)
		} else {
			w.do(w.Open(w.ctx, url))
		}
		w.until(how+": shown as it was written", "#node-5 summary samp", is(evil))
		w.until(how+": an error too", "#node-4 .error", is(evil))
		var n int
		w.do(w.Run(w.ctx, &n, `return document.querySelectorAll('main img, main script, main h1').length`))
		if title := w.text("title"); n != 0 || strings.Contains(title, "owned") {
			w.t.Errorf("%s: %d elements of a guest, title %q", how, n, title)
		}
	}
	source.set(crowd(6), nil)
}

func (w *window) keeps(source *fake, url string) {
	w.do(w.Open(w.ctx, url))
	w.until("the stream opens", "#link", is("live"))
	w.do(w.Run(w.ctx, nil, `document.querySelector('#node-3 details').open = true; document.getElementById('q').focus()`))
	facts := crowd(6)
	facts.Lines["store-3"], facts.Lines["resize-3"], facts.Lines["logic-3"] = nil, []string{"a new line"}, nil
	facts.Members = facts.Members[2:] // rows above go
	source.set(facts, nil)
	w.until("the line comes", "#node-3 summary", contains("a new line"))
	var kept bool
	w.do(w.Run(w.ctx, &kept, `return document.querySelector('#node-3 details').open && document.activeElement.id === 'q'`))
	if !kept {
		w.t.Error("an update closed what the reader had opened, or took the focus away")
	}
	source.set(crowd(6), nil)
}

func (w *window) find(source *fake, url string) {
	source.set(crowd(200), nil)
	w.do(w.Open(w.ctx, url))
	w.until("all are shown", "#nodes caption", is("200 nodes"))
	w.do(w.Run(w.ctx, nil, `const q = document.getElementById('q'); q.value = 'FRONT failed'; q.dispatchEvent(new Event('input', {bubbles: true}))`))
	w.until("typing finds", "#nodes caption", is("4 of 200 nodes"))
	w.do(w.Run(w.ctx, nil, `document.querySelector('.states a.lost').click()`))
	w.until("a state finds", "#nodes caption", is("20 of 200 nodes"))
	w.do(w.Run(w.ctx, nil, `document.querySelector('.states a').click()`))
	w.until("and all again", "#nodes caption", is("200 nodes"))
	w.until("pairs are bounded", "#pairs", contains("200"))
	source.set(crowd(6), nil)
}

func (w *window) token(url string) {
	base := url[:strings.Index(url, "//")+2] + strings.Split(url, "/")[2]
	for _, address := range []string{base + "/", base + "/AAAAAAAAAAAAAAAAAAAAAAAAAA/"} {
		w.do(w.Open(w.ctx, address))
		if seen := w.text("body"); !strings.Contains(seen, "The token is missing or wrong") || strings.Contains(seen, "store") {
			w.t.Errorf("%s: %s", address, seen)
		}
	}
}

// plain: without JavaScript all is there, and comes anew by itself.
func (w *window) plain(source *fake, url string) {
	w.do(w.Scripts(w.ctx, false))
	defer func() { w.do(w.Scripts(w.ctx, true)) }()
	w.do(w.Open(w.ctx, url))
	for selector, want := range map[string]string{
		"#node-4": "running", "#service-store": "store", "#pairs": "direct", "#link": "refreshes itself",
	} {
		if seen := w.text(selector); !strings.Contains(seen, want) {
			w.t.Errorf("%s says %q, want %q in it", selector, seen, want)
		}
	}
	facts := crowd(6)
	facts.Members = append(facts.Members, member(9, "vm", "late", "running"))
	source.set(facts, nil)
	w.until("the page refreshes itself", "#node-9", contains("late-9"))
	w.do(w.Open(w.ctx, url+"?q=late"))
	if seen := w.text("#nodes caption"); seen != "1 of 7 nodes" {
		w.t.Errorf("a search without JavaScript: %q", seen)
	}
	source.set(crowd(6), nil)
}

// layout: from a telephone to a wide screen nothing sticks out, with 200 nodes.
func (w *window) layout(source *fake, url string) {
	source.set(asleep(crowd(200)), nil)
	for _, width := range []int{360, 768, 1024, 1600} {
		w.do(w.Resize(w.ctx, width, 900, 1))
		w.do(w.Open(w.ctx, url))
		var out []string
		w.do(w.Run(w.ctx, &out, `
			const inside = e => e.closest('.scroll, .hidden, .skip, thead, details:not([open]) > pre, summary samp, caption') !== null;
			const wide = [...document.querySelectorAll('body *')].filter(e => !inside(e) && e.getBoundingClientRect().right > innerWidth + 1);
			if (document.documentElement.scrollWidth > innerWidth) wide.push(document.documentElement);
			return wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120))`))
		if len(out) > 0 {
			w.t.Errorf("%d pixels wide: these stick out: %q", width, out)
		}
		w.keep(fmt.Sprintf("crowd-%d", width))
	}
	source.set(crowd(6), nil)
}

// contrast: every text against what is behind it, in both schemes (WCAG 2, AA).
func (w *window) contrast(source *fake, url string) {
	source.set(asleep(crowd(60)), nil)
	w.do(w.Resize(w.ctx, 1280, 900, 1))
	defer func() { w.do(w.Dark(w.ctx, false)) }()
	for _, dark := range []bool{false, true} {
		w.do(w.Dark(w.ctx, dark))
		w.do(w.Open(w.ctx, url))
		var bad []string
		w.do(w.Run(w.ctx, &bad, `
			const rgb = s => s.match(/[\d.]+/g).map(Number);
			const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, k, i) => {
				const v = c[i] / 255; return sum + k * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4) }, 0);
			const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c } return [255, 255, 255] };
			const bad = new Set();
			const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
			let n = 0;
			while (walk.nextNode()) {
				const e = walk.currentNode.parentElement;
				if (!walk.currentNode.data.trim() || e.closest('noscript, script')) continue;
				const svg = e.namespaceURI.endsWith('svg'), style = getComputedStyle(e);
				const box = e.parentElement.querySelector('rect');
				const back = svg && box ? rgb(getComputedStyle(box).fill) : behind(e);
				const [a, b] = [light(rgb(svg ? style.fill : style.color)), light(back)].sort((x, y) => y - x);
				n++;
				if ((a + 0.05) / (b + 0.05) < 4.5) bad.add(e.outerHTML.slice(0, 80) + ' ' + ((a + 0.05) / (b + 0.05)).toFixed(2));
			}
			return n < 100 ? ['only ' + n + ' texts were looked at'] : [...bad].slice(0, 8)`))
		if len(bad) > 0 {
			w.t.Errorf("dark %v: too little contrast: %q", dark, bad)
		}
		w.keep(fmt.Sprintf("colours-%v", dark))
	}
	source.set(crowd(6), nil)
}

// keep writes what the window shows to BOXER_SCREENSHOTS, if that is set, to be looked at.
func (w *window) keep(name string) {
	dir := os.Getenv("BOXER_SCREENSHOTS")
	if dir == "" {
		return
	}
	data, err := w.Screenshot(w.ctx)
	w.do(err)
	w.do(os.WriteFile(dir+"/"+name+".png", data, 0o644))
}
