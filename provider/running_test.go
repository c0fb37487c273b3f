// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"slices"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// A slot whose launch is being succeeded counts once, as what its successor is.
func TestASlotWithTwoLaunchesRunsOnce(t *testing.T) {
	of := func(slot, state string, revision int) localcloud.Invocation {
		return localcloud.Invocation{Slot: slot, State: state, Revision: revision}
	}
	running, stale := runningSlots([]localcloud.Invocation{
		of("web-0", localcloud.InvocationRunning, 1), of("web-1", localcloud.InvocationRunning, 1),
		of("web-2", localcloud.InvocationFailed, 2), of("web-0", localcloud.InvocationRunning, 2),
	}, 2)
	if !slices.Equal(running, []string{"web-0", "web-1"}) || !slices.Equal(stale, []string{"web-1"}) {
		t.Errorf("running %v, stale %v", running, stale)
	}
}
