// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"io"
	"net"
	"sync"
)

// splice joins two connections until both directions have ended, or ctx has,
// and closes them. A half-close is passed on as one, a reset as a reset. The
// bytes stay in the kernel (splice(2), by io.Copy).
func splice(ctx context.Context, a, b *net.TCPConn) {
	abort := sync.OnceFunc(func() {
		reset(a)
		reset(b)
	})
	stop := context.AfterFunc(ctx, abort)
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		both.Go(func() {
			if _, err := io.Copy(way[1], way[0]); err != nil {
				abort()
				return
			}
			way[1].CloseWrite()
		})
	}
	both.Wait()
	stop()
	a.Close()
	b.Close()
}
