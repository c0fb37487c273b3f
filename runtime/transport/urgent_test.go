// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Urgent bytes stay urgent, and do not end the stream: splice(2) says of them
// what it says at the end.
func TestSpliceCarriesUrgentBytes(t *testing.T) { carriesUrgentBytes(t) }

// They do so, too, when no pipe is left.
func TestSpliceCarriesUrgentBytesWithoutPipes(t *testing.T) {
	most := mostPipes
	mostPipes = 0
	defer func() { mostPipes = most }()
	carriesUrgentBytes(t)
}

func carriesUrgentBytes(t *testing.T) {
	newNetwork(t) // which has no pipes yet
	for _, pause := range []time.Duration{0, 20 * time.Millisecond} {
		left, right, done := spliced(t, context.Background())
		raw, err := left.SyscallConn()
		must(t, err)
		for _, part := range []struct {
			text  string
			flags int
		}{{"ab", 0}, {"!", unix.MSG_OOB}, {"cd", 0}, {"?", unix.MSG_OOB}} {
			must(t, raw.Control(func(fd uintptr) { _, err = unix.SendmsgN(int(fd), []byte(part.text), nil, nil, part.flags) }))
			must(t, err)
			time.Sleep(pause)
		}
		raw, err = right.SyscallConn()
		must(t, err)
		var b [1]byte
		for end := time.Now().Add(5 * time.Second); b[0] != '?' && time.Now().Before(end); time.Sleep(time.Millisecond) {
			must(t, raw.Control(func(fd uintptr) { _, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_OOB|unix.MSG_DONTWAIT) }))
		}
		if b[0] != '?' {
			t.Errorf("urgent byte %q, %v; want %q", b, err, "?")
		}
		left.CloseWrite()
		got, err := io.ReadAll(right)
		// An urgent byte that the next one overtakes before anybody looks is an ordinary one.
		if err != nil || (string(got) != "abcd" && string(got) != "ab!cd") {
			t.Errorf("the stream is %q, %v", got, err)
		}
		right.Close()
		wait(t, done)
	}
}
