// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"errors"
	"io"
	"testing"
)

// hasty says "end" first, as the kernel does when a frame and the end of the
// connection arrive between its two looks (one in some ten thousand times).
type hasty struct {
	frames [][]byte
	said   bool
}

func (h *hasty) Read(b []byte) (int, error) {
	if !h.said || len(h.frames) == 0 {
		h.said = true
		return 0, io.EOF
	}
	n := copy(b, h.frames[0])
	h.frames = h.frames[1:]
	return n, nil
}

// An ACK lost that way would deliver a connection twice, a HELD refuse a guest.
func TestTheFrameBeforeTheEndIsRead(t *testing.T) {
	var buf [RequestSize]byte
	conn := &hasty{frames: [][]byte{[]byte("last")}}
	if n, err := readFrame(conn, buf[:]); err != nil || string(buf[:n]) != "last" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if n, err := readFrame(conn, buf[:]); !errors.Is(err, io.EOF) || n != 0 {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
}
