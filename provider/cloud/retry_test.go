// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestRetryBoundsRepetitions: a call that the SDK sends again for long is not cut short.
func TestRetryBoundsRepetitions(t *testing.T) {
	c, calls, passing := &Client{Pause: time.Microsecond}, 0, errors.New("passing")
	err := c.retry(t.Context(), time.Millisecond, func(err error) bool { return errors.Is(err, passing) }, func(ctx context.Context) error {
		time.Sleep(2 * time.Millisecond)
		if calls++; ctx.Err() != nil {
			return ctx.Err()
		}
		return passing
	})
	if !errors.Is(err, passing) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
