// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	bin        = 100 * time.Millisecond
	nodePath   = "/measured"
	retryPause = 100 * time.Millisecond
	giveUp     = 15 * time.Second // a request that takes longer has failed
	syncEvery  = 40               // reads of a client, after which it asks its server to catch up
)

// load is what the clients do, and saw.
type load struct {
	address []string      // of the servers, in their order
	rate    time.Duration // between two reads of a client
	renew   time.Duration // age of a connection after which its client makes another

	began   time.Time
	acked   atomic.Int64 // the version that was written last, and acknowledged
	issued  atomic.Int64 // or only begun
	writes  atomic.Int64
	clients sync.WaitGroup

	mu       sync.Mutex
	done     []map[int]int // reads by server and bin
	first    []time.Time   // the last time that a server began to answer again
	cut      []time.Time   // when a connection ended under a request: that was sent again
	failed   []string      // requests that came to nothing
	wrong    []string      // reads
	slowest  time.Duration
	sessions int // that expired
}

func newLoad(address []string, rate, renew time.Duration) *load {
	l := &load{address: address, rate: rate, renew: renew, began: time.Now(), first: make([]time.Time, len(address))}
	for range address {
		l.done = append(l.done, map[int]int{})
	}
	return l
}

// client has one session, at one server.
type client struct {
	l       *load
	server  int
	session session
	conn    *connection
	born    time.Time
	version int64 // the latest it has seen
}

// connected is a connection, a fresh one if need be.
func (c *client) connected(ctx context.Context) error {
	if c.conn != nil && c.l.renew > 0 && time.Since(c.born) > c.l.renew {
		c.drop() // between two requests, as pools of connections do
	}
	if c.conn != nil {
		return nil
	}
	had := c.session.id
	conn, err := connect(ctx, c.l.address[c.server], &c.session)
	if had != 0 && c.session.id == 0 {
		c.l.mu.Lock()
		c.l.sessions++
		c.l.mu.Unlock()
	}
	if err != nil {
		return err
	}
	age := time.Duration(0)
	if c.l.renew > 0 {
		age = rand.N(c.l.renew / 2) // not all at once
	}
	c.conn, c.born = conn, time.Now().Add(-age)
	return nil
}

func (c *client) drop() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// do carries one request out, at another connection if that has to be.
func (c *client) do(ctx context.Context, what string, request func(*connection) error) error {
	began := time.Now()
	for {
		err := c.connected(ctx)
		if err == nil {
			if err = request(c.conn); err == nil || errors.As(err, new(zkError)) {
				c.l.took(time.Since(began))
				return err
			}
			c.drop()
			if ctx.Err() == nil {
				c.l.mu.Lock()
				c.l.cut = append(c.l.cut, time.Now())
				c.l.mu.Unlock()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > giveUp {
			c.l.mu.Lock()
			c.l.failed = append(c.l.failed, fmt.Sprintf("%s at zk-%d: %v", what, c.server+1, err))
			c.l.mu.Unlock()
			return err
		}
		time.Sleep(retryPause)
	}
}

func (l *load) took(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, d)
}

// read reads the node and judges what it says, after the server caught up or not.
func (c *client) read(ctx context.Context, sync bool) {
	least := c.version
	var data string
	var version int32
	err := c.do(ctx, "read", func(conn *connection) (err error) {
		if sync {
			before := c.l.acked.Load()
			if err := conn.sync(nodePath); err != nil {
				return err
			}
			least = max(least, before)
		}
		data, version, err = conn.get(nodePath)
		return err
	})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		c.l.wrongly("zk-%d: %v", c.server+1, err)
		return
	}
	now := int64(version)
	switch issued := c.l.issued.Load(); {
	case data != strconv.FormatInt(now, 10):
		c.l.wrongly("zk-%d: version %d is %q", c.server+1, now, data)
	case now < least:
		c.l.wrongly("zk-%d: version %d after %d (asked to catch up: %v)", c.server+1, now, least, sync)
	case now > issued:
		c.l.wrongly("zk-%d: version %d, and only %d were written", c.server+1, now, issued)
	}
	c.version = max(c.version, now)
	c.l.count(c.server)
}

func (l *load) wrongly(format string, values ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, values...))
}

// count notes a read that was answered now.
func (l *load) count(server int) {
	now := time.Now()
	at := int(now.Sub(l.began) / bin)
	l.mu.Lock()
	defer l.mu.Unlock()
	done := l.done[server]
	if done[at] == 0 && done[at-1] == 0 && done[at-2] == 0 {
		l.first[server] = now
	}
	done[at]++
}

// reader reads at its rate until ctx ends. What it could not do in time it leaves.
func (l *load) reader(ctx context.Context, server int) {
	c := &client{l: l, server: server}
	defer c.drop()
	time.Sleep(rand.N(l.rate))
	tick := time.NewTicker(l.rate)
	defer tick.Stop()
	for i := 1; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.read(ctx, i%syncEvery == 0)
		}
	}
}

// writer sets the node to its own version, one after the other, and reads it.
func (l *load) writer(ctx context.Context, server int, pause time.Duration) {
	c := &client{l: l, server: server}
	defer c.drop()
	for tick := time.NewTicker(pause); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		next := l.acked.Load() + 1
		l.issued.Store(next)
		err := c.do(ctx, "write", func(conn *connection) error {
			return conn.set(nodePath, strconv.FormatInt(next, 10), int32(next-1))
		})
		// A write that was cut off, and had been done: it is not done twice.
		var code zkError
		if err != nil && !errors.As(err, &code) {
			continue
		}
		if code != 0 {
			var version int32
			err := c.do(ctx, "read", func(conn *connection) (err error) {
				_, version, err = conn.get(nodePath)
				return err
			})
			if ctx.Err() == nil && (err != nil || int64(version) != next) {
				l.wrongly("a write gets %v, and the version is %d, not %d: %v", code, version, next, err)
			}
		}
		l.acked.Store(next)
		l.writes.Add(1)
		c.version = next // it reads its own writes
		c.read(ctx, false)
	}
}

// start begins so many readers at each server, and one writer at the first.
func (l *load) start(ctx context.Context, readers int, write time.Duration) error {
	c := &client{l: l}
	defer c.drop()
	err := c.do(ctx, "create", func(conn *connection) error { return conn.create(nodePath, "0") })
	if err != nil && !errors.Is(err, zkError(codeNodeExists)) {
		return err
	}
	for server := range l.address {
		for range readers {
			l.clients.Go(func() { l.reader(ctx, server) })
		}
	}
	l.clients.Go(func() { l.writer(ctx, 0, write) })
	return nil
}

// throughput is the number of reads in each bin from one time to another.
func (l *load) throughput(from, to time.Time) (bins []float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for at := int(from.Sub(l.began) / bin); at < int(to.Sub(l.began)/bin); at++ {
		sum := 0
		for _, done := range l.done {
			sum += done[at]
		}
		bins = append(bins, float64(sum))
	}
	return bins
}
