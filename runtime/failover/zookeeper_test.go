// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// The part of ZooKeeper's protocol (zookeeper.jute) that the clients need: one
// request at a time over one connection.

const (
	opCreate  = 1
	opGetData = 4
	opSetData = 5
	opSync    = 9

	sessionTimeout = 10 * time.Second
	answerTime     = time.Second            // of a request, as its client has it
	connectTime    = 400 * time.Millisecond // of TCP, and of the session
	maxAnswer      = 1 << 20
)

// Codes of ZooKeeper's errors.
const codeNodeExists = -110

type zkError int32

func (e zkError) Error() string { return fmt.Sprintf("ZooKeeper error %d", int32(e)) }

// session is what outlives a connection.
type session struct {
	id       int64
	password []byte
	zxid     int64 // the latest that was seen: no server that is behind it takes the session
}

// connection to one server.
type connection struct {
	net.Conn
	session *session
	xid     int32
}

// connect opens or resumes s at a server. When s has expired it is begun anew.
func connect(ctx context.Context, address string, s *session) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, session: s}
	if err := c.open(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *connection) open() error {
	s := c.session
	_ = c.SetDeadline(time.Now().Add(connectTime))
	var b packet
	b.put(int32(0), s.zxid, int32(sessionTimeout.Milliseconds()), s.id)
	b.text(append(make([]byte, 0, 16), padded(s.password)...))
	b.put(false)
	if err := c.send(b); err != nil {
		return err
	}
	r, err := c.receive()
	if err != nil {
		return err
	}
	var version, timeout int32
	var id int64
	r.get(&version, &timeout, &id)
	password := r.bytes()
	if r.err != nil {
		return r.err
	}
	if timeout <= 0 || id == 0 {
		s.id, s.password = 0, nil
		return errors.New("the session has expired")
	}
	s.id, s.password = id, password
	return nil
}

func padded(password []byte) []byte {
	if len(password) == 0 {
		return make([]byte, 16)
	}
	return password
}

// call sends one request and reads its answer.
func (c *connection) call(op int32, body packet) (*answer, error) {
	_ = c.SetDeadline(time.Now().Add(answerTime))
	c.xid++
	var b packet
	b.put(c.xid, op)
	b.Write(body.Bytes())
	if err := c.send(b); err != nil {
		return nil, err
	}
	r, err := c.receive()
	if err != nil {
		return nil, err
	}
	var xid, code int32
	var zxid int64
	r.get(&xid, &zxid, &code)
	if r.err != nil || xid != c.xid {
		return nil, fmt.Errorf("answer %d to request %d: %w", xid, c.xid, r.err)
	}
	c.session.zxid = max(c.session.zxid, zxid)
	if code != 0 {
		return nil, zkError(code)
	}
	return r, nil
}

// get reads a node: its data and version.
func (c *connection) get(path string) (data string, version int32, err error) {
	var b packet
	b.text([]byte(path))
	b.put(false)
	r, err := c.call(opGetData, b)
	if err != nil {
		return "", 0, err
	}
	data = string(r.bytes())
	var created, modified, ctime, mtime int64
	r.get(&created, &modified, &ctime, &mtime, &version)
	return data, version, r.err
}

// set writes a node that has the version.
func (c *connection) set(path, data string, version int32) error {
	var b packet
	b.text([]byte(path))
	b.text([]byte(data))
	b.put(version)
	_, err := c.call(opSetData, b)
	return err
}

func (c *connection) create(path, data string) error {
	var b packet
	b.text([]byte(path))
	b.text([]byte(data))
	b.put(int32(1), int32(31)) // one entry: all rights
	b.text([]byte("world"))
	b.text([]byte("anyone"))
	b.put(int32(0)) // it stays
	_, err := c.call(opCreate, b)
	return err
}

// sync lets the server catch up with the leader.
func (c *connection) sync(path string) error {
	var b packet
	b.text([]byte(path))
	_, err := c.call(opSync, b)
	return err
}

func (c *connection) send(b packet) error {
	frame := binary.BigEndian.AppendUint32(nil, uint32(b.Len()))
	_, err := c.Write(append(frame, b.Bytes()...))
	return err
}

func (c *connection) receive() (*answer, error) {
	var size uint32
	if err := binary.Read(c, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	if size > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes", size)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(c, data); err != nil {
		return nil, err
	}
	return &answer{r: bytes.NewReader(data)}, nil
}

// mode asks a server for its part in the ensemble: leader or follower.
func mode(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, connectTime)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := conn.Write([]byte("srvr")); err != nil {
		return "", err
	}
	said, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(said)) {
		if mode, ok := strings.CutPrefix(line, "Mode: "); ok {
			return strings.TrimSpace(mode), nil
		}
	}
	return "", fmt.Errorf("it says %q", said)
}

// packet is written in the order of its fields.
type packet struct{ bytes.Buffer }

func (p *packet) put(values ...any) {
	for _, v := range values {
		_ = binary.Write(p, binary.BigEndian, v) // fixed sizes, into memory
	}
}

func (p *packet) text(data []byte) {
	p.put(int32(len(data)))
	p.Write(data)
}

// answer is read in the order of its fields; the first error stays.
type answer struct {
	r   *bytes.Reader
	err error
}

func (a *answer) get(values ...any) {
	for _, v := range values {
		if a.err == nil {
			a.err = binary.Read(a.r, binary.BigEndian, v)
		}
	}
}

func (a *answer) bytes() []byte {
	var size int32
	a.get(&size)
	if a.err == nil && int(size) > a.r.Len() {
		a.err = io.ErrUnexpectedEOF
	}
	if a.err != nil || size <= 0 {
		return nil
	}
	data := make([]byte, size)
	_, a.err = io.ReadFull(a.r, data)
	return data
}
