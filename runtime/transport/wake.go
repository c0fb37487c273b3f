// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// Sleepers are the nodes that are started when somebody connects to them.
type Sleepers interface {
	// Asleep tells whether m's slot is one of them and does not run (yet).
	Asleep(m cluster.Member) bool
	// Wake returns when it runs, or why it does not: ECONNREFUSED if waiting does
	// not help, else ETIMEDOUT.
	Wake(ctx context.Context, m cluster.Member) error
}

// wakeSyns is how often the kernel repeats the SYN of a guest that waits for a
// node to start: it gives up (ETIMEDOUT) after 15 s, or 19 s where the first
// repeats come after a second each (Linux 6.5). Nobody else can end a guest's
// connect like that.
const wakeSyns = 3

func (l *Layer) asleep(m cluster.Member) bool { return l.o.Sleepers != nil && l.o.Sleepers.Asleep(m) }

// awake is this node, and who is at m's address once somebody runs there.
func (l *Layer) awake(ctx context.Context, m cluster.Member) (self, now cluster.Member, err error) {
	if self, now = l.latest(m); !l.asleep(now) {
		return self, now, nil
	}
	if err = l.o.Sleepers.Wake(ctx, now); err == nil {
		self, now = l.latest(now)
		err = l.barred(self, now)
	}
	return self, now, err
}
