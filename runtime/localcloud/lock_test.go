// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Who waits in vain for a lock is told whose it is.
func TestLockDeadline(t *testing.T) {
	dir := t.TempDir()
	held, err := tryLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = waitLock(ctx, dir)
	want := fmt.Sprintf("%s is locked by another Boxer process (pid %d): wait for it to end, or end it, and try again", dir, os.Getpid())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
	held.unlock()
	again, err := waitLock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	again.unlock()
}
