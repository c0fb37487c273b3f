// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The control socket joins the two processes of the daemon: outer lives in the
// namespaces of the machine, inner in those of the local cloud. It keeps packet
// borders and carries descriptors.

// controlMax bounds one packet.
const controlMax = 64 << 10

// Operations of control packets.
const (
	opStart  = "start"  // outer -> inner, first: what network to run
	opReady  = "ready"  // inner -> outer: up, or Error
	opListen = "listen" // inner -> outer: open Address; answered by one opListen with the listener
	opStop   = "stop"   // outer -> inner: stop everything and end
)

type controlPacket struct {
	Op      string       `json:"op"`
	Info    *NetworkInfo `json:"info,omitempty"`
	Rooted  bool         `json:"rooted,omitempty"` // no user namespace: the daemon is real root
	Address string       `json:"address,omitempty"`
	Error   string       `json:"error,omitempty"`
	InUse   bool         `json:"in_use,omitempty"`
	Setup   bool         `json:"setup,omitempty"` // Error: the machine denied something namespaces need
}

type controlConn struct{ c *net.UnixConn }

// newControlConn takes f over.
func newControlConn(f *os.File) (*controlConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("control socket: not a unix socket")
	}
	return &controlConn{unixConn}, nil
}

// send writes one packet, with the descriptor of file if there is one.
func (c *controlConn) send(p controlPacket, file *os.File) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	if _, _, err := c.c.WriteMsgUnix(data, rights, nil); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// receive reads one packet and the descriptor that came with it, if any.
func (c *controlConn) receive() (controlPacket, *os.File, error) {
	data, rights := make([]byte, controlMax), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := c.c.ReadMsgUnix(data, rights)
	if err == nil && n == 0 {
		err = net.ErrClosed
	}
	if err != nil {
		return controlPacket{}, nil, fmt.Errorf("control socket: %w", err)
	}
	file, err := firstRight(rights[:rn])
	if err != nil {
		return controlPacket{}, nil, fmt.Errorf("control socket: %w", err)
	}
	var p controlPacket
	if err := json.Unmarshal(data[:n], &p); err != nil {
		if file != nil {
			file.Close()
		}
		return controlPacket{}, nil, fmt.Errorf("control socket: %w", err)
	}
	return p, file, nil
}

func firstRight(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "received"), nil
}
