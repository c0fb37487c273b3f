// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

const maxFrame = 1 << 20

// message is the content of every frame: a request (ID, Method), its response
// (ID, Reply) or a notification (Method only).
type message struct {
	ID     uint64          `json:"id,omitempty"`
	Reply  bool            `json:"reply,omitempty"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  *RemoteError    `json:"error,omitempty"`
}

// encodeFrame gives m as it goes over the wire.
func encodeFrame(m message) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.Method, err)
	}
	if len(body) > maxFrame {
		return nil, fmt.Errorf("encode %s: %d bytes exceed the frame limit of %d", m.Method, len(body), maxFrame)
	}
	frame := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	return append(frame, body...), nil
}

// readFrame reads one message. Memory grows with what arrives, not with what
// the length announces.
func readFrame(r io.Reader) (message, error) {
	var m message
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > maxFrame {
		return m, fmt.Errorf("frame of %d bytes: want 1 to %d", size, maxFrame)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err != nil {
		return m, err
	}
	if len(body) != int(size) {
		return m, io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, fmt.Errorf("frame: %w", err)
	}
	if m.Method == "" && !m.Reply {
		return m, fmt.Errorf("frame: neither a method nor a reply")
	}
	return m, nil
}
