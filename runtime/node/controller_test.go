// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// TestControllerOfASeed: what is declared to a seed it launches through the
// Invoke API, and ends in order.
func TestControllerOfASeed(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	started, throttled := 0, 0
	ln, err := net.Listen("unix", w.path("invoke.sock"))
	if err != nil {
		t.Fatal(err)
	}
	platform := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		event, _ := io.ReadAll(r.Body)
		n, err := config.Parse(event)
		if err != nil || r.URL.Path != "/2015-03-31/functions/arn:logic/invocations" || r.Header.Get("X-Amz-Invocation-Type") != "Event" {
			t.Errorf("%s %s %v: %s %v", r.Method, r.URL.Path, r.Header, event, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if throttled == 0 {
			throttled++
			rw.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(rw, `{"message":"Rate Exceeded."}`)
			return
		}
		started++
		n.Argv, n.SecretRef = []string{"sleep", "60"}, ""
		w.start(n)
		rw.WriteHeader(http.StatusAccepted)
	})}
	go func() { _ = platform.Serve(ln) }()
	t.Cleanup(func() { platform.Close() })

	seed := w.member("seed-0", func(m cluster.Member) bool { return m.State == cluster.StateRunning })
	ask := func(method string, in, out any) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := w.watch.Call(ctx, seed.ID, method, in, out); err != nil {
			t.Fatal(err)
		}
	}
	d := controller.Declaration{Name: "logic", Function: "arn:logic", Count: 2, MemoryMB: 128, Node: config.Node{
		Version: config.Version, Kind: config.KindFunction, Network: "shop", Argv: []string{"serve"}, SecretRef: "file:/x", SeedEndpoints: []string{w.seedAddress()},
	}}
	ask(controller.MethodDeclare, d, nil)
	for _, slot := range []string{"logic-0", "logic-1"} {
		w.member(slot, func(m cluster.Member) bool {
			return m.Kind == config.KindFunction && m.Guest.State == cluster.GuestRunning
		})
	}
	text := scrape(t, "unix", w.path("seed.sock"))
	for _, want := range []string{
		`boxer_replicas_declared{name="logic"} 2`, `boxer_controller_events_total{type="throttled"} 1`, `boxer_controller_events_total{type="launched"} 3`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	ranged := d
	ranged.Name, ranged.Count, ranged.Max = "cart", -1, 3 // started on use
	ask(controller.MethodDeclare, ranged, nil)
	joining, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o := cluster.Options{Network: "shop", Secret: []byte(testSecret), Seeds: []string{w.seedAddress()}, Hello: cluster.Hello{Slot: "cart-2", Kind: config.KindVM}}
	if _, err := cluster.Join(joining, o); !errors.Is(err, cluster.ErrNameTaken) || !strings.Contains(err.Error(), `replica of function node "cart"`) {
		t.Errorf("a VM with the name of a replica: %v", err)
	}
	d.Count = 1
	ask(controller.MethodDeclare, d, nil)
	w.eventually("logic-1 has left", func() bool {
		for _, m := range w.watch.Members() {
			if m.Slot == "logic-1" {
				return false
			}
		}
		return true
	})
	var events []controller.Event
	ask(controller.MethodEvents, controller.Since{}, &events)
	mu.Lock()
	defer mu.Unlock()
	if text, _ := json.Marshal(events); started != 2 || !strings.Contains(string(text), "Rate Exceeded") {
		t.Errorf("%d started; %s", started, text)
	}
}

// TestOnlySeedsSendAway: a node leaves when a seed asks, not when another does.
func TestOnlySeedsSendAway(t *testing.T) {
	w := newWorld(t)
	w.start(config.Node{Kind: config.KindVM, Slot: "store", Argv: []string{"sleep", "60"}})
	m := w.member("store", func(m cluster.Member) bool { return m.Guest.State == cluster.GuestRunning })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.watch.Call(ctx, m.ID, controller.DrainMethod, struct{}{}, nil); err == nil || !strings.Contains(err.Error(), "no seed") {
		t.Errorf("sent away by an observer: %v", err)
	}
}
