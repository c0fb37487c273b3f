// SPDX-License-Identifier: Apache-2.0

// Package consensus keeps one log of changes the same on all of a network's
// seeds (Raft). One replica at a time leads and proposes; a change counts once
// a majority has it on disk.
package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"
)

// Timing. A follower that hears nothing for one to two election times stands
// for election; a leader without a majority gives up within its lease, which is
// shorter, so that it has stopped before another can begin.
const (
	DefaultElection = time.Second
	proposeTimeout  = 2 * time.Second // until the leader takes a change in
	closeTimeout    = 2 * time.Second
	keptEntries     = 1024 // entries after which a snapshot is taken, and that stay behind it
	keptSnapshots   = 2
)

var (
	// ErrDeposed means that this replica does not lead (any more), and that the
	// change was not made in the term it was meant for.
	ErrDeposed = errors.New("this seed does not lead")
	errClosed  = errors.New("closed")
)

// Machine is what the log is about. Apply and Restore are called in the log's
// order, one at a time, on every replica; an error of theirs breaks the replica.
type Machine interface {
	Apply(change []byte) error
	Snapshot() ([]byte, error)
	Restore(snapshot []byte) error
}

// Options of Open.
type Options struct {
	Dir    string   // what must survive a restart
	Self   string   // this replica's name
	Voters []string // all names, the same on every replica

	// Dial makes an authenticated stream to another replica.
	Dial    func(ctx context.Context, voter string) (net.Conn, error)
	Machine Machine

	// Lead is called when this replica leads and its machine has every change
	// made before term; Follow when that is over. Both from one goroutine.
	Lead   func(term uint64)
	Follow func()
	// Broken is told, once, that this replica cannot go on.
	Broken func(error)

	Election time.Duration // 0: DefaultElection
	Logger   zerolog.Logger
}

// Log is one replica.
type Log struct {
	o      Options
	raft   *raft.Raft
	stream *stream
	net    *raft.NetworkTransport
	store  *store
	broken sync.Once

	closing sync.Once
	failure error // of closing
	stop    chan struct{}
	done    chan struct{}
}

// Open takes up what Dir has, or begins an empty log.
func Open(o Options) (*Log, error) {
	if o.Election == 0 {
		o.Election = DefaultElection
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the seeds' log: %w", err)
	}
	l := &Log{o: o, stop: make(chan struct{}), done: make(chan struct{})}
	var err error
	if l.store, err = openStore(filepath.Join(o.Dir, "log.db"), l.fail); err != nil {
		return nil, err
	}
	if err := l.begin(); err != nil {
		if l.net != nil {
			_ = l.net.Close()
		}
		return nil, errors.Join(err, l.store.close())
	}
	go l.watch()
	return l, nil
}

func (l *Log) begin() error {
	logger := hclog.New(&hclog.LoggerOptions{Output: lines{l.o.Logger}, Level: hclog.Warn, DisableTime: true})
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(l.o.Dir, keptSnapshots, logger)
	if err != nil {
		return fmt.Errorf("open the snapshots of the seeds' log in %s: %w", l.o.Dir, err)
	}
	if err := checkSnapshots(l.o.Dir, snapshots); err != nil {
		return err
	}
	l.stream = newStream(l.o.Self, l.o.Dial)
	l.net = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger: logger, Stream: l.stream, MaxPool: 2, Timeout: 2 * l.o.Election, MsgpackUseNewTimeFormat: true,
	})
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(l.o.Self)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = l.o.Election, l.o.Election, l.o.Election/2
	c.CommitTimeout = l.o.Election / 2 // followers need not know at once what is committed
	c.SnapshotThreshold, c.TrailingLogs = keptEntries, keptEntries
	c.Logger, c.NoLegacyTelemetry = logger, true
	old, err := raft.HasExistingState(l.store, l.store, snapshots)
	if err == nil && !old {
		var all raft.Configuration
		for _, name := range l.o.Voters {
			all.Servers = append(all.Servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name)})
		}
		err = raft.BootstrapCluster(c, l.store, l.store, snapshots, l.net, all)
	}
	if err == nil {
		l.raft, err = raft.NewRaft(c, machine{l}, l.store, l.store, snapshots, l.net)
	}
	if err != nil {
		return fmt.Errorf("take up the seeds' log in %s: %w", l.o.Dir, err)
	}
	return nil
}

// Serve takes a stream that another replica dialled, until it ends.
func (l *Log) Serve(conn net.Conn) { l.stream.serve(conn) }

// Leader is the name of the replica that leads as far as this one knows, or "".
func (l *Log) Leader() string {
	_, id := l.raft.LeaderWithID()
	return string(id)
}

// Propose returns when a majority has the change and this replica's machine has
// applied it, or with the reason why it was not made. ErrDeposed leaves open
// whether it was: a later leader may still find it.
func (l *Log) Propose(term uint64, change []byte) error {
	entry := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(change)), term)
	future := l.raft.Apply(append(entry, change...), proposeTimeout)
	err := future.Error()
	if err == nil {
		err, _ = future.Response().(error)
	}
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost),
		errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrDeposed
	case err != nil:
		return fmt.Errorf("write to the seeds' log: %w", err)
	}
	return nil
}

// watch tells when leading begins and ends.
func (l *Log) watch() {
	defer close(l.done)
	leading := uint64(0)
	become := func(term uint64) {
		if term == leading {
			return
		}
		if leading != 0 {
			l.o.Follow()
		}
		if leading = term; term != 0 {
			l.o.Lead(term)
		}
	}
	for {
		select {
		case <-l.stop:
			become(0)
			return
		case leads := <-l.raft.LeaderCh():
			if !leads {
				become(0)
				continue
			}
			become(l.takeOver())
		}
	}
}

// takeOver returns the term in which this replica leads with everything before
// it applied; 0 if it does not lead any more.
func (l *Log) takeOver() uint64 {
	for {
		term := l.raft.CurrentTerm()
		if l.raft.Barrier(0).Error() != nil {
			return 0
		}
		// The same term before and after: nobody else led in between.
		if term == l.raft.CurrentTerm() {
			return term
		}
	}
}

// fail reports what this replica cannot go on from.
func (l *Log) fail(err error) {
	l.broken.Do(func() { go l.o.Broken(err) })
}

// Close hands leading over, if it can, and ends the replica.
func (l *Log) Close() error {
	l.closing.Do(func() { l.failure = l.shutDown() })
	return l.failure
}

func (l *Log) shutDown() error {
	within(closeTimeout, func() {
		if l.raft.State() == raft.Leader {
			_ = l.raft.LeadershipTransfer().Error()
		}
	})
	close(l.stop)
	<-l.done
	stopped := within(closeTimeout, func() { _ = l.raft.Shutdown().Error() })
	_ = l.net.Close()
	if !stopped {
		return fmt.Errorf("close the seeds' log in %s: its disk does not answer", l.o.Dir)
	}
	return l.store.close()
}

// within reports whether f ended in time; a broken disk must not stop the end.
func within(limit time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// machine adapts a Machine to Raft's interface. An entry that was proposed in
// one term and came into the log in another is void: its proposer did not know
// the changes in between.
type machine struct{ l *Log }

func (m machine) Apply(e *raft.Log) any {
	if len(e.Data) < 8 || binary.BigEndian.Uint64(e.Data) != e.Term {
		return ErrDeposed
	}
	err := m.l.o.Machine.Apply(e.Data[8:])
	if err != nil {
		m.l.fail(err)
	}
	return err
}

func (m machine) Snapshot() (raft.FSMSnapshot, error) {
	data, err := m.l.o.Machine.Snapshot()
	return snapshot(data), err
}

func (m machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	data, err := io.ReadAll(r)
	if err == nil {
		err = m.l.o.Machine.Restore(data)
	}
	if err != nil {
		m.l.fail(err)
	}
	return err
}

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

func (snapshot) Release() {}

// checkSnapshots: a damaged snapshot must not be passed over for an older one.
func checkSnapshots(dir string, s raft.SnapshotStore) error {
	list, err := s.List()
	if err != nil {
		return fmt.Errorf("the snapshots of the seeds' log in %s cannot be read: %w", dir, err)
	}
	for _, meta := range list {
		_, r, err := s.Open(meta.ID) // compares the checksum
		if err != nil {
			return damaged(filepath.Join(dir, "snapshots", meta.ID), err)
		}
		_ = r.Close()
	}
	return nil
}

// lines passes on what the library says.
type lines struct{ log zerolog.Logger }

func (w lines) Write(p []byte) (int, error) {
	text := p
	for len(text) > 0 && text[len(text)-1] == '\n' {
		text = text[:len(text)-1]
	}
	w.log.Debug().Str("part", "raft").Msg(string(text))
	return len(p), nil
}
