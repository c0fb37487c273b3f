// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

const (
	failuresPerSecond = 1
	failuresBurst     = 10
	maxSources        = 4096
)

// failureLimit counts failed handshakes per source, so that guessing at the
// secret costs a guesser more than it costs the seed.
type failureLimit struct {
	mu      sync.Mutex
	sources map[netip.Addr]*rate.Limiter
}

func newFailureLimit() *failureLimit {
	return &failureLimit{sources: map[netip.Addr]*rate.Limiter{}}
}

// blocked reports whether source has failed too often lately.
func (f *failureLimit) blocked(source netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.sources[source]
	return l != nil && l.Tokens() < 1
}

func (f *failureLimit) record(source netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.sources[source]
	if l == nil {
		if len(f.sources) >= maxSources {
			f.forget()
		}
		l = rate.NewLimiter(failuresPerSecond, failuresBurst)
		f.sources[source] = l
	}
	l.Allow()
}

// forget drops the sources that have behaved, or all if none has.
func (f *failureLimit) forget() {
	for source, l := range f.sources {
		if l.Tokens() >= failuresBurst {
			delete(f.sources, source)
		}
	}
	if len(f.sources) >= maxSources {
		clear(f.sources)
	}
}
