// SPDX-License-Identifier: Apache-2.0

// Package dashboard serves one page about one network, on loopback and to who
// has its token: nodes, services, the transport of every pair, guests' last
// lines. The server renders all of it; without JavaScript the page refreshes
// itself, with it the same HTML comes again as server-sent events.
package dashboard

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/bound"
	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// Bounds: nobody who reaches the port can make the process wait or grow.
const (
	maxConnections = 64
	maxStreams     = 16
	writeTime      = 10 * time.Second
	idleTime       = 30 * time.Second
	pingTime       = 15 * time.Second
	lookTime       = 5 * time.Second
)

// DefaultInterval is how often the source is asked.
const DefaultInterval = 500 * time.Millisecond

// Facts are what is true of a network at one moment.
type Facts struct {
	Members []cluster.Member
	Dormant []cluster.Member // have a name and no process: cluster.Dormant
	Paths   []cluster.Path
	Lines   map[string][]string // by slot: what its guest wrote last, in any bytes
	Events  []cluster.Event     // since the last look: of members that came and went too
	Deeds   []Deed              // of the controller, since the last look
}

// Deed is something the controller did, and why.
type Deed struct{ Slot, What string }

// Source tells the facts of now, or why it cannot.
type Source interface {
	Look(ctx context.Context) (Facts, error)
}

// Options of a dashboard.
type Options struct {
	Network  string
	CIDR     string
	Source   Source
	Interval time.Duration // default DefaultInterval
}

// Dashboard is one page.
type Dashboard struct {
	o       Options
	token   string
	streams chan struct{} // a place per stream

	mu     sync.Mutex
	now    snapshot
	change chan struct{} // closed, and replaced, with every look
}

// snapshot is the outcome of the last look.
type snapshot struct {
	facts   Facts
	at      time.Time // of the facts
	err     error     // why they are not of now
	history history
}

// New makes a dashboard with a fresh token.
func New(o Options) *Dashboard {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	return &Dashboard{
		o: o, token: rand.Text(), // 130 bits
		streams: make(chan struct{}, maxStreams), change: make(chan struct{}),
	}
}

// Listen opens a port for a dashboard: on loopback only.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := bound.Loopback(ctx, address,
		"it shows what guests write, so it is served on loopback only: use 127.0.0.1 or [::1]", "--address")
	if err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	return l, nil
}

// URL is where the page is, token included.
func (d *Dashboard) URL(l net.Listener) string {
	return fmt.Sprintf("http://%s/%s/", l.Addr(), d.token)
}

// Serve answers on l until ctx ends, and then returns nil.
func (d *Dashboard) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.look(ctx)
	looking := make(chan struct{})
	go func() {
		defer close(looking)
		d.keepLooking(ctx)
	}()
	server := &http.Server{
		Handler:           d.handler(l.Addr()),
		BaseContext:       func(net.Listener) context.Context { return ctx }, // streams end with it
		ReadHeaderTimeout: writeTime,
		ReadTimeout:       writeTime,
		WriteTimeout:      writeTime, // a stream sets its own, event by event
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	err := bound.HTTP(ctx, l, maxConnections, server)
	cancel()
	<-looking
	if err != nil {
		return fmt.Errorf("dashboard: %w", err)
	}
	return nil
}

// keepLooking asks the source again and again. It does so without anybody
// watching too: the news are of all the time that the dashboard runs.
func (d *Dashboard) keepLooking(ctx context.Context) {
	tick := time.NewTicker(d.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.look(ctx)
		}
	}
}

// look takes in the facts of now. Without any, the last ones stay, with the reason.
func (d *Dashboard) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	facts, err := d.o.Source.Look(ctx)
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now.err = err; err == nil {
		d.now.history = d.now.history.next(facts, now)
		d.now.facts, d.now.at = facts, now
	}
	close(d.change)
	d.change = make(chan struct{})
}

// current is the last look, and what is closed when there is a newer one.
func (d *Dashboard) current() (snapshot, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now, d.change
}
