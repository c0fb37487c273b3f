// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"net/netip"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/ipc"
)

// Connections that the kernel does not list here (published ports) are remembered in a
// bounded number: the newest, which a guest asks about.
func TestTheNewestForeignConnectionsAreRemembered(t *testing.T) {
	l := start(t, nil)
	const made = 3 * maxForeign
	for cookie := uint64(1); cookie <= made; cookie++ {
		peer := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(cookie))
		l.book.put(cookie, &entry{Addresses: ipc.Addresses{Local: peer, Peer: peer}, foreign: true})
		if a, err := l.Address(context.Background(), cookie); err != nil || a.Peer != peer {
			t.Fatalf("the %d-th is not remembered: %+v, %v", cookie, a, err)
		}
		if cookie%4 == 0 {
			l.book.drop(cookie) // it has ended
		}
	}
	if remembered, _ := l.Usage(); remembered > maxForeign || l.book.foreign != remembered {
		t.Errorf("%d are remembered (%d), want %d at most", remembered, l.book.foreign, maxForeign)
	}
	if _, err := l.Address(context.Background(), 1); err == nil {
		t.Error("the first one is still remembered")
	}
}
