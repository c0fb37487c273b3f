// SPDX-License-Identifier: Apache-2.0

// Package table is the node table: one shared memory that the supervisor
// writes and that every process monitor maps read-only, so that looking up a
// name or an address needs no message. The layout is that of lib/table.h.
package table

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Writer owns the table of one node. Its methods may be called at the same
// time.
type Writer struct {
	file *os.File

	mu    sync.Mutex
	mem   []byte // the only writable mapping there can be
	draft []byte // filled first, so that readers meet an odd sequence briefly
}

// NewWriter makes an empty table in a memory file that nobody can resize, and
// that nobody but this Writer can write to: the mapping was made before the
// file was sealed.
func NewWriter() (*Writer, error) {
	fd, err := unix.MemfdCreate("boxer-table", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("node table: memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "boxer-table")
	if err := unix.Ftruncate(fd, Size); err != nil {
		file.Close()
		return nil, fmt.Errorf("node table: reserve %d bytes: %w", Size, err)
	}
	mem, err := unix.Mmap(fd, 0, Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("node table: map: %w", err)
	}
	// F_SEAL_WRITE would be refused while our own mapping lives.
	const seals = unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		_ = unix.Munmap(mem)
		file.Close()
		return nil, fmt.Errorf("node table: seal (Linux 5.1 or newer is needed): %w", err)
	}
	return &Writer{file: file, mem: mem, draft: make([]byte, Size)}, nil
}

// File is the sealed memory file, for handing to process monitors. It stays
// the Writer's.
func (w *Writer) File() *os.File { return w.file }

// Publish replaces what the table says. After an error the table says what it
// said before.
func (w *Writer) Publish(s Snapshot) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mem == nil {
		return errors.New("node table: closed")
	}
	used, err := encode(w.draft, s)
	if err != nil {
		return err
	}
	w.store(used, now())
	return nil
}

// store copies the draft into the shared memory under the sequence lock.
func (w *Writer) store(used spans, heartbeat uint64) {
	seq := word32(w.mem, offSeq)
	atomic.AddUint32(seq, 1)
	fence()
	copySpan(w.mem, w.draft, 0, offSeq)
	copySpan(w.mem, w.draft, offCIDR, headerSize-offCIDR)
	copySpan(w.mem, w.draft, memberOff, used.members*memberSize)
	copySpan(w.mem, w.draft, nativeOff, used.natives*nativeSize)
	copySpan(w.mem, w.draft, nameOff, used.names*nameSize)
	copySpan(w.mem, w.draft, addrOff, used.addrs*addrSize)
	atomic.StoreUint64(word64(w.mem, offHeartbeat), heartbeat)
	atomic.AddUint32(seq, 1)
}

// Beat is the sign of life by which a dead writer is told from a quiet one.
func (w *Writer) Beat() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mem != nil {
		atomic.StoreUint64(word64(w.mem, offHeartbeat), now())
	}
}

// Close gives the mapping and the file back. Monitors keep what they mapped.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mem == nil {
		return nil
	}
	err := errors.Join(unix.Munmap(w.mem), w.file.Close())
	w.mem = nil
	return err
}

func copySpan(dst, src []byte, off, n int) { copy(dst[off:off+n], src[off:off+n]) }

func word32(b []byte, off int) *uint32 { return (*uint32)(unsafe.Pointer(&b[off])) }
func word64(b []byte, off int) *uint64 { return (*uint64)(unsafe.Pointer(&b[off])) }

// fence keeps later plain stores behind an earlier atomic one. An atomic
// add alone orders what comes before it with what comes after it, but on arm64
// not its own store with later stores; a second one in between does.
func fence() {
	var nothing atomic.Uint32
	nothing.Add(1)
}

// now is CLOCK_MONOTONIC in nanoseconds: what a monitor compares with.
func now() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}
