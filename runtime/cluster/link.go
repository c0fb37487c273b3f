// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxOutbox bounds what a slow reader may leave unread. Beyond it the link is
// cut: after reconnecting it gets the member set afresh, which is smaller.
const maxOutbox = 8 << 20

// maxCalls bounds the calls of one connection that are served at once.
const maxCalls = 1024

const methodPing = "ping"

// link carries requests, responses and notifications both ways over one
// connection, and notices when the other side has fallen silent.
type link struct {
	conn      net.Conn
	heartbeat time.Duration
	silence   time.Duration
	serve     func(l *link, m message) // called in order; must not block
	bound     *binding                 // at a seed: what the peer's join token allows; nil: it has none
	holders   bool                     // at a seed: the peer is to know of holders only

	mu      sync.Mutex
	pending map[uint64]chan message
	outbox  [][]byte
	queued  int
	writing bool
	closed  bool
	err     error

	wake   chan struct{}
	done   chan struct{}
	nextID atomic.Uint64
	frames atomic.Uint64 // received
	calls  atomic.Int64  // being served
}

func newLink(conn net.Conn, heartbeat, silence time.Duration, serve func(*link, message)) *link {
	return &link{
		conn: conn, heartbeat: heartbeat, silence: silence, serve: serve,
		pending: map[uint64]chan message{},
		wake:    make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// run reads until the connection ends, and says why it ended.
func (l *link) run() error {
	beginVigil(l.conn, l.heartbeat)
	go l.write()
	r := bufio.NewReader(l.conn)
	for {
		// A failure to set a deadline shows in the read.
		_ = l.conn.SetReadDeadline(time.Now().Add(l.silence))
		m, err := readFrame(r)
		if err != nil {
			l.close(fmt.Errorf("connection lost: %w", err))
			break
		}
		l.frames.Add(1)
		switch {
		case m.Reply:
			l.deliver(m)
		case m.Method == methodPing:
			if m.ID != 0 {
				l.respond(m.ID, nil, nil)
			}
		default:
			l.serve(l, m)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *link) deliver(m message) {
	l.mu.Lock()
	waiting := l.pending[m.ID]
	delete(l.pending, m.ID)
	l.mu.Unlock()
	if waiting != nil {
		waiting <- m // one slot, one sender
	}
}

// write empties the outbox and, in its absence, sends signs of life.
func (l *link) write() {
	ticker := time.NewTicker(l.heartbeat)
	defer ticker.Stop()
	ping, _ := encodeFrame(message{Method: methodPing})
	for {
		l.mu.Lock()
		batch := l.outbox
		l.outbox, l.queued = nil, 0
		l.writing = len(batch) > 0
		l.mu.Unlock()
		if len(batch) == 0 {
			select {
			case <-l.done:
				return
			case <-l.wake:
				continue
			case <-ticker.C:
				batch = [][]byte{ping}
			}
		}
		_ = l.conn.SetWriteDeadline(time.Now().Add(l.silence))
		for _, frame := range batch {
			if _, err := l.conn.Write(frame); err != nil {
				l.close(fmt.Errorf("connection lost: %w", err))
				return
			}
		}
	}
}

// send queues a frame and never blocks.
func (l *link) send(frame []byte) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrDisconnected
	}
	l.outbox = append(l.outbox, frame)
	l.queued += len(frame)
	slow := l.queued > maxOutbox
	l.mu.Unlock()
	if slow {
		l.close(errors.New("the other side reads too slowly"))
		return ErrDisconnected
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// flush waits until all that was queued has been handed to the kernel.
func (l *link) flush(ctx context.Context) {
	for {
		l.mu.Lock()
		empty := (l.queued == 0 && !l.writing) || l.closed
		l.mu.Unlock()
		if empty {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (l *link) notify(method string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	frame, err := encodeFrame(message{Method: method, Body: body})
	if err != nil {
		return err
	}
	return l.send(frame)
}

// respond answers request id with out, or with err.
func (l *link) respond(id uint64, out any, err error) {
	m := message{ID: id, Reply: true, Error: asRemote(err)}
	if m.Error == nil && out != nil {
		if m.Body, err = json.Marshal(out); err != nil {
			m.Error = asRemote(fmt.Errorf("encode the answer: %w", err))
		}
	}
	frame, err := encodeFrame(m)
	if err != nil {
		frame, _ = encodeFrame(message{ID: id, Reply: true, Error: asRemote(err)})
	}
	_ = l.send(frame) // a link that is gone needs no answer
}

// call sends a request and waits for its answer.
func (l *link) call(ctx context.Context, method string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	id := l.nextID.Add(1)
	frame, err := encodeFrame(message{ID: id, Method: method, Body: body})
	if err != nil {
		return err
	}
	answer := make(chan message, 1)
	l.mu.Lock()
	l.pending[id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.pending, id)
		l.mu.Unlock()
	}()
	if err := l.send(frame); err != nil {
		return err
	}
	select {
	case m := <-answer:
		return readAnswer(m, method, out)
	case <-l.done:
		return ErrDisconnected
	case <-ctx.Done():
		return fmt.Errorf("%s: no answer: %w", method, ctx.Err())
	}
}

func readAnswer(m message, method string, out any) error {
	if m.Error != nil {
		return m.Error
	}
	if out == nil || len(m.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(m.Body, out); err != nil {
		return fmt.Errorf("%s: answer: %w", method, err)
	}
	return nil
}

// async serves a request beside the reader.
func (l *link) async(m message, f func()) {
	if l.calls.Add(1) > maxCalls {
		l.calls.Add(-1)
		l.respond(m.ID, nil, remoteErrorf(CodeRefused, "%d calls are under way: too many", maxCalls))
		return
	}
	go func() {
		defer l.calls.Add(-1)
		f()
	}()
}

// close ends the link; the first reason is kept.
func (l *link) close(reason error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed, l.err = true, reason
	l.mu.Unlock()
	close(l.done)
	// Not TLS's own Close: its farewell may wait for a peer that does not read.
	if t, ok := l.conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = l.conn.Close()
}
