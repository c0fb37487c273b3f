// SPDX-License-Identifier: Apache-2.0

package consensus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var (
	entries = []byte("entries") // index -> entry
	vote    = []byte("vote")    // Raft's term and vote
	castag  = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })
)

// store keeps Raft's entries and votes in one file, every value behind its
// checksum.
type store struct {
	db   *bolt.DB
	path string
	// fail is told of what Raft would end the process for.
	fail func(error)
}

// damaged: a seed that forgot what it promised could help to give an id out
// twice, so it does not begin anew by itself.
func damaged(path string, err error) error {
	return fmt.Errorf("the seed's state %s is damaged (%w): while the other two seeds run, remove its directory and this seed learns everything from them again; otherwise restore it", path, err)
}

func openStore(path string, fail func(error)) (*store, error) {
	s := &store{path: path, fail: fail}
	if err := checkSize(path); err != nil {
		return nil, err
	}
	err := guarded(func() (err error) {
		if s.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType}); err != nil {
			return err
		}
		if err = s.db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(entries)
			if err == nil {
				_, err = tx.CreateBucketIfNotExists(vote)
			}
			return err
		}); err != nil {
			return err
		}
		return s.db.View(verify)
	})
	if err == nil {
		return s, nil
	}
	if s.db != nil {
		_ = guarded(s.db.Close)
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("the seed's state %s is in use: another seed runs with this directory; stop it first", path)
	case isSystem(err):
		return nil, fmt.Errorf("open the seed's state %s: %w", path, err)
	}
	return nil, damaged(path, err)
}

// isSystem: the kernel refused; that is no damage.
func isSystem(err error) bool {
	var pathErr *os.PathError
	return errors.As(err, &pathErr)
}

// checkSize: bolt maps its file, and reading what was cut off would kill the
// process. An empty file is one whose making was interrupted.
func checkSize(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the seed's state %s: %w", path, err)
	}
	if size := info.Size(); size == 0 || size%int64(os.Getpagesize()) != 0 {
		return damaged(path, fmt.Errorf("%d bytes are no whole file", size))
	}
	return nil
}

// guarded turns what bolt does with a damaged file into an error.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return f()
}

// verify reads all there is (bolt's own check does so in another goroutine,
// where a fault ends the process).
func verify(tx *bolt.Tx) error {
	for _, bucket := range [][]byte{entries, vote} {
		if err := tx.Bucket(bucket).ForEach(func(_, v []byte) error {
			_, err := unseal(v)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func seal(v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(v)), crc32.Checksum(v, castag())), v...)
}

func unseal(v []byte) ([]byte, error) {
	if len(v) < 4 || binary.BigEndian.Uint32(v) != crc32.Checksum(v[4:], castag()) {
		return nil, errors.New("wrong checksum")
	}
	return v[4:], nil
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func (s *store) close() error { return s.db.Close() }

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (uint64, error) {
	return s.edge(func(c *bolt.Cursor) []byte { k, _ := c.First(); return k })
}

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (uint64, error) {
	return s.edge(func(c *bolt.Cursor) []byte { k, _ := c.Last(); return k })
}

func (s *store) edge(find func(*bolt.Cursor) []byte) (index uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		if k := find(tx.Bucket(entries).Cursor()); len(k) == 8 {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog implements raft.LogStore.
func (s *store) GetLog(index uint64, e *raft.Log) error {
	err := s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(entries).Get(key(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		v, err := unseal(v)
		if err != nil {
			return err
		}
		return json.Unmarshal(v, e)
	})
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		s.end(damaged(s.path, err))
	}
	return err
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(e *raft.Log) error { return s.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore. After a failure Raft steps down or tells
// the leader; the seed goes on.
func (s *store) StoreLogs(all []*raft.Log) error {
	return s.update(func(tx *bolt.Tx) error {
		for _, e := range all {
			v, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := tx.Bucket(entries).Put(key(e.Index), seal(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore.
func (s *store) DeleteRange(low, high uint64) error {
	return s.update(func(tx *bolt.Tx) error {
		c := tx.Bucket(entries).Cursor()
		for k, _ := c.Seek(key(low)); k != nil && binary.BigEndian.Uint64(k) <= high; k, _ = c.Next() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set implements raft.StableStore.
func (s *store) Set(k, v []byte) error {
	return s.update(func(tx *bolt.Tx) error { return tx.Bucket(vote).Put(k, seal(v)) })
}

// Get implements raft.StableStore.
func (s *store) Get(k []byte) (v []byte, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		sealed := tx.Bucket(vote).Get(k)
		if sealed == nil {
			return nil
		}
		plain, err := unseal(sealed)
		v = append([]byte{}, plain...)
		return err
	})
	return v, err
}

// SetUint64 implements raft.StableStore. Raft ends the process with a stack
// trace when it cannot write the term down.
func (s *store) SetUint64(k []byte, v uint64) error {
	err := s.Set(k, key(v))
	if err != nil {
		s.end(err)
	}
	return err
}

// GetUint64 implements raft.StableStore.
func (s *store) GetUint64(k []byte) (uint64, error) {
	v, err := s.Get(k)
	if err != nil || len(v) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

func (s *store) update(f func(*bolt.Tx) error) error {
	if err := s.db.Update(f); err != nil {
		return fmt.Errorf("keep the seed's state in %s: %w: make room on that disk", s.path, err)
	}
	return nil
}

// end reports err and never returns: this seed is about to end, in order.
func (s *store) end(err error) {
	s.fail(err)
	select {}
}
