// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// TestUntilSignal: a closed terminal and ^\\ end a run as ^C does, with the
// status a shell gives.
func TestUntilSignal(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		// Whoever runs the tests may ignore it, as nohup does; asking for it once
		// takes that back.
		once := make(chan os.Signal, 1)
		signal.Notify(once, s)
		signal.Stop(once)
		ctx, stop := untilSignal(context.Background())
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			if got := stopStatus(ctx); got != 128+int(s) {
				t.Errorf("%v: status %d", s, got)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%v did not end it", s)
		}
		stop()
	}
}

// TestIgnoredSignals: what nohup had us ignore stays ignored.
func TestIgnoredSignals(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	ctx, stop := untilSignal(context.Background())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
		t.Error("SIGHUP ended it, though it was ignored")
	case <-time.After(50 * time.Millisecond):
	}
}

// TestReaderGone: output nobody reads any more is an error, so that the run
// ends and takes its node away.
func TestReaderGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("some output\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	log := &output{localcloud.NewLogReader(path), w}
	defer log.Close()
	if err := log.copy(); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
}
