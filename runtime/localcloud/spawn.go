// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// How long the parts of starting and stopping a daemon may take.
const (
	daemonStartTime = 20 * time.Second
	daemonStopTime  = 20 * time.Second
	seedStartTime   = 20 * time.Second
)

// The words between the process that starts a daemon and the daemon. Before it
// hears "go" the daemon does nothing, and before it hears "commit" it ends when
// its starter does: a starter that is killed leaves no daemon nobody knows of.
type (
	goMessage struct {
		Info NetworkInfo `json:"info"`
	}
	readyMessage struct {
		Error string `json:"error,omitempty"`
	}
	commitMessage struct {
		Commit bool `json:"commit"`
	}
)

// startedDaemon is a daemon that is up but ends with us until commit.
type startedDaemon struct{ conn net.Conn }

func (d *startedDaemon) release() { d.conn.Close() }

func (d *startedDaemon) commit() error {
	if err := json.NewEncoder(d.conn).Encode(commitMessage{Commit: true}); err != nil {
		return fmt.Errorf("the daemon ended: %w", err)
	}
	return nil
}

// startDaemon starts the daemon of a network and waits until it is up.
func (s *Store) startDaemon(ctx context.Context, d netDir, info NetworkInfo) (*startedDaemon, error) {
	if err := checkFiles(); err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	if err := s.launch(ctx, d, info, conn, theirs); err != nil {
		conn.Close()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		return nil, errors.Join(err, d.stopDaemon(stop))
	}
	return &startedDaemon{conn}, nil
}

func (s *Store) launch(ctx context.Context, d netDir, info NetworkInfo, conn net.Conn, theirs *os.File) error {
	log, err := os.OpenFile(d.join("cloud.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return s.wrap(err)
	}
	defer log.Close()
	cmd := exec.Command(s.runtimeDir(info.Runtime).boxer(), "local-cloud", "outer", string(d))
	cmd.Env = []string{"PATH=" + hostPath}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // outlives the terminal and its starter
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	go func() { _ = cmd.Wait() }() // reaped if it ends before we do
	theirs.Close()
	outer, err := identify(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("start daemon: it ended at once: the end of %s: %s", d.join("cloud.log"), lastLines(d.join("cloud.log")))
	}
	if err := writeJSON(d.join("daemon.json"), daemonFile{Outer: outer}); err != nil {
		return s.wrap(err)
	}
	return s.awaitReady(ctx, d, info, conn)
}

func (s *Store) awaitReady(ctx context.Context, d netDir, info NetworkInfo, conn net.Conn) error {
	deadline := time.Now().Add(daemonStartTime)
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var ready readyMessage
	err := json.NewEncoder(conn).Encode(goMessage{Info: info})
	if err == nil {
		err = json.NewDecoder(conn).Decode(&ready)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("start daemon: %w", ctx.Err())
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("start daemon: it ended at once: the end of %s: %s", d.join("cloud.log"), lastLines(d.join("cloud.log")))
	case err != nil:
		return fmt.Errorf("start daemon: no answer within %s (%w): the end of %s: %s",
			daemonStartTime, err, d.join("cloud.log"), lastLines(d.join("cloud.log")))
	case ready.Error != "":
		return errors.New(ready.Error)
	}
	_ = conn.SetDeadline(time.Time{})
	return nil
}

// stopDaemon ends the daemon of a network with everything in it, and returns
// when all of it is gone. Without a daemon it does nothing.
func (d netDir) stopDaemon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, daemonStopTime+5*time.Second)
	defer cancel()
	p, err := d.daemon()
	if err != nil {
		return err
	}
	defer d.removeCgroups() // of a daemon whose both halves were killed
	if d.isPlain() {
		defer d.clearPlain()
	}
	gone := func(wait time.Duration) bool {
		for end := time.Now().Add(wait); ; {
			if now, err := d.daemon(); err == nil {
				p = now // the inner process may only just have been written down
			}
			if !p.Outer.alive() && !p.Inner.alive() {
				return true
			}
			if time.Now().After(end) || ctx.Err() != nil {
				return false
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	p.Outer.kill(unix.SIGTERM)
	if !p.Outer.alive() {
		p.Inner.kill(unix.SIGKILL) // it ends by itself; this is only sooner
	}
	if gone(daemonStopTime) {
		return nil
	}
	p.Outer.kill(unix.SIGKILL)
	p.Inner.kill(unix.SIGKILL)
	if gone(5 * time.Second) {
		return nil
	}
	return fmt.Errorf("the daemon (process %d) does not end: kill it and retry", p.Outer.PID)
}

// waitSeed waits until a seed admits members.
func (s *Store) waitSeed(ctx context.Context, info NetworkInfo) error {
	if err := checkLoopback(); err != nil {
		return err
	}
	secret, err := os.ReadFile(info.SecretFile)
	if err != nil {
		return s.wrap(err)
	}
	ctx, cancel := context.WithTimeout(ctx, seedStartTime)
	defer cancel()
	client := newClient(info)
	defer client.Close()
	pause := 10 * time.Millisecond
	for {
		err := observe(ctx, info, []byte(strings.TrimSpace(string(secret))))
		if err == nil {
			return nil
		}
		if err := client.endedSeeds(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			log := client.NodeLogPath(cluster.SeedName(0))
			return fmt.Errorf("the seed at %s admits nobody: %w: the end of %s: %s", info.SeedEndpoint, err, log, lastLines(log))
		case <-time.After(pause):
			pause = min(2*pause, 200*time.Millisecond)
		}
	}
}

// endedSeeds says why seeds ended, if those that are left are no majority.
func (c *Client) endedSeeds(ctx context.Context) error {
	var ended []error
	for i := range c.info.SeedEndpoints {
		slot := cluster.SeedName(i)
		if host, err := c.Host(ctx, slot); err == nil && host.State == HostExited {
			ended = append(ended, fmt.Errorf("the seed ended: %s: %s", host.Error, lastLines(c.NodeLogPath(slot))))
		}
	}
	if 2*len(ended) < len(c.info.SeedEndpoints) {
		return nil
	}
	return errors.Join(ended...)
}

// observe asks the seeds for their members, once.
func observe(ctx context.Context, info NetworkInfo, secret []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	session, err := cluster.Observe(ctx, cluster.Options{
		Network: info.Name, Secret: secret, Seeds: info.SeedEndpoints, Logger: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	return session.Close()
}

// socketPair returns two connected, close-on-exec unix sockets.
func socketPair(kind int) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair"), nil
}

// lastLines are the last lines of a log in one line, for an error message.
func lastLines(path string) string {
	lines, err := tail(path, 1000)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(lines) == 0:
		return "(it is empty)"
	case err != nil:
		return err.Error()
	}
	if why := crash(lines); len(why) > 0 {
		lines = why
	}
	return strings.Join(lines[max(len(lines)-3, 0):], " | ")
}
