// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// When whoever waits is told about it: soon and often on a terminal, in a line
// that is drawn anew; elsewhere now and then, in lines of their own.
const (
	progressTick   = 250 * time.Millisecond
	firstOnScreen  = time.Second
	firstPlainLine = 2 * time.Second
	nextPlainLine  = 5 * time.Second
)

// progress says on stderr what is waited for, and how long already.
type progress struct {
	w     io.Writer
	began time.Time

	mu    sync.Mutex
	what  string
	drawn bool      // there is a line to clear
	next  time.Time // plain line
	ended bool
	over  chan struct{}
}

// waiting begins to say so, until done.
func waiting(what string) *progress {
	p := &progress{w: os.Stderr, began: time.Now(), what: what, over: make(chan struct{})}
	go p.run()
	return p
}

func (p *progress) run() {
	tick := time.NewTicker(progressTick)
	defer tick.Stop()
	for {
		select {
		case <-p.over:
			return
		case now := <-tick.C:
			p.say(now, widthOf(p.w))
		}
	}
}

// now changes what is waited for.
func (p *progress) now(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = what
}

// say tells at a moment, on a terminal of that width (0: none).
func (p *progress) say(now time.Time, width int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waited := now.Sub(p.began)
	text := fmt.Sprintf("boxer: waiting %ds for %s", int(waited.Seconds()), p.what)
	switch {
	case p.ended:
	case width > 0 && waited >= firstOnScreen:
		fmt.Fprintf(p.w, "\r\x1b[K%s", clip(text, width-1))
		p.drawn = true
	case width == 0 && waited >= firstPlainLine && !now.Before(p.next):
		fmt.Fprintln(p.w, text)
		p.next = now.Add(nextPlainLine)
	}
}

// done ends it, any number of times.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	close(p.over)
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
