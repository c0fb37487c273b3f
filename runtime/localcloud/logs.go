// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A log is bounded: when it holds logMost its oldest part is cut, so that
// logKeep are left. Guests hold their log themselves and write whenever they
// like, so it is not renamed, copied or truncated: a hole is punched where its
// beginning was. Whoever writes is not disturbed, no byte is lost but the
// oldest, and positions in the file stay what they were.
const (
	logMost  = 16 << 20
	logKeep  = 8 << 20
	logCheck = time.Second // what is written in between comes on top
	logBlock = 4096        // holes begin and end at blocks

	endedLogs = 50 // nodes that were stopped and whose logs are kept
)

// keepLogs bounds the logs of a network until ctx ends.
func (d *daemon) keepLogs(ctx context.Context) {
	tick := time.NewTicker(logCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := errors.Join(d.cutLogs(), d.pruneLogs()); err != nil {
			d.log.Error().Err(err).Msg("logs not bounded")
		}
	}
}

func (d *daemon) cutLogs() error {
	logs, err := filepath.Glob(d.dir.join("logs", "*.log"))
	for _, path := range append(logs, d.dir.join("cloud.log")) {
		if info, statErr := os.Stat(path); statErr == nil && info.Size() > logMost {
			err = errors.Join(err, cutLog(path, logMost, logKeep))
		}
	}
	return err
}

// cutLog leaves the last keep bytes, or a little more, of a log that has more
// than most.
func cutLog(path string, most, keep int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size()-dataFrom(f, 0) <= most {
		return err
	}
	cut := (info.Size() - keep) / logBlock * logBlock
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, cut)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(0) // a file system without holes: it begins anew
	}
	return os.NewSyscallError("fallocate", err)
}

// dataFrom is where the data of a file begins, at or after a position.
func dataFrom(f *os.File, at int64) int64 {
	data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if err != nil { // nothing is there, or the file system has no holes
		return at
	}
	return data
}

// takeLogs makes the logs of a launch. A slot's logs are those of one launch at a
// time: who follows another, or is refused because that one runs, has its own under
// another name until that one has ended.
func (d *daemon) takeLogs(b *sandbox, slot string) (logFiles, error) {
	d.logging.Lock()
	defer d.logging.Unlock()
	if d.writers == nil {
		d.writers = map[string][]*sandbox{}
	}
	if b.logs = slot; len(d.writers[slot]) > 0 {
		d.waiting++
		b.logs = fmt.Sprintf("%s%s%d", slot, waitingLog, d.waiting)
	}
	d.writers[slot] = append(d.writers[slot], b)
	return d.openLogs(b.logs)
}

// waitingLog is in the names of logs whose slot has those of another launch now;
// no slot's name has it.
const waitingLog = ".next-"

// leaveLogs gives the slot's logs to the launch that waits for that, if there is one.
func (d *daemon) leaveLogs(b *sandbox, slot string) {
	d.logging.Lock()
	defer d.logging.Unlock()
	at := slices.Index(d.writers[slot], b)
	if at < 0 {
		return // it was never begun
	}
	left := slices.Delete(d.writers[slot], at, at+1)
	if d.writers[slot] = left; len(left) == 0 {
		delete(d.writers, slot)
	}
	var err error
	switch {
	case b.logs != slot:
		err = d.removeLogs(b.logs)
	case len(left) > 0:
		next := left[0]
		err = errors.Join(os.Rename(guestLog(d.dir, next.logs), guestLog(d.dir, slot)), os.Rename(nodeLog(d.dir, next.logs), nodeLog(d.dir, slot)))
		next.logs = slot
	}
	if err != nil {
		d.log.Error().Err(err).Str("slot", slot).Msg("logs not handed on")
	}
}

// lastWordsOf explains why a sandbox failed.
func (d *daemon) lastWordsOf(b *sandbox) string {
	d.logging.Lock()
	defer d.logging.Unlock()
	return d.lastWords(b.logs)
}

// pruneLogs forgets the logs of all but the endedLogs nodes that ended last.
func (d *daemon) pruneLogs() error {
	entries, err := os.ReadDir(d.dir.join("logs"))
	if err != nil {
		return err
	}
	type ended struct {
		slot string
		at   time.Time
	}
	var all []ended
	live := d.liveSlots()
	for _, e := range entries {
		slot, ok := strings.CutSuffix(e.Name(), ".node.log")
		if !ok || live[slot] || strings.Contains(slot, waitingLog) && d.isWriting(slot) {
			continue
		}
		if info, err := e.Info(); err == nil {
			all = append(all, ended{slot, info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b ended) int { return b.at.Compare(a.at) })
	for _, e := range all[min(len(all), endedLogs):] {
		err = errors.Join(err, d.removeLogs(e.slot))
	}
	return err
}

// isWriting tells whether a launch has logs of this name.
func (d *daemon) isWriting(name string) bool {
	d.logging.Lock()
	defer d.logging.Unlock()
	slot, _, _ := strings.Cut(name, waitingLog)
	return slices.ContainsFunc(d.writers[slot], func(b *sandbox) bool { return b.logs == name })
}

// liveSlots are those of all hosts, and of all invocations that are known.
func (d *daemon) liveSlots() map[string]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	live := map[string]bool{}
	for slot := range d.hosts {
		live[slot] = true
	}
	for _, f := range d.functions {
		for _, i := range f.invocations {
			live[i.record.Slot] = true
		}
	}
	return live
}

func (d *daemon) removeLogs(slot string) error {
	for _, log := range []string{guestLog(d.dir, slot), nodeLog(d.dir, slot)} {
		if err := os.Remove(log); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// LogReader reads a log from the oldest byte that is kept, and goes on with the
// next launch of its slot.
type LogReader struct {
	// Lost, if set, is told how many bytes were cut before they were read.
	Lost func(bytes int64)

	path string
	file *os.File // nil: not found yet
	at   int64
}

// NewLogReader reads the log at path, which may not exist yet.
func NewLogReader(path string) *LogReader { return &LogReader{path: path} }

// Close gives the log up.
func (r *LogReader) Close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// Copy writes to w what is there and was not read yet.
func (r *LogReader) Copy(w io.Writer) error {
	buf := make([]byte, 64<<10)
	for over := false; ; {
		if r.file == nil {
			if err := r.open(); err != nil || r.file == nil {
				return err
			}
		}
		n, err := r.file.ReadAt(buf, r.at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		switch {
		case n > 0:
			over = false
		case over: // nothing came between the last look and the end of the launch
			r.Close()
			over = false
			continue
		case r.replaced():
			over = true
			continue
		default:
			return nil
		}
		// Asked after reading: what is no hole now was none then.
		if data := dataFrom(r.file, r.at); data > r.at {
			r.skip(data)
			continue
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		r.at += int64(n)
	}
}

func (r *LogReader) open() error {
	f, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	r.file, r.at = f, 0
	return nil
}

// replaced: a new launch has begun the log anew, in a file of its own, or in
// this one.
func (r *LogReader) replaced() bool {
	own, err := r.file.Stat()
	if err != nil {
		return false
	}
	if own.Size() < r.at {
		r.at = 0
		return true
	}
	now, err := os.Stat(r.path)
	return err == nil && !os.SameFile(own, now)
}

// skip goes on with the first whole line at or after data.
func (r *LogReader) skip(data int64) {
	from := r.at
	buf := make([]byte, 64<<10)
	n, _ := r.file.ReadAt(buf, data)
	r.at = data + int64(bytes.IndexByte(buf[:n], '\n')+1)
	if r.Lost != nil {
		r.Lost(r.at - from)
	}
}

// Last makes Copy begin with the last lines of what is there now.
func (r *LogReader) Last(lines int) error {
	if err := r.open(); err != nil || r.file == nil {
		return err
	}
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if r.at = info.Size(); lines <= 0 {
		return nil
	}
	buf := make([]byte, 64<<10)
	oldest := dataFrom(r.file, 0)
	for end := info.Size(); end > oldest; {
		begin := max(end-int64(len(buf)), oldest)
		n, err := r.file.ReadAt(buf[:end-begin], begin)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] != '\n' || begin+int64(i) == info.Size()-1 {
				continue
			}
			if lines--; lines <= 0 {
				r.at = begin + int64(i) + 1
				return nil
			}
		}
		end = begin
	}
	r.at = oldest
	return nil
}
