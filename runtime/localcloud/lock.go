// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked: another process works on the same network.
var errLocked = errors.New("locked")

// dirLock is an flock on a directory: it leaves no file behind, and the kernel
// drops it when its holder dies.
type dirLock struct{ f *os.File }

func (l *dirLock) unlock() {
	if l != nil && l.f != nil {
		_ = l.f.Close()
	}
}

// tryLock locks dir, or fails with errLocked at once.
func tryLock(dir string) (*dirLock, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, err
	}
	// The directory may have been removed, or made again, before we had the lock.
	held, err1 := f.Stat()
	now, err2 := os.Stat(dir)
	if err1 != nil || err2 != nil || !os.SameFile(held, now) {
		f.Close()
		return nil, errors.Join(fs.ErrNotExist, err1, err2)
	}
	return &dirLock{f}, nil
}

// waitLock locks dir as soon as it is free.
func waitLock(ctx context.Context, dir string) (*dirLock, error) {
	for {
		l, err := tryLock(dir)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is locked by another Boxer process%s: wait for it to end, or end it, and try again: %w",
				dir, holderOf(dir), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// holderOf names the process that holds the lock of dir, as far as it can be told.
func holderOf(dir string) string {
	var stat unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Stat(dir, &stat) != nil {
		return ""
	}
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK ADVISORY WRITE 4711 00:2a:1234 0 EOF
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], fmt.Sprintf(":%d", stat.Ino)) {
			return " (pid " + fields[4] + ")"
		}
	}
	return ""
}

// claim makes the directory of a new network and locks it. Debris of a creator
// that died is handed over as it is (debris true).
func (s *Store) claim(ctx context.Context, name string) (l *dirLock, debris bool, err error) {
	// The state directory's own lock covers the moment between mkdir and flock.
	outer, err := waitLock(ctx, s.dir)
	if err != nil {
		return nil, false, s.wrap(err)
	}
	defer outer.unlock()
	d := s.netDir(name)
	if err := os.MkdirAll(filepath.Dir(string(d)), 0o700); err != nil {
		return nil, false, s.wrap(err)
	}
	err = os.Mkdir(string(d), 0o700)
	if debris = errors.Is(err, fs.ErrExist); debris {
		err = nil
	}
	if err != nil {
		return nil, false, s.wrap(err)
	}
	l, err = tryLock(string(d))
	if errors.Is(err, errLocked) {
		return nil, false, fmt.Errorf("network %q %w: another Boxer process is creating or deleting it: wait for that to end", name, ErrExists)
	}
	if err != nil {
		return nil, false, s.wrap(err)
	}
	if _, err := os.Stat(d.join("network.json")); err == nil {
		l.unlock()
		return nil, false, fmt.Errorf("network %q %w in %s: choose another name or delete it first", name, ErrExists, s.dir)
	}
	return l, debris, nil
}
