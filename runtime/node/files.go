// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// runDir is BOXER_DIR: for a node with a state directory always the same
// place, so that a guest that outlives its supervisor keeps it.
func runDir(cfg config.Node) (string, error) {
	var dir string
	var err error
	if cfg.StateDir != "" {
		dir = filepath.Join(cfg.StateDir, "run")
		err = os.MkdirAll(dir, 0o700)
	} else {
		dir, err = os.MkdirTemp("", "boxer-")
	}
	mode := os.FileMode(0o700)
	if cfg.User != "" {
		mode = 0o755 // the guest may be another user; what is secret is closed by itself
	}
	if err == nil {
		err = os.Chmod(dir, mode)
	}
	if err != nil {
		remedy := "set TMPDIR to a directory that you may write to"
		if cfg.StateDir != "" {
			remedy = "set state_dir to a writable place"
		}
		return "", fmt.Errorf("make the run directory: %w: %s", err, remedy)
	}
	return dir, nil
}

// replaceFile swaps a file's content in one step. Nothing here must survive a
// power cut, so unlike the seed's state it is not forced to the disk.
func replaceFile(dir, name string, data []byte, mode os.FileMode) error {
	temporary := filepath.Join(dir, "."+name+".new")
	if err := os.WriteFile(temporary, data, mode); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, name))
}

// memberFiles is what was written of them last, by name.
type memberFiles map[string][]byte

// update tells guests who is in the network, in three forms, those that have changed.
func (f memberFiles) update(dir string, self cluster.Member, members, dormant []cluster.Member) error {
	var hosts, text bytes.Buffer
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, m := range members {
		fmt.Fprintf(&text, "%d %s %s %s %s %s\n", m.ID, m.OverlayAddress, m.Slot, m.Service, m.Kind, m.State)
	}
	for _, m := range slices.Concat(holders(self, members), dormant) {
		fmt.Fprintf(&hosts, "%s %s", m.OverlayAddress, m.Slot)
		if m.Service != m.Slot {
			hosts.WriteString(" " + m.Service)
		}
		if name := nodeName(m); name != m.Slot {
			hosts.WriteString(" " + name)
		}
		hosts.WriteString("\n")
	}
	list, err := json.Marshal(struct {
		Self    uint32           `json:"self"`
		Members []cluster.Member `json:"members"`
	}{self.ID, members})
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"hosts": hosts.Bytes(), "members.txt": text.Bytes(), "members.json": append(list, '\n')} {
		if bytes.Equal(f[name], data) {
			continue
		}
		if err := replaceFile(dir, name, data, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", filepath.Join(dir, name), err)
		}
		f[name] = data
	}
	return nil
}

const (
	maxStreams    = 64
	streamTimeout = 10 * time.Second // a reader that takes nothing for so long is dropped
)

// streamMembers serves members.sock: the present members as joins, then every
// change, one JSON object a line.
func (n *node) streamMembers(ctx context.Context) error {
	path := filepath.Join(n.dir, "members.sock")
	_ = os.Remove(path) // of a supervisor that was killed
	ln, err := listenUnix(ctx, path)
	if err != nil {
		n.log.Warn().Err(err).Msg("no membership stream for the guest")
		return nil
	}
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var readers sync.WaitGroup
	defer readers.Wait()
	slots := make(chan struct{}, maxStreams)
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		readers.Go(func() {
			defer func() { <-slots }()
			n.stream(ctx, conn)
		})
	}
}

// listenUnix works around the 108 bytes a socket's path may have.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	var lc net.ListenConfig
	if len(path) < 108 {
		return lc.Listen(ctx, "unix", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return lc.Listen(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

func (n *node) stream(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, stop := n.session.Subscribe()
	defer stop()
	go func() { // the reader went away
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	out := json.NewEncoder(conn)
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if !open {
				return
			}
			_ = conn.SetWriteDeadline(time.Now().Add(streamTimeout))
			if out.Encode(e) != nil {
				return
			}
		}
	}
}
